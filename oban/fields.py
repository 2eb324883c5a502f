"""Checks of the fields of a job, one function for each, for new jobs, options of workers and updates.

Each returns the value in its normal form and raises `InvalidJob`.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Required, TypeAlias, TypedDict
from zoneinfo import ZoneInfo

from oban import clock, display, encoding, suggestions, unique
from oban.encryption import EncryptOption
from oban.errors import InvalidJob
from oban.unique import UniqueOption
from oban.unique_options import ReplaceOption

QUEUE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}", re.ASCII)
#: In characters, as is the next one.
MAX_WORKER = 255
MAX_TAG = 255
MAX_TAGS = 100
#: The column is a smallint.
MAX_ATTEMPTS = 32767
MAX_PRIORITY = 9


class JobOptions(TypedDict, total=False):
    """Options of a worker that apply to all its jobs."""

    queue: str
    priority: int
    max_attempts: int
    tags: list[str] | tuple[str, ...] | set[str] | frozenset[str]
    meta: dict[str, Any]


class UniqueJobOptions(TypedDict, total=False):
    """The options of unique jobs. None stands for the worker's, or for that of its base class."""

    unique: UniqueOption
    replace: ReplaceOption


class Times(TypedDict, total=False):
    """When a job is due."""

    scheduled_at: datetime
    schedule_in: float | timedelta
    scheduled_in: float | timedelta


class Overrides(JobOptions, UniqueJobOptions, Times, total=False):
    """Options of a single job; they override those of its worker."""


class JobFields(Overrides, total=False):
    """The arguments of `Job`."""

    worker: Required[str]
    args: Mapping[str, Any]


class JobUpdate(JobOptions, Times, total=False):
    """The fields that `update_job` and `update_many_jobs` can change."""

    worker: str
    args: Mapping[str, Any]


class RetryOptions(TypedDict, total=False):
    """The options of `retry_job` and `retry_many_jobs`, which also change fields. None means not set."""

    scheduled_at: datetime | None
    schedule_in: float | timedelta | None
    scheduled_in: float | timedelta | None
    queue: str | None
    priority: int | None


#: Classes of exceptions, for options of a worker.
ErrorClasses: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]
#: Classes of exceptions, with the delay until the job runs again, in seconds or as a timedelta.
ErrorDelays: TypeAlias = Mapping[type[BaseException], float | timedelta]


class DecoratorOptions(JobOptions, UniqueJobOptions, total=False):
    """Options of `@worker`. None stands for the default, except for `timeout`, where it means no limit."""

    name: str | None
    aliases: str | Sequence[str] | None
    oban: str | None
    cron: str | None
    timezone: str | ZoneInfo | None
    redact: str | Sequence[str] | None
    encrypt: EncryptOption
    catch_up: Literal["skip", "latest", "all"] | int | None
    window: float | timedelta | None
    cron_name: str | None
    timeout: float | timedelta | None
    executor: Literal["thread", "process"] | None
    middleware: Sequence[Callable[[Any, Any], Any]] | None
    retry_on: ErrorClasses | ErrorDelays | None
    discard_on: ErrorClasses | None
    cancel_on: ErrorClasses | None
    snooze_on: ErrorDelays | None


class WorkerOptions(DecoratorOptions, total=False):
    """Options of a class statement and of `@job`."""

    args: Any


def queue(value: object) -> str:
    """A string that matches `QUEUE_NAME`."""
    if not isinstance(value, str):
        raise InvalidJob("queue", f"must be a string, not {type(value).__name__}")
    if not QUEUE_NAME.fullmatch(value):
        raise InvalidJob(
            "queue",
            f"{value[:140]!r} is not a queue name: a letter, digit or underscore, then letters,"
            " digits and _ . - (up to 128)",
        )
    return str(value)


def queue_or_none(value: object) -> str | None:
    """The name of a queue; None stands for all queues."""
    return None if value is None else queue(value)


def worker(value: object) -> str:
    """A string that is not blank, of up to 255 characters."""
    if not isinstance(value, str):
        raise InvalidJob("worker", f"must be a string, not {type(value).__name__}")
    if not value.strip():
        raise InvalidJob("worker", "must not be blank")
    if len(value) > MAX_WORKER:
        raise InvalidJob("worker", f"is longer than {MAX_WORKER} characters")
    return encoding.string(value, "worker")


def integer(value: object, field: str, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidJob(field, f"must be an integer, not {type(value).__name__}")
    if not least <= value <= most:
        raise InvalidJob(field, f"must be {least} to {most}, not {display.shown(value)}")
    return int(value)


def args(value: object) -> dict[str, Any]:
    """A deep copy of a dict of JSON values."""
    return encoding.json_object(value, "args")


def tags(value: object) -> list[str]:
    """Up to 100 strings of up to 255 characters: sorted, trimmed, in lower case, not blank and unique."""
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise InvalidJob("tags", f"must be a list of strings, not {type(value).__name__}")
    distinct: set[str] = set()
    for item in value:
        if not isinstance(item, str):
            raise InvalidJob("tags", f"must be strings; {display.shown(item)} is not")
        tag = encoding.string(item, "tags").strip().lower()
        if len(tag) > MAX_TAG:
            raise InvalidJob("tags", f"has one of more than {MAX_TAG} characters: {tag[:20]!r}…")
        if tag:
            distinct.add(tag)
    if len(distinct) > MAX_TAGS:
        raise InvalidJob("tags", f"are {len(distinct)}; at most {MAX_TAGS} are stored")
    return sorted(distinct)


def utc(value: object, field: str = "scheduled_at") -> datetime:
    """A datetime with a time zone, converted to UTC and to a plain `datetime`."""
    if not isinstance(value, datetime):
        raise InvalidJob(field, f"must be a datetime, not {type(value).__name__}")
    try:
        if value.utcoffset() is None:
            problem = f"must carry a time zone; {value.isoformat()} does not (datetime.now(UTC) does)"
            raise InvalidJob(field, problem)
        moment = value.astimezone(UTC)
        if type(moment) is datetime:
            return moment
        return datetime.combine(moment.date(), moment.time(), UTC)
    except InvalidJob:
        raise
    except OverflowError:
        raise InvalidJob(field, "is outside of the years 1 to 9999 in UTC") from None
    # Methods of a subclass can do anything; those of pandas.NaT raise, or return another NaT.
    except Exception as error:
        raise InvalidJob(field, f"is a {type(value).__name__} that cannot be converted to UTC") from error


def seconds(value: object, field: str) -> float:
    """A finite number of seconds, or a timedelta, as seconds."""
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if not isinstance(number, (int, float)) or isinstance(number, bool):
        raise InvalidJob(field, f"must be seconds or a timedelta, not {type(value).__name__}")
    try:
        number = float(number)
    except OverflowError:
        number = math.inf if number > 0 else -math.inf
    if not math.isfinite(number):
        raise InvalidJob(field, f"must be finite, not {number}")
    return number


def delay(value: object, field: str = "schedule_in") -> float:
    """A number of seconds, or a timedelta, as seconds: not negative, and ending before the year 10000."""
    number = seconds(value, field)
    if number < 0:
        raise InvalidJob(field, f"must not be negative: {number}")
    try:
        clock.now() + timedelta(seconds=number)
    except OverflowError:
        raise InvalidJob(field, f"of {number} seconds ends after the year 9999") from None
    return number


def schedule_in(value: object, field: str = "schedule_in") -> float:
    """Check a delay; a negative one, such as the time until a deadline that has passed, means now."""
    return delay(max(seconds(value, field), 0.0), field)


def timeout(value: object) -> float:
    """A number of seconds, or a timedelta, as seconds: finite and more than 0."""
    if number := delay(value, "timeout"):
        return number
    raise InvalidJob("timeout", "must be more than 0 seconds")


#: By name, the check of each field that a user can set.
CHECKS: dict[str, Callable[[object], Any]] = {
    "args": args,
    "max_attempts": lambda value: integer(value, "max_attempts", 1, MAX_ATTEMPTS),
    "meta": lambda value: encoding.json_object(value, "meta"),
    "priority": lambda value: integer(value, "priority", 0, MAX_PRIORITY),
    "queue": queue,
    "scheduled_at": utc,
    "tags": tags,
    "worker": worker,
}
#: By name, the check of each field of a new job.
SETTABLE: dict[str, Callable[[object], Any]] = {
    **CHECKS,
    "schedule_in": schedule_in,
    "scheduled_in": lambda value: schedule_in(value, "scheduled_in"),
    "unique": unique.check,
    "replace": unique.check_replace,
}
#: The fields that set when a job is due, of which a job can have one.
TIMES = ("schedule_in", "scheduled_in", "scheduled_at")


def check(values: Mapping[str, object]) -> dict[str, Any]:
    """Check several fields. `schedule_in` and `scheduled_in` become a number of seconds in `schedule_in`.

    Raises `InvalidJob` for a field that does not exist or cannot be set, for a wrong value, and if two of
    `TIMES` are set.
    """
    checked: dict[str, Any] = {}
    for field, value in values.items():
        if field not in SETTABLE:
            name = field if isinstance(field, str) else display.shown(field)
            raise InvalidJob(name[:100], f"cannot be set{suggestions.suggestion(field, list(SETTABLE))}")
        checked[field] = SETTABLE[field](value)
    times = [field for field in TIMES if field in checked]
    if len(times) > 1:
        raise InvalidJob(times[0], f"and {times[1]} exclude each other: pass one of them")
    if times == ["scheduled_in"]:
        checked["schedule_in"] = checked.pop("scheduled_in")
    return checked


def check_retry(options: Mapping[str, object]) -> dict[str, Any]:
    """Check the `RetryOptions` of a call, as `check` does; None counts as not set."""
    known = list(RetryOptions.__annotations__)
    for option in options:
        if option not in known:
            raise InvalidJob(option, f"cannot be set by a retry{suggestions.suggestion(option, known)}")
    return check({option: value for option, value in options.items() if value is not None})
