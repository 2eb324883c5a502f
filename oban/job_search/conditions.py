"""The terms of a query as conditions of a `select(Job)`."""

import operator
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import Boolean, Text, and_, cast, or_

from oban import clock, encoding, filters
from oban.dialects import portable
from oban.errors import EncodingError, InvalidArgument, InvalidJob
from oban.filters import Condition
from oban.job_search import documents
from oban.job_search.terms import Age, Anything, Pattern, Term, id_of
from oban.models import Job

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPPOSITE = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_DOCUMENT: dict[str, documents.Document] = {"args": filters.args, "meta": filters.meta}
_DAY = timedelta(days=1)


def condition(term: Term) -> Condition:
    """The condition of a term, which is true or false for each job, never NULL. Raises `InvalidArgument`."""
    try:
        found = _positive(term)
    except (EncodingError, InvalidJob) as error:
        raise InvalidArgument(str(error)) from None
    return ~found if term.negated else found


def node(*names: str) -> Condition:
    """Whether the last attempt of a job was on one of these nodes."""
    checked = [encoding.string(name, "node") for name in names]
    return portable.per_database(lambda each: each.has_any(Job.attempted_by, checked), Boolean())


def unindexed_state(*states: str) -> Condition:
    """Whether a job is in one of these states, without an index: other conditions have to find the rows.

    SQLite, whose planner knows nothing about the states, would read all rows of a state in their index.
    """
    return cast(Job.state, Text).in_([str(state) for state in states])


def inserted_before(age: timedelta) -> Condition:
    """Whether a job was inserted longer ago. Raises `OverflowError`."""
    return Job.inserted_at <= _now() - age


def inserted_within(age: timedelta) -> Condition:
    """Whether a job was inserted since then. Raises `OverflowError`."""
    return Job.inserted_at > _now() - age


def _positive(term: Term) -> Condition:
    values: Any = term.values
    match term.key:
        case "":
            return _text(values[0])
        case "state":
            return filters.state(*values)
        case "queue" | "worker":
            return _named(getattr(Job, term.key), values)
        case "tag":
            return filters.any_tag(*values)
        case "node":
            return node(*values)
        case "args" | "meta":
            document = _DOCUMENT[term.key]
            return or_(*(_at(document, term.path, value) for value in values))
        case "id" | "priority" | "attempt" | "max_attempts":
            column = getattr(Job, term.key)
            if term.operator:
                return _COMPARE[term.operator](column, values[0])  # type: ignore[no-any-return]
            return column.in_(values)  # type: ignore[no-any-return]
    column = getattr(Job, f"{term.key}_at")
    # A time that is NULL neither is nor is not before another one.
    return and_(column.is_not(None), or_(*(_at_time(column, term, value) for value in values)))


def _text(text: str) -> Condition:
    """Whether the worker, the queue or a tag contains a text, or it is the id of the job."""
    in_tags = portable.per_database(lambda each: each.has_part(Job.tags, text), Boolean())
    number = id_of(text)
    return or_(
        Job.worker.icontains(text, autoescape=True),
        Job.queue.icontains(text, autoescape=True),
        in_tags,
        *([] if number is None else [Job.id == number]),
    )


def _named(column: Any, values: tuple[str | Pattern, ...]) -> Condition:
    names = [value for value in values if isinstance(value, str)]
    patterns = [value.text for value in values if isinstance(value, Pattern)]
    found = [column.in_(names)] if names else []
    return or_(*found, *(column.ilike(_like(each), escape="\\") for each in patterns))


def _like(pattern: str) -> str:
    for special in "\\%_":
        pattern = pattern.replace(special, f"\\{special}")
    return pattern.replace("*", "%")


def _at(document: documents.Document, path: tuple[str, ...], value: Any) -> Condition:
    if isinstance(value, Anything):
        return documents.exists(document, path)
    return documents.equals(document, path, value)


def _at_time(column: Any, term: Term, value: Any) -> Condition:
    if isinstance(value, Age):
        try:
            delta = timedelta(seconds=value.seconds)
            moment = _now() + delta if term.key == "scheduled" else _now() - delta
        except OverflowError:
            raise InvalidArgument(f"{term} is outside of the years 1 to 9999") from None
        # "Less than an hour ago" is after the time of an hour ago.
        sign = term.operator if term.key == "scheduled" else _OPPOSITE[term.operator]
        return _COMPARE[sign](column, moment)  # type: ignore[no-any-return]
    if isinstance(value, datetime):
        return _COMPARE[term.operator](column, value)  # type: ignore[no-any-return]
    return _on_day(column, term, value)


def _on_day(column: Any, term: Term, day: date) -> Condition:
    begin = datetime.combine(day, time(), UTC)
    try:
        end = begin + _DAY
    except OverflowError:
        raise InvalidArgument(f"{term} is outside of the years 1 to 9999") from None
    conditions: dict[str, Condition] = {
        "": and_(column >= begin, column < end),
        "<": column < begin,
        "<=": column < end,
        ">": column >= end,
        ">=": column >= begin,
    }
    return conditions[term.operator]


def _now() -> datetime:
    return clock.now()
