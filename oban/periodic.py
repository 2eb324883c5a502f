"""Periodic jobs: what an entry consists of, and its form in the table.

An entry has a name, a cron expression with a time zone, and the fields of the jobs that are inserted at its
times. The table stores all of it but the name as a JSON object, `declared`. An operator's changes are another
object, `override`, whose keys replace those of `declared`; the result is the effective entry.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, TypedDict, get_args
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from oban import display, encoding, fields
from oban.errors import ConfigError, InvalidJob

#: What happens with times that have passed while no node could insert their jobs.
CatchUp: TypeAlias = Literal["skip", "latest", "all"] | int
CATCH_UP: tuple[str, ...] = get_args(get_args(CatchUp)[0])
#: The most jobs that one entry can catch up on.
MAX_CATCH_UP = 10_000
MAX_NAME = 255
MAX_EXPRESSION = 255
DEFAULT_WINDOW = 3600.0
MAX_WINDOW = 366 * 86_400.0

#: The keys of `declared` that are fields of the jobs, and those that are about the times.
JOB_FIELDS = ("worker", "queue", "args", "priority", "max_attempts", "tags", "meta")
TIMING = ("expression", "timezone", "catch_up", "window")


class PeriodicChanges(TypedDict, total=False):
    """What `update_periodic` can change about an entry. None means not set."""

    expression: str | None
    timezone: str | ZoneInfo | None
    args: Any
    queue: str | None
    priority: int | None
    max_attempts: int | None
    tags: list[str] | tuple[str, ...] | set[str] | frozenset[str] | None
    meta: dict[str, Any] | None
    catch_up: CatchUp | None
    window: float | timedelta | None


@dataclass(frozen=True, slots=True)
class Periodic:
    """An entry of periodic jobs, for `Oban(periodic=[…])` and `add_periodic`.

    Args:
        name: The name of the entry, which is unique within an instance, up to 255 characters.
        expression: A cron expression such as `"0 3 * * *"`, or `@hourly`, `@daily`, `@weekly`, `@monthly`,
            `@yearly` or `@reboot`.
        job: A new job, `MyWorker.new({…})`, whose fields each inserted job gets. It is not enqueued itself.
        timezone: The name of the time zone that the expression is about (default "UTC").
        catch_up: Which of the times are made up for that passed while no node could insert jobs: "latest",
            the newest one, "skip", none, "all", or the number of the newest ones (default "latest").
        window: How long ago such a time can be, in seconds or as a timedelta (default one hour).

    Raises:
        ConfigError: The name, the expression, the time zone or an option has a wrong value, or the job was
            enqueued before or is scheduled for a time of its own.

    Example:
        `Periodic("nightly", "0 3 * * *", Report.new({"kind": "daily"}), timezone="Europe/Berlin")`
    """

    name: str
    expression: str
    job: Any
    timezone: str | ZoneInfo = field(default="UTC", kw_only=True)
    catch_up: CatchUp = field(default="latest", kw_only=True)
    window: float | timedelta = field(default=DEFAULT_WINDOW, kw_only=True)
    #: The entry as it is stored.
    declared: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        try:
            timing = check_timing({key: getattr(self, key) for key in TIMING})
            declared = {**timing, **_job_fields(self.job)}
        except (ConfigError, InvalidJob) as error:
            raise ConfigError(f"periodic {display.shown(self.name)}: {error}") from None
        for key, value in timing.items():
            object.__setattr__(self, key, value)
        object.__setattr__(self, "declared", declared)

    @classmethod
    def parse(cls, value: Any) -> "Periodic":
        """An entry from an instance or a dict of its arguments; raises `ConfigError`."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(
                "periodic must be a list of entries, such as"
                f' Periodic("name", "0 3 * * *", MyWorker.new()), not of {display.shown(value)}'
            )
        known = [name for name, item in cls.__dataclass_fields__.items() if item.init]
        for key in value:
            if key not in known:
                hint = fields.suggestion(key, known)
                raise ConfigError(f"periodic: unknown option {display.shown(key)}{hint}")
        for key in ("name", "expression", "job"):
            if key not in value:
                raise ConfigError(f"periodic: {key} is missing")
        return cls(**value)


def parse_entries(value: Any) -> tuple[Periodic, ...]:
    """The option `periodic` of `Oban`. Raises `ConfigError`, also if two entries have the same name."""
    if isinstance(value, (str, bytes, Mapping, Periodic)) or not isinstance(value, Iterable):
        raise ConfigError(f"periodic must be a list of entries, not {display.shown(value)}")
    entries = tuple(map(Periodic.parse, value))
    check_distinct(entries)
    return entries


def check_distinct(entries: Iterable[Periodic]) -> None:
    """Raise `ConfigError` if two entries have the same name."""
    names: set[str] = set()
    for entry in entries:
        if entry.name in names:
            raise ConfigError(
                f"two periodic entries are named {display.shown(entry.name)}: give one of them another name"
                " (cron_name= of a worker)"
            )
        names.add(entry.name)


def check_name(value: object) -> str:
    """The name of an entry; raises `ConfigError`."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(
            f"the name of a periodic entry must be a string that is not blank, not {display.shown(value)}"
        )
    if len(value) > MAX_NAME:
        raise ConfigError(
            f"the name of a periodic entry can have up to {MAX_NAME} characters: {value[:80]!r}"
        )
    try:
        return encoding.string(value, "the name of a periodic entry")
    except InvalidJob as error:
        raise ConfigError(str(error)) from None


def check_timing(values: Mapping[str, Any]) -> dict[str, Any]:
    """Check the keys of `TIMING` that are there, and return their form in the table."""
    return {key: _CHECKS[key](value) for key, value in values.items()}


def check_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Check the changes of `update_periodic`, except `args`, which only the worker can check.

    Raises `ConfigError` or `InvalidJob`.
    """
    known = list(PeriodicChanges.__annotations__)
    for key in changes:
        if key not in known:
            raise ConfigError(f"{display.shown(key)} cannot be updated{fields.suggestion(key, known)}")
    chosen = {key: value for key, value in changes.items() if value is not None}
    if not chosen:
        raise ConfigError(f"nothing to update: pass one of {', '.join(known)}")
    timing = check_timing({key: value for key, value in chosen.items() if key in TIMING})
    job = fields.check({key: value for key, value in chosen.items() if key not in (*TIMING, "args")})
    return {**timing, **job, **({"args": chosen["args"]} if "args" in chosen else {})}


def effective(declared: Any, override: Any) -> dict[str, Any]:
    """An entry as it applies: `declared` with the keys of `override`."""
    # Another program can have stored anything.
    documents = [document for document in (declared, override) if isinstance(document, dict)]
    return {key: value for document in documents for key, value in document.items()}


def _expression(value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"a cron expression must be a string, not {type(value).__name__}")
    if len(value) > MAX_EXPRESSION:
        raise ConfigError(f"a cron expression can have up to {MAX_EXPRESSION} characters: {value[:80]!r}")
    stripped = " ".join(value.split())
    if stripped.startswith("@"):
        return stripped
    try:
        CronSim(stripped, datetime(2000, 1, 1))  # noqa: DTZ001 - only parses
    except CronSimError as error:
        raise ConfigError(f"{value!r} is not a cron expression: {error}") from None
    return stripped


def _timezone(value: object) -> str:
    key = value.key if isinstance(value, ZoneInfo) else value
    if not isinstance(key, str) or not key:
        raise ConfigError(
            f'timezone must be the name of a time zone, such as "Europe/Berlin", not {display.shown(value)}'
        )
    try:
        ZoneInfo(key)
    # A name can also be a path, of a directory or outside of the zone data.
    except (LookupError, ValueError, OSError):
        hint = fields.similar(key, available_timezones())
        advice = f"; did you mean {hint}?" if hint else '; a name is written as in "Europe/Berlin"'
        raise ConfigError(f"timezone {display.shown(key)} is not known{advice}") from None
    return key


def _catch_up(value: object) -> CatchUp:
    if isinstance(value, str) and value in CATCH_UP:
        return value  # type: ignore[return-value]
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_CATCH_UP:
        return int(value)
    raise ConfigError(
        f"catch_up must be {', '.join(CATCH_UP)} or a number from 1 to {MAX_CATCH_UP},"
        f" not {display.shown(value)}"
    )


def _window(value: object) -> float:
    try:
        number = fields.seconds(value, "window")
    except InvalidJob as error:
        raise ConfigError(str(error)) from None
    if not 0 < number <= MAX_WINDOW:
        raise ConfigError(
            f"window must be more than 0 seconds and at most 366 days, not {display.shown(value)}"
        )
    return number


_CHECKS = {"expression": _expression, "timezone": _timezone, "catch_up": _catch_up, "window": _window}


def _job_fields(job: Any) -> dict[str, Any]:
    """The fields that an entry takes from its job. Raises `ConfigError` for what is not a new job."""
    # This module does not import SQLAlchemy.
    if getattr(type(job), "__tablename__", None) != "oban_jobs":
        raise ConfigError(f"job must be a new job, such as MyWorker.new({{…}}), not {display.shown(job)}")
    values = job.__dict__
    if values.get("id") is not None:
        raise ConfigError(f"job {values['id']} was enqueued before; make a new one")
    if "scheduled_at" in values:
        raise ConfigError("the expression says when its jobs are due: leave out scheduled_at and schedule_in")
    if values.get("state") != "available":
        raise ConfigError(f"the state of its job must be available, not {values.get('state')}")
    kept = [key for key in JOB_FIELDS if key != "max_attempts" or values.get("_sets_max_attempts")]
    return {key: deepcopy(values[key]) for key in kept}
