"""A search in words."""

from datetime import datetime

from oban.job_search.query import Query
from oban.job_search.terms import Age, Anything, Pattern, Term, Value, id_of

_OPERATORS = {"": "is", "<": "is less than", "<=": "is at most", ">": "is more than", ">=": "is at least"}
_TIMES = {"": "on", "<": "before", "<=": "until", ">": "after", ">=": "since"}
_AGES = {"<": "less than", "<=": "at most", ">": "more than", ">=": "at least"}


def of(query: Query) -> list[str]:
    """What each term of a search asks for."""
    return [_term(term) for term in query.terms]


def _term(term: Term) -> str:
    not_ = "not: " if term.negated else ""
    values = " or ".join(_value(value) for value in term.values)
    if not term.key:
        is_number = id_of(str(term.values[0])) is not None
        is_id = ", or the id is that number" if is_number else ""
        return f"{not_}the worker, the queue or a tag contains {values}{is_id}"
    if term.key == "tag":
        return f"{not_}a tag is {values}"
    if term.key == "node":
        return f"{not_}the last attempt was on {values}"
    value = term.values[0]
    if isinstance(value, Age):
        direction = "from now" if term.key == "scheduled" else "ago"
        return f"{not_}{term.key} {_AGES[term.operator]} {value.text} {direction}"
    if not isinstance(value, str) and term.key in ("inserted", "scheduled", "attempted", "completed",
                                                   "cancelled", "discarded"):  # fmt: skip
        return f"{not_}{term.key} {_TIMES[term.operator]} {values}"
    name = ".".join([term.key, *term.path])
    if any(isinstance(each, Anything) for each in term.values):
        return f"{not_}{name} has a value"
    return f"{not_}the {name} {_OPERATORS[term.operator]} {values}"


def _value(value: Value) -> str:
    match value:
        case Pattern(text):
            return text
        case datetime():
            return value.isoformat()
        case None | bool():
            return str(value).lower() if value is not None else "null"
        case str():
            return f"“{value}”"
    return str(value)
