"""Which jobs a command or a request is about: ids and filters, as a `select(Job)`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypedDict

from sqlalchemy import Select, and_, select

from oban import encoding, filters
from oban.errors import InvalidArgument, ObanError
from oban.filters import Condition
from oban.job_search import conditions, documents, query
from oban.models import Job

#: The orders of lists of jobs.
Sort = Literal["newest", "oldest", "due"]
ORDERS: dict[Sort, Any] = {
    "newest": (Job.id.desc(),),
    "oldest": (Job.id,),
    "due": (Job.scheduled_at, Job.id),
}


class Filters(TypedDict, total=False):
    """Filters of jobs. A job has to match each that is set."""

    #: Any of these states.
    state: list[str]
    #: Any of these queues.
    queue: list[str]
    #: Any of these workers.
    worker: list[str]
    #: All of these tags.
    tag: list[str]
    #: Values in the args: PATH=VALUE, PATH, or a JSON object that the args contain.
    args: list[str]
    #: The same for the meta.
    meta: list[str]
    #: Inserted at least so many seconds ago.
    older_than: float
    #: Inserted less than so many seconds ago.
    newer_than: float
    #: Any of these priorities.
    priority: list[int]
    #: The last attempt was on this node.
    node: str
    #: A query, such as `state:available queue:mail`.
    q: str


class InvalidFilter(InvalidArgument):
    """A filter has a value that it does not take. `filter` is its name, and `problem` the reason."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.filter = name
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The jobs that a command or a request is about.

    Attributes:
        ids: Their ids.
        filters: Their filters, which `conditions` are made of.
        conditions: The conditions of a statement that they match.
        everything: Whether every job is meant, without ids and conditions.
    """

    ids: tuple[int, ...] = ()
    filters: Filters = field(default_factory=Filters)
    conditions: tuple[Condition, ...] = ()
    everything: bool = False

    @classmethod
    def of(cls, chosen: Filters, ids: Sequence[int] = (), *, everything: bool = False) -> "Choice":
        """The jobs with these ids that match all filters. Raises `InvalidFilter`."""
        made = tuple(_conditions(chosen))
        return cls(ids=tuple(dict.fromkeys(ids)), filters=chosen, conditions=made, everything=everything)

    @property
    def only_ids(self) -> bool:
        return bool(self.ids) and not self.conditions

    def statement(self) -> Select[Any]:
        of_ids = [Job.id.in_(self.ids)] if self.ids else []
        return select(Job).where(*of_ids, *self.conditions)


def _conditions(chosen: Filters) -> Iterator[Condition]:
    for name, value in chosen.items():
        try:
            yield from _MAKERS[name](value)
        except InvalidFilter:
            raise
        except ObanError as error:
            raise InvalidFilter(name, str(error)) from error


def _queues(names: Sequence[str]) -> Iterator[Condition]:
    # Other programs have queues whose names Oban refuses.
    yield Job.queue.in_([encoding.string(name, "queue") for name in names])


def _by_age(name: str, condition: Callable[[timedelta], Condition], seconds: float) -> Iterator[Condition]:
    try:
        yield condition(timedelta(seconds=seconds))
    except (OverflowError, ValueError):
        raise InvalidFilter(name, "the time is before the year 1") from None


#: By filter: makes its conditions.
_MAKERS: Mapping[str, Callable[[Any], Iterator[Condition]]] = {
    "state": lambda states: iter([filters.state(*states)]),
    "queue": _queues,
    "worker": lambda names: iter([filters.worker(*names)]),
    "tag": lambda tags: iter([filters.tags(*tags)]),
    "args": lambda texts: (_at("args", filters.args, text) for text in texts),
    "meta": lambda texts: (_at("meta", filters.meta, text) for text in texts),
    "older_than": lambda age: _by_age("older_than", conditions.inserted_before, age),
    "newer_than": lambda age: _by_age("newer_than", conditions.inserted_within, age),
    "priority": lambda numbers: iter([Job.priority.in_(numbers)]),
    "node": lambda node: iter([conditions.node(node)]),
    "q": lambda text: iter([found] if (found := query.parse(text).condition()) is not None else []),
}


def _at(name: str, document: documents.Document, text: str) -> Condition:
    """The condition of a filter of args or meta: PATH=VALUE, PATH, or a JSON object."""
    if text.lstrip().startswith("{"):
        subset = decoded(text)
        if not isinstance(subset, dict):
            raise InvalidFilter(name, f"{text!r} is not a JSON object")
        if not subset:
            raise InvalidFilter(name, "an empty object is contained in every job's: leave it out")
        return and_(*documents.contained(document, subset))
    path, separator, value = text.partition("=")
    keys = path.split(".")
    if "" in keys:
        raise InvalidFilter(
            name,
            f"{text!r} is not PATH=VALUE, such as customer.id=7, nor a JSON object, such as"
            """ '{"customer": {"id": 7}}'""",
        )
    try:
        if not separator:
            return documents.exists(document, keys)
        parsed = decoded(value)
        return documents.equals(document, keys, value if parsed is NO_JSON else parsed)
    except documents.TooManyNumbers as error:
        raise InvalidFilter(name, f"{error}; use a JSON object") from None


#: Stands for a text that is not JSON.
NO_JSON = object()


def decoded(text: str) -> Any:
    """Decode JSON. NaN and Infinity, which are not JSON, are words like any other."""
    try:
        return encoding.loads(text)
    except (ValueError, RecursionError):
        return NO_JSON
