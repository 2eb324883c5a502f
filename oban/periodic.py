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
from zoneinfo import ZoneInfo

from oban import display, encoding, encryption, fields, suggestions, time_zones, unique
from oban.cron import Cron
from oban.errors import ConfigError, InvalidJob, PeriodicNotFound

#: What happens with times that have passed while no node could insert their jobs.
CatchUp: TypeAlias = Literal["skip", "latest", "all"] | int
CATCH_UP: tuple[str, ...] = get_args(get_args(CatchUp)[0])
#: The most jobs that one entry can catch up on.
MAX_CATCH_UP = 10_000
MAX_NAME = 255
DEFAULT_WINDOW = 3600.0
MAX_WINDOW = 366 * 86_400.0

#: The keys of `declared` that are fields of the jobs, and those about the times. A unique job has its rule in
#: `unique` as well, and what it replaces in `replace`.
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
        catch_up: Which of the times that passed while no node could insert jobs are made up for: "latest",
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
                hint = suggestions.suggestion(key, known)
                raise ConfigError(f"periodic: unknown option {display.shown(key)}{hint}")
        for key in ("name", "expression", "job"):
            if key not in value:
                raise ConfigError(f"periodic: {key} is missing")
        return cls(**value)


@dataclass(frozen=True, slots=True)
class PeriodicInfo:
    """A periodic entry as it applies now: as it is declared, with the changes of `update_periodic`.

    Attributes:
        name: The name of the entry.
        expression: The cron expression.
        timezone: The name of the time zone that the expression is about.
        worker, queue, args, priority, max_attempts, tags, meta: The fields of its jobs. `max_attempts` is
            None if neither the worker nor the entry sets it.
        catch_up: Which times that passed while no node could insert jobs are made up for.
        window: How many seconds ago such a time can be.
        source: "code" for an entry that the code declares, "runtime" for one of `add_periodic`.
        paused: Whether `pause_periodic` has paused it.
        override: The values that `update_periodic` has set, by their names.
        gone: Whether the code of no running node declares it any more. It is deleted after a day.
        last_tick: The last time for which a job was inserted; None if there was none.
        last_job_id: The id of that job.
        next_at: The next time at which it is due; None if there is none, or if it is paused or gone.
    """

    name: str
    expression: str
    timezone: str
    worker: str
    queue: str
    args: dict[str, Any]
    priority: int
    max_attempts: int | None
    tags: list[str]
    meta: dict[str, Any]
    catch_up: CatchUp
    window: float
    source: str
    paused: bool
    override: dict[str, Any]
    gone: bool
    last_tick: datetime | None
    last_job_id: int | None
    next_at: datetime | None

    @property
    def overridden(self) -> bool:
        """Whether `update_periodic` has changed the entry."""
        return bool(self.override)


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


def find_name(value: object) -> str:
    """The name by which a caller looks for an entry. Raises `PeriodicNotFound` if no entry can have it."""
    try:
        return check_name(value)
    except ConfigError:
        raise PeriodicNotFound(value) from None


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
            raise ConfigError(f"{display.shown(key)} cannot be updated{suggestions.suggestion(key, known)}")
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
    return Cron.parse(value).expression


def _timezone(value: object) -> str:
    name = time_zones.name_of(value)
    time_zones.find(name)
    return name


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
    args = encryption.sealed_alike(values.get("worker"), values["args"])
    values = {**values, "args": args}
    kept = [key for key in JOB_FIELDS if key != "max_attempts" or values.get("_sets_max_attempts")]
    return {**{key: deepcopy(values[key]) for key in kept}, **_uniqueness(values)}


def _uniqueness(values: Mapping[str, Any]) -> dict[str, Any]:
    """The rule of a unique job. It is stored because the leader may not know the worker."""
    rule, replacement = unique.of_job(values)
    if rule is None:
        # The job can turn off what its worker says.
        return {"unique": None} if "_unique" in values else {}
    replaced = {state: [*names] for state, names in replacement.items()}
    return {"unique": rule.rule(), **({"replace": replaced} if replaced else {})}
