"""Which jobs a command is about: ids and filters, as a `select(Job)`."""

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click
from sqlalchemy import Boolean, Select, and_, or_, select

from oban import encoding, filters
from oban.cli.durations import Duration
from oban.dialects import portable
from oban.errors import ObanError
from oban.filters import Condition
from oban.models import Job
from oban.repository.selection import MAX_ID
from oban.types import STATES

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    *("states", "queues", "workers", "tags", "args_at", "meta_at"),
    *("older_than", "newer_than", "priorities", "node"),
)

#: The ids of jobs. Larger numbers than the column can have are ids of no job.
ID = click.IntRange(min=1, max=MAX_ID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The jobs that a command is about."""

    ids: tuple[int, ...] = ()
    conditions: tuple[Condition, ...] = ()
    #: Whether the option `--all` was used, which only commands that change jobs have.
    everything: bool = False

    @property
    def only_ids(self) -> bool:
        return bool(self.ids) and not self.conditions

    def statement(self) -> Select[Any]:
        of_ids = [Job.id.in_(self.ids)] if self.ids else []
        return select(Job).where(*of_ids, *self.conditions)


def filtered(function: F) -> F:
    """Add the options that filter jobs. The command gets them as `choice`, a `Choice`."""

    @functools.wraps(function)
    def command(**options: Any) -> Any:
        choice = Choice(conditions=_conditions({option: options.pop(option) for option in _OPTIONS}))
        return function(choice=choice, **options)

    decorated: F = _with_options(command)
    return decorated


def targeted(function: F) -> F:
    """Add ids, the options that filter jobs, and `--all`. The command gets them as `choice`, a `Choice`."""

    @functools.wraps(function)
    def command(ids: tuple[int, ...], everything: bool, **options: Any) -> Any:
        conditions = _conditions({option: options.pop(option) for option in _OPTIONS})
        if everything and (ids or conditions):
            raise click.UsageError("--all means every job: leave it out, or leave out ids and filters.")
        if not (ids or conditions or everything):
            raise click.UsageError(
                "No jobs are chosen: pass ids, or filters such as --state or --queue, or --all for every job."
            )
        choice = Choice(ids=tuple(dict.fromkeys(ids)), conditions=conditions, everything=everything)
        return function(choice=choice, **options)

    decorated: Any = click.option("--all", "everything", is_flag=True, help="Every job of the database.")(
        command
    )
    decorated = _with_options(decorated)
    return click.argument("ids", metavar="[ID]...", type=ID, nargs=-1)(decorated)  # type: ignore[no-any-return]


def _with_options(function: Any) -> Any:
    path = "PATH=VALUE"
    for option in reversed(
        (
            click.option(
                "--state",
                "states",
                type=click.Choice(STATES, case_sensitive=False),
                metavar="STATE",
                multiple=True,
                help=f"Jobs in this state: {', '.join(STATES)}. Repeat it for several.",
            ),
            click.option(
                "--queue",
                "queues",
                metavar="NAME",
                multiple=True,
                help="Jobs of this queue, or of any of several.",
            ),
            click.option(
                "--worker",
                "workers",
                metavar="NAME",
                multiple=True,
                help="Jobs of this worker, or of any of several.",
            ),
            click.option(
                "--tag",
                "tags",
                metavar="TAG",
                multiple=True,
                help="Jobs with this tag, or with all of several.",
            ),
            click.option(
                "--args",
                "args_at",
                metavar=path,
                multiple=True,
                help="Jobs with this value in their args, such as customer.id=7; or a JSON object that the"
                " args contain; or a path alone, where the args have any value.",
            ),
            click.option("--meta", "meta_at", metavar=path, multiple=True, help="The same for their meta."),
            click.option(
                "--older-than",
                metavar="DURATION",
                type=Duration(),
                help="Jobs that were inserted longer ago: 90s, 15m, 2h, 7d, 1w.",
            ),
            click.option(
                "--newer-than",
                metavar="DURATION",
                type=Duration(),
                help="Jobs that were inserted since then.",
            ),
            click.option(
                "--priority",
                "priorities",
                metavar="NUMBER",
                type=click.IntRange(0, 9),
                multiple=True,
                help="Jobs of this priority, 0 to 9, or of any of several.",
            ),
            click.option("--node", metavar="NAME", help="Jobs whose last attempt was on this node."),
        )
    ):
        function = option(function)
    return function


def _conditions(options: Mapping[str, Any]) -> tuple[Condition, ...]:
    try:
        return tuple(_each_condition(**options))
    except ObanError as error:
        raise click.UsageError(f"{error}.") from error


def _each_condition(
    *,
    states: Sequence[str],
    queues: Sequence[str],
    workers: Sequence[str],
    tags: Sequence[str],
    args_at: Sequence[str],
    meta_at: Sequence[str],
    older_than: timedelta | None,
    newer_than: timedelta | None,
    priorities: Sequence[int],
    node: str | None,
) -> Iterator[Condition]:
    if states:
        yield filters.state(*states)
    if queues:
        # Other programs have queues whose names Oban refuses.
        yield Job.queue.in_([encoding.string(queue, "queue") for queue in queues])
    if workers:
        yield filters.worker(*workers)
    if tags:
        yield filters.tags(*tags)
    yield from (_at("--args", filters.args, text) for text in args_at)
    yield from (_at("--meta", filters.meta, text) for text in meta_at)
    if older_than is not None:
        yield Job.inserted_at <= _ago("--older-than", older_than)
    if newer_than is not None:
        yield Job.inserted_at > _ago("--newer-than", newer_than)
    if priorities:
        yield Job.priority.in_(priorities)
    if node is not None:
        names = [encoding.string(node, "node")]
        yield portable.per_database(lambda documents: documents.has_any(Job.attempted_by, names), Boolean())


def _ago(option: str, age: timedelta) -> datetime:
    try:
        return datetime.now(UTC) - age
    except OverflowError:
        raise click.UsageError(f"{option} is before the year 1.") from None


def _at(option: str, document: Callable[..., filters.Value], text: str) -> Condition:
    """The condition of `--args` and `--meta`: PATH=VALUE, PATH, or a JSON object."""
    if text.lstrip().startswith("{"):
        subset = _json(text)
        if not isinstance(subset, dict):
            raise click.UsageError(f"{option}: {text!r} is not a JSON object.")
        if not subset:
            raise click.UsageError(f"{option}: an empty object is contained in every job's: leave it out.")
        return and_(*_contained(document, (), subset))
    path, separator, value = text.partition("=")
    keys = path.split(".")
    if "" in keys:
        raise click.UsageError(
            f"{option}: {text!r} is not PATH=VALUE, such as customer.id=7, nor a JSON object, such as"
            """ '{"customer": {"id": 7}}'."""
        )
    found = [document(*path) for path in _paths(keys)]
    if not separator:
        return or_(*(each.exists() for each in found))
    parsed = _json(value)
    wanted = value if parsed is _NO_JSON else parsed
    return or_(*(each == wanted for each in found))


def _paths(keys: list[str]) -> Iterator[tuple[str | int, ...]]:
    """What a path can mean: a number is the index of a list, or a key."""
    first, *further = keys
    steps: list[tuple[str | int, ...]] = [
        (key, int(key)) if re.fullmatch(r"\d{1,9}", key, re.ASCII) else (key,) for key in further
    ]
    # Each such step doubles the condition.
    if sum(len(each) > 1 for each in steps) > 4:
        raise click.UsageError(f"the path {'.'.join(keys)} has more than 4 numbers; use a JSON object.")
    for rest in itertools.product(*steps):
        yield (first, *rest)


def _contained(
    document: Callable[..., filters.Value], path: tuple[str, ...], subset: Mapping[str, Any]
) -> Iterator[Condition]:
    for key, value in subset.items():
        if isinstance(value, dict) and value:
            yield from _contained(document, (*path, key), value)
        else:
            yield document(*path, key) == value


_NO_JSON = object()


def _json(text: str) -> Any:
    """Decode JSON. NaN and Infinity, which are not JSON, are words like any other."""
    try:
        return encoding.loads(text)
    except (ValueError, RecursionError):
        return _NO_JSON


def json_object(option: str, text: str) -> dict[str, Any]:
    """The JSON object that an option has as its value; raises `click.UsageError`."""
    value = _json(text)
    if not isinstance(value, dict):
        raise click.UsageError(
            f"{option}: {text[:60]!r} is not a JSON object, such as {json.dumps({'id': 7})}."
        )
    return value
