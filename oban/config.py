"""The options of a client, its queues and its retention, and the checks of their values."""

import dataclasses
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Literal, TypeAlias, get_args

from oban import callables, display, suggestions
from oban import fields as job_fields
from oban.errors import ConfigError, InvalidJob
from oban.periodic import Periodic, parse_entries

#: Schema names that need no quoting and leave room in a notification channel's name (63 bytes).
PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,39}", re.ASCII)
MAX_LIMIT = 10_000
#: Longest name of an instance or a node, in characters.
MAX_NAME = 255
#: How nodes hear of changes.
NotifierKind: TypeAlias = Literal["listen", "poll"]
NOTIFIERS: tuple[NotifierKind, ...] = get_args(NotifierKind)
#: Intervals that are a quarter of the lease unless they are set.
_QUARTERS_OF_LEASE = ("heartbeat_interval", "election_interval", "rescue_interval")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """The options of one queue on one node.

    Args:
        limit: How many jobs of the queue run at once, 1 to 10,000 (default 10).
        paused: Whether the queue is paused each time the node starts, until `resume_queue` (default False).

    Raises:
        ConfigError: An option has a wrong value.
    """

    limit: int = 10
    paused: bool = False

    def __post_init__(self) -> None:
        _check_integer("limit", self.limit, 1, MAX_LIMIT)
        check_bool("paused", self.paused)

    @classmethod
    def parse(cls, value: Any) -> "QueueOptions":
        """Options from an instance, a limit, or a mapping of options; raises `ConfigError`."""
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping):
            check_known(value, cls.__dataclass_fields__)
            return cls(**value)
        return cls(limit=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long jobs are kept after they finished; then the leader deletes them.

    Periods are seconds or timedeltas (seconds once the retention is created); None keeps jobs forever.

    Args:
        completed: How long completed jobs are kept (default 1 day).
        cancelled: How long cancelled jobs are kept (default 1 day).
        discarded: How long discarded jobs are kept (default 7 days).
        queues: Exceptions by queue: retentions, or dicts of `completed`, `cancelled` and `discarded`, of
            which those that are left out have their default.
        workers: Exceptions by a worker's name or class; they take precedence over those by queue.
        limit: How many jobs one statement deletes, up to 1,000,000 (default 10,000).

    Raises:
        ConfigError: An option has a wrong value.

    Example:
        `Retention(completed=timedelta(hours=6), discarded=None, queues={"audit": {"completed": None}})`
    """

    completed: float | timedelta | None = 86_400.0
    cancelled: float | timedelta | None = 86_400.0
    discarded: float | timedelta | None = 604_800.0
    queues: Mapping[str, "Retention"] = field(default_factory=dict)
    workers: Mapping[str, "Retention"] = field(default_factory=dict)
    limit: int = 10_000

    def __post_init__(self) -> None:
        for state in ("completed", "cancelled", "discarded"):
            if (period := getattr(self, state)) is not None:
                object.__setattr__(self, state, _seconds(f"retention: {state}", period, least=0))
        _check_integer("retention: limit", self.limit, 1, 1_000_000)
        for option in ("queues", "workers"):
            exceptions = getattr(self, option)
            if not isinstance(exceptions, Mapping):
                raise ConfigError(f"retention: {option} must be a dict, not {type(exceptions).__name__}")
            parsed = {}
            for key, value in exceptions.items():
                name = getattr(key, "worker_name", key)
                if not isinstance(name, str):
                    raise ConfigError(
                        f"retention: the keys of {option} must be strings, not {display.shown(key)}"
                    )
                if not name.strip():
                    raise ConfigError(f"retention: the keys of {option} must not be blank")
                parsed[name] = Retention.parse(value)
                if parsed[name].queues or parsed[name].workers:
                    raise ConfigError(
                        f"retention: {option}: {display.shown(name)} cannot have exceptions of its own"
                    )
            object.__setattr__(self, option, parsed)

    @classmethod
    def parse(cls, value: Any) -> "Retention":
        """A retention from an instance or a mapping of its options; raises `ConfigError`."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(
                f"retention must be a dict, such as {{'completed': 3600}}, not {display.shown(value)}"
            )
        check_known(value, cls.__dataclass_fields__)
        return cls(**value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a client, checked. Their defaults are here; `BaseClient` documents them for users.

    Intervals and periods are seconds; a timedelta becomes a number of them. An interval that is None becomes
    a quarter of the lease.
    """

    name: str = "Oban"
    node: str = field(default_factory=socket.gethostname)
    prefix: str | None = None
    queues: Mapping[str, QueueOptions] = field(default_factory=dict)
    retention: Retention = field(default_factory=Retention)
    lease: float = 60.0
    shutdown_grace_period: float = 15.0
    notifier: NotifierKind = "listen"
    listen_url: str | None = None
    statement_timeout: float = 30.0
    rescue_after: float = 3600.0
    poll_interval: float = 1.0
    stage_interval: float = 1.0
    watch_interval: float = 1.0
    control_interval: float = 1.0
    progress_interval: float = 1.0
    prune_interval: float = 30.0
    # None until `__post_init__`.
    heartbeat_interval: float = None  # type: ignore[assignment]
    election_interval: float = None  # type: ignore[assignment]
    rescue_interval: float = None  # type: ignore[assignment]
    session: Callable[[], Any] | None = None
    session_connections: int = 50
    middleware: Sequence[Callable[..., Any]] = ()
    timeout: float | None = None
    max_attempts: int | None = None
    lifespan: Callable[[Any], Any] | None = None
    leadership: bool = True
    history: bool = True
    log_lines: int = 100
    periodic: Sequence[Periodic] = ()
    #: The intervals that were not set.
    _derived: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check_name("node", self.node)
        check_prefix(self.prefix)
        if self.notifier not in NOTIFIERS:
            raise ConfigError(
                f"notifier must be {' or '.join(NOTIFIERS)}, not {display.shown(self.notifier)}"
            )
        check_bool("leadership", self.leadership)
        check_bool("history", self.history)
        # A `URL` has a drivername, and this module does not import SQLAlchemy.
        is_url = isinstance(self.listen_url, str) or hasattr(self.listen_url, "drivername")
        if self.listen_url is not None and not (is_url and str(self.listen_url).strip()):
            # Its value can have a password in it.
            kind = "blank" if isinstance(self.listen_url, str) else type(self.listen_url).__name__
            raise ConfigError(f"listen_url must be a database URL, not {kind}")
        if self.listen_url is not None and self.notifier == "poll":
            raise ConfigError("listen_url and notifier='poll' contradict each other: use one of them")
        for option in ("lease", "rescue_after", "statement_timeout"):
            self._convert(option, least=0.1)
        self._convert("shutdown_grace_period", least=0)
        derived = tuple(option for option in _QUARTERS_OF_LEASE if getattr(self, option) is None)
        object.__setattr__(self, "_derived", derived)
        for option in derived:
            object.__setattr__(self, option, self.lease / 4)
        for item in fields(self):
            if item.name.endswith("_interval"):
                self._convert(item.name, least=0.001)
        for option in ("heartbeat_interval", "election_interval"):
            if getattr(self, option) > self.lease / 2:
                raise ConfigError(f"{option} must be at most half of the lease of {self.lease:g} s")
        object.__setattr__(self, "queues", _parse_queues(self.queues))
        object.__setattr__(self, "retention", Retention.parse(self.retention))
        object.__setattr__(self, "middleware", callables.middleware(self.middleware))
        callables.check_lifespan(self.lifespan)
        object.__setattr__(self, "periodic", parse_entries(self.periodic))
        _check_integer("session_connections", self.session_connections, 1, MAX_LIMIT)
        _check_integer("log_lines", self.log_lines, 0, MAX_LIMIT)
        if self.timeout is not None:
            self._convert("timeout", least=0.001)
        if self.max_attempts is not None:
            _check_integer("max_attempts", self.max_attempts, 1, job_fields.MAX_ATTEMPTS)

    def _convert(self, option: str, least: float) -> None:
        object.__setattr__(self, option, _seconds(option, getattr(self, option), least))

    @property
    def kept_lines(self) -> int:
        """How many lines of a job's log are kept. Without a history, there is no place for them."""
        return self.log_lines if self.history else 0

    @classmethod
    def make(cls, **values: Any) -> "Options":
        """Options from keyword arguments, where None means the default; raises `ConfigError`."""
        check_known(values, [item.name for item in fields(cls) if item.init])
        return cls(**{key: value for key, value in values.items() if value is not None})

    def replace(self, **values: Any) -> "Options":
        """These options with some other values. Intervals that are a quarter of the lease stay a quarter."""
        return dataclasses.replace(self, **{**dict.fromkeys(self._derived), **values})

    @property
    def behind_pooler(self) -> bool:
        """Whether the engine may go through a pooler in transaction mode."""
        return self.notifier == "poll" or self.listen_url is not None


def check_known(options: Iterable[str], known: Iterable[str]) -> None:
    """Raise `ConfigError` for an option that is not known."""
    for option in options:
        if option not in known:
            raise ConfigError(
                f"unknown option {display.shown(option)}{suggestions.suggestion(option, list(known))}"
            )


def check_name(option: str, value: object) -> None:
    """Raise `ConfigError` unless the value can be the name of an instance or a node."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{option} must be a string that is not blank, not {display.shown(value)}")
    if "\x00" in value or len(value) > MAX_NAME:
        raise ConfigError(f"{option} must have up to {MAX_NAME} characters and no NUL: {value[:80]!r}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ConfigError(f"{option} must not have lone surrogates: {value[:80]!r}")


def check_prefix(prefix: str | None) -> None:
    """Raise `ConfigError` unless the prefix is None or a plain lower-case schema name."""
    if prefix is not None and not (isinstance(prefix, str) and PREFIX.fullmatch(prefix)):
        raise ConfigError(
            f"prefix {display.shown(prefix)} is not a schema name: up to 40 lower-case letters, digits and _,"
            " not starting with a digit"
        )


def check_bool(option: str, value: object) -> None:
    """Raise `ConfigError` unless the value is True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{option} must be True or False, not {display.shown(value)}")


def _parse_queues(queues: Any) -> dict[str, QueueOptions]:
    if not isinstance(queues, Mapping):
        raise ConfigError(f"queues must be a dict of names and limits, not {type(queues).__name__}")
    parsed = {}
    for name, value in queues.items():
        try:
            parsed[job_fields.queue(name)] = QueueOptions.parse(value)
        except InvalidJob as error:
            raise ConfigError(str(error)) from None
        except ConfigError as error:
            raise ConfigError(f"queue {display.shown(name)}: {error}") from None
    return parsed


def _check_integer(option: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(f"{option} must be an integer from {least} to {most}, not {display.shown(value)}")


def _seconds(option: str, value: object, least: float) -> float:
    try:
        number = job_fields.seconds(value, option)
    except InvalidJob as error:
        raise ConfigError(str(error)) from None
    if not least <= number < 1e9:
        raise ConfigError(
            f"{option} must be at least {least} and less than 1e9 seconds, not {display.shown(value)}"
        )
    return number
