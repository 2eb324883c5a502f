"""The filters that `all_enqueued`, `assert_enqueued` and `refute_enqueued` take, and their checks."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeAlias, TypedDict

from oban import arguments, display, fields, filters, suggestions
from oban.encoding import json_object
from oban.errors import ConfigError, InvalidArgument, InvalidJob
from oban.job_function import FunctionWorker
from oban.repository.selection import MAX_ID
from oban.testing.matching import Filter, Near, OneOf, Part, Tags
from oban.types import NEW_STATES, JobState, parse_state

#: mypy does not see that a class under `@worker` is a `type[Worker]`.
WorkerOrName: TypeAlias = type[Any] | FunctionWorker[..., Any] | str
#: A time, also with the tolerance in seconds or as a timedelta.
Time: TypeAlias = datetime | tuple[datetime, float | timedelta]
#: A delay, also with the tolerance.
Delay: TypeAlias = float | timedelta | tuple[float | timedelta, float | timedelta]

#: Seconds by which a time can differ from the one that a filter names.
TOLERANCE = 1.0


class EnqueuedFilters(TypedDict, total=False):
    """The filters of enqueued jobs. A job has to match all of those that are passed.

    Attributes:
        worker: A worker's class, `@job` function or name, or a list of them. A class or a function also finds
            the jobs under its aliases.
        queue: The name of a queue, or a list of names.
        state: A `JobState` or its value, or a list of them (default: available, scheduled and suspended).
        args: A part of the args: keys with their values, in nested dicts as well. Values that are not JSON,
            such as a UUID, and objects of declared args are converted as typed args are by default.
        meta: A part of the meta, in the same way.
        tags: A tag, or a list of tags that the job has among others.
        priority: The priority.
        max_attempts: How many attempts the job has.
        attempt: How many attempts have started.
        id: The id of the job.
        scheduled_at: When the job is due, within a second; or a tuple of the time and another tolerance, as
            seconds or a timedelta. The other times take the same values.
        scheduled_in: The seconds from now, or the timedelta, until the job is due, within a second; or a
            tuple of that and another tolerance.
        schedule_in: Another name for `scheduled_in`.
        inserted_at: When the job was enqueued.
        attempted_at: When the last attempt started; None for jobs that never ran.
        completed_at: When the job was completed; None for jobs that were not. So are the next two.
        cancelled_at: When the job was cancelled.
        discarded_at: When the job was discarded.
    """

    worker: WorkerOrName | Collection[WorkerOrName]
    queue: str | Collection[str]
    state: JobState | str | Collection[JobState | str]
    args: Any
    meta: Mapping[str, Any]
    tags: str | Collection[str]
    priority: int
    max_attempts: int
    attempt: int
    id: int
    scheduled_at: Time
    scheduled_in: Delay
    schedule_in: Delay
    inserted_at: Time
    attempted_at: Time | None
    completed_at: Time | None
    cancelled_at: Time | None
    discarded_at: Time | None


def parse(given: Mapping[str, Any]) -> list[Filter]:
    """The filters of a call, with the default one of `state`.

    Raises `ConfigError` if one is unknown or has a wrong value.
    """
    parsed = []
    for name, value in given.items():
        if name not in _PARSERS:
            hint = suggestions.suggestion(name, list(_PARSERS))
            raise ConfigError(f"there is no filter {display.shown(name, 80)}{hint}")
        try:
            parsed.append(_PARSERS[name](name, value))
        except (InvalidJob, InvalidArgument) as error:
            problem = str(error)
            raise ConfigError(problem if problem.startswith(name) else f"{name}: {problem}") from None
    if "scheduled_in" in given and "schedule_in" in given:
        raise ConfigError("scheduled_in and schedule_in exclude each other: pass one of them")
    if "state" not in given:
        parsed.append(OneOf("state", NEW_STATES))
    return parsed


def _one_of(check: Callable[[Any], Any], weight: float = 1.0) -> Callable[[str, Any], Filter]:
    def parse(name: str, value: Any) -> Filter:
        items = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
        if not items:
            raise InvalidArgument("at least one is needed; without one, no job would match")
        return OneOf(name, tuple(dict.fromkeys(each for item in items for each in check(item))), weight)

    return parse


def _number(least: int, most: int) -> Callable[[str, Any], Filter]:
    return lambda name, value: OneOf(name, (fields.integer(value, name, least, most),))


def _tags(name: str, value: Any) -> Filter:
    return Tags(name, tuple(fields.tags([value] if isinstance(value, str) else value)))


def _part(name: str, value: Any) -> Filter:
    if isinstance(value, Mapping):
        value = dict(value)
    try:
        return Part(name, json_object(value, name))
    except InvalidJob as error:
        try:
            converted = _stored(value) if arguments.is_value(value) else value
        except RecursionError:
            raise error from None
        return Part(name, json_object(converted, name))


def _stored(value: Any) -> Any:
    """A value with what is not JSON in it as typed args store it."""
    if isinstance(value, dict):
        return {key: _stored(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_stored(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float)) else arguments.stored_form(value)


def _time(name: str, value: Any) -> Filter:
    if value is None and name not in ("scheduled_at", "inserted_at"):
        return Near(name, None, 0.0, name)
    time, tolerance = _with_tolerance(name, value)
    return Near(name, fields.utc(time, name), tolerance, name)


def _delay(name: str, value: Any) -> Filter:
    delay, tolerance = _with_tolerance(name, value)
    return Near("scheduled_at", fields.seconds(delay, name), tolerance, name)


def _with_tolerance(name: str, value: Any) -> tuple[Any, float]:
    if not isinstance(value, tuple):
        return value, TOLERANCE
    if len(value) != 2:
        raise InvalidArgument("a tuple has the value and its tolerance")
    tolerance = fields.seconds(value[1], f"the tolerance of {name}")
    if tolerance < 0:
        raise InvalidArgument(f"the tolerance must not be negative: {tolerance:g}")
    return value[0], tolerance


_PARSERS: dict[str, Callable[[str, Any], Filter]] = {
    # A job of another worker is hardly ever the one that was meant.
    "worker": _one_of(filters.worker_names, weight=4.0),
    "queue": _one_of(lambda value: [fields.queue(value)]),
    "state": _one_of(lambda value: [parse_state(value)]),
    "args": _part,
    "meta": _part,
    "tags": _tags,
    "priority": _number(0, fields.MAX_PRIORITY),
    "max_attempts": _number(1, fields.MAX_ATTEMPTS),
    "attempt": _number(0, fields.MAX_ATTEMPTS),
    "id": _number(1, MAX_ID),
    "scheduled_in": _delay,
    "schedule_in": _delay,
    **dict.fromkeys(
        ("scheduled_at", "inserted_at", "attempted_at", "completed_at", "cancelled_at", "discarded_at"), _time
    ),
}
