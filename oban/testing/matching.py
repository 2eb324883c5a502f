"""Filters of enqueued jobs.

Each narrows a statement down where SQL can do that, and then judges the jobs that were found. What it says
about a job that does not match is also what a failing assertion shows.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from difflib import SequenceMatcher
from typing import Any, TypeAlias, cast

from sqlalchemy import ColumnElement, or_, select

from oban import display, encryption, filters, redaction
from oban.database.transaction import Transaction
from oban.models import Job
from oban.secret_values import REDACTED
from oban.types import JobState

Condition: TypeAlias = ColumnElement[bool]

_columns = Job.__table__.c
#: How many rows a statement reads at once.
PAGE = 2000
#: How many values of a document are compared in SQL.
_MAX_CONDITIONS = 10
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Filter(ABC):
    """One filter: the attribute of a job that it is about."""

    name: str

    @property
    def label(self) -> str:
        """The name of the filter; that of a delay is not the name of a column."""
        return self.name

    @abstractmethod
    def __str__(self) -> str:
        """What is wanted, for a failing assertion."""

    @abstractmethod
    def conditions(self) -> list[Condition]:
        """Conditions that every matching job fulfils."""

    @abstractmethod
    def differences(self, job: Job) -> list[str]:
        """What about a job is not as wanted, as clauses; empty if it matches."""

    def distance(self, job: Job) -> float:
        """How far a job is from what is wanted: 0 if it matches."""
        return float(bool(self.differences(job)))

    def redacted(self, names: frozenset[str]) -> "Filter":
        """This filter as messages show it, without the values of redacted fields."""
        return self

    def at(self, now: datetime) -> "Filter":
        """This filter when the time is `now`."""
        return self


@dataclass(frozen=True)
class OneOf(Filter):
    """The value of a column is one of some strings or numbers."""

    values: tuple[Any, ...]
    #: The distance of all other values.
    weight: float = 1.0

    def __str__(self) -> str:
        *others, last = map(_text, self.values)
        return f"{', '.join(others)} or {last}" if others else last

    def conditions(self) -> list[Condition]:
        return [getattr(Job, self.name).in_(self.values)]

    def differences(self, job: Job) -> list[str]:
        value = getattr(job, self.name)
        return [] if value in self.values else [f"{self.name} is {_text(value)}"]

    def distance(self, job: Job) -> float:
        if not self.differences(job):
            return 0.0
        return self.weight * (1.5 - max(_similarity(value, getattr(job, self.name)) for value in self.values))


@dataclass(frozen=True)
class Tags(Filter):
    """All of some tags are among those of a job."""

    tags: tuple[str, ...]

    def __str__(self) -> str:
        return display.shown(list(self.tags))

    def conditions(self) -> list[Condition]:
        return [filters.tags(*self.tags)] if self.tags else []

    def differences(self, job: Job) -> list[str]:
        if not (lacking := self._lacking(job)):
            return []
        return [f"tags are {display.shown(job.tags, 80)}, without {display.shown(lacking, 80)}"]

    def distance(self, job: Job) -> float:
        lacking = len(self._lacking(job))
        return 1 + lacking / len(self.tags) if lacking else 0.0

    def _lacking(self, job: Job) -> list[str]:
        present = job.tags if isinstance(job.tags, list) else []
        return [tag for tag in self.tags if tag not in present]


@dataclass(frozen=True)
class Part(Filter):
    """A dict is a part of `args` or `meta`."""

    wanted: dict[str, Any]

    def __str__(self) -> str:
        return display.shown(self.wanted)

    def redacted(self, names: frozenset[str]) -> "Part":
        return replace(self, wanted=redaction.replaced(self.wanted, names))

    def conditions(self) -> list[Condition]:
        value_at = filters.args if self.name == "args" else filters.meta
        leaves = [leaf for leaf in _leaves((), self.wanted) if leaf[0]]
        conditions = [
            value_at(*path).exists() if isinstance(value, (dict, list)) else value_at(*path) == value
            for path, value in leaves[:_MAX_CONDITIONS]
        ]
        if self.name == "args" and encryption.is_used:
            # SQL cannot read the args of these.
            is_encrypted = Job.worker.in_(encryption.names())
            return [or_(is_encrypted, condition) for condition in conditions]
        return conditions

    def differences(self, job: Job) -> list[str]:
        return [text for text, _ in self._compare(job)]

    def distance(self, job: Job) -> float:
        different = sum(count for _, count in self._compare(job))
        return 1 + different / _count(self.wanted) if different else 0.0

    def _compare(self, job: Job) -> Iterator[tuple[str, int]]:
        names, actual = redaction.names_of(job), getattr(job, self.name)
        wanted = self.wanted, redaction.replaced(self.wanted, names)
        return _differences(self.name, wanted, (actual, redaction.replaced(actual, names)))


@dataclass(frozen=True)
class Near(Filter):
    """A time is near another one, which can be a number of seconds from now, or None."""

    wanted: datetime | float | None
    tolerance: float
    asked_as: str

    @property
    def label(self) -> str:
        return self.asked_as

    def __str__(self) -> str:
        if self.wanted is None:
            return "None"
        wanted = f"{self.wanted:g} s" if isinstance(self.wanted, float) else self.wanted.isoformat()
        return f"{wanted} (± {self.tolerance:g} s)"

    def at(self, now: datetime) -> "Near":
        if not isinstance(self.wanted, float):
            return self
        return replace(self, wanted=_shifted(now, self.wanted))

    def conditions(self) -> list[Condition]:
        column = getattr(Job, self.name)
        if self.wanted is None:
            return [column.is_(None)]
        wanted = self._time()
        return [column.between(_shifted(wanted, -self.tolerance), _shifted(wanted, self.tolerance))]

    def differences(self, job: Job) -> list[str]:
        value = getattr(job, self.name)
        if value is None or self.wanted is None:
            return [] if value is self.wanted else [f"{self.name} is {_text(value)}"]
        late = (value - self._time()).total_seconds()
        if abs(late) <= self.tolerance:
            return []
        return [f"{self.name} is {_text(value)}, {_duration(late)} too {'late' if late > 0 else 'early'}"]

    def distance(self, job: Job) -> float:
        if not self.differences(job):
            return 0.0
        value = getattr(job, self.name)
        if value is None or self.wanted is None:
            return 2.0
        seconds: float = (value - self._time()).total_seconds()
        return 1 + min(abs(seconds) / 86_400, 1.0)

    def _time(self) -> datetime:
        # `at` has turned a delay into a time.
        return cast(datetime, self.wanted)


def at_database_time(tx: Transaction, wanted: Sequence[Filter]) -> list[Filter]:
    """Filters whose delays are times: counted from the clock that also decides when a job is due."""
    if not any(isinstance(each, Near) and isinstance(each.wanted, float) for each in wanted):
        return list(wanted)
    now = tx.execute(select(tx.dialect.now())).scalar_one()
    return [each.at(now) for each in wanted]


def find(tx: Transaction, wanted: Sequence[Filter], most: int | None = None) -> list[Job]:
    """The jobs that match all filters, the newest first, or up to `most` of them.

    They are as stored, whatever the caller's session has loaded before, and in no session.
    """
    statement = select(*_columns).order_by(_columns.id.desc())
    statement = statement.where(*(condition for each in wanted for condition in each.conditions()))
    size = PAGE if most is None else min(most, PAGE)
    page, found = statement.limit(size), list[Job]()
    while True:
        jobs = [Job._from_row(row) for row in tx.execute(page)]
        if encryption.is_used:
            for job in jobs:
                encryption.reveal(job)
        found += [job for job in jobs if not any(each.differences(job) for each in wanted)]
        if len(jobs) < size or (most is not None and len(found) >= most):
            return found[:most]
        # SQL does not know all conditions, so any number of rows can turn out not to match.
        size = PAGE
        page = statement.where(_columns.id < jobs[-1].id).limit(size)


def _leaves(path: tuple[str | int, ...], value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The values in nested dicts and lists that are neither, or are empty ones, with their paths."""
    if value and isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves((*path, key), item)
    else:
        yield path, value


def _count(value: Any) -> int:
    return sum(1 for _ in _leaves((), value))


def _differences(path: str, wanted: tuple[Any, Any], actual: tuple[Any, Any]) -> Iterator[tuple[str, int]]:
    """Where a JSON value is not as wanted, and how many of the wanted values that concerns.

    Dicts can have further keys; lists have the same length.

    Args:
        path: Where the values are.
        wanted: The value that is wanted, and how messages show it.
        actual: The value that is there, and how messages show it.
    """
    one, other = wanted[0], actual[0]
    if isinstance(one, dict) and isinstance(other, dict):
        for key, value in one.items():
            where = f"{path}[{display.shown(key, 60)}]"
            if key in other:
                yield from _differences(where, _parts(wanted, key), _parts(actual, key))
            else:
                yield f"{where} is missing", _count(value)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index in range(len(one)):
            yield from _differences(f"{path}[{index}]", _parts(wanted, index), _parts(actual, index))
    elif not _equal(one, other):
        if actual[1] == REDACTED or wanted[1] == REDACTED:
            yield f"{path} is redacted, and is not the wanted value", _count(one)
        else:
            yield f"{path} is {display.shown(actual[1], 80)}, not {display.shown(wanted[1], 80)}", _count(one)


def _parts(pair: tuple[Any, Any], key: Any) -> tuple[Any, Any]:
    """An item of a value, and how messages show it: nothing in a redacted value is shown."""
    value, shown = pair
    return value[key], shown[key] if isinstance(shown, (dict, list)) else shown


def _equal(one: Any, other: Any) -> bool:
    # As in JSON, True is not 1.
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


def _similarity(one: Any, other: Any) -> float:
    """How similar two names are, from 0 to 1; 0.5 for states and numbers."""
    if not isinstance(one, str) or not isinstance(other, str) or isinstance(one, JobState):
        return 0.5
    # Long strings take long to compare.
    return SequenceMatcher(None, one[:100], other[:100]).ratio()


def _duration(seconds: float) -> str:
    text = str(timedelta(seconds=round(abs(seconds), 3)))
    return text.rstrip("0") if "." in text else text


def _shifted(time: datetime, seconds: float) -> datetime:
    """A time plus a number of seconds, within the years that a datetime can have."""
    try:
        return time + timedelta(seconds=seconds)
    except OverflowError:
        return _LAST if seconds > 0 else _FIRST


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, JobState) else display.shown(value, 100)
