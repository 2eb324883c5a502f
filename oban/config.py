"""Options of an instance, checked in one place."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, TypedDict

from oban import fields as job_fields
from oban.errors import ConfigError, InvalidJob

#: Schema names: what needs no quoting anywhere, short enough for a notification channel (63 bytes).
PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,39}", re.ASCII)
MAX_LIMIT = 10_000
#: Longest name of an instance or a node, in characters.
MAX_NAME = 255
NOTIFIERS = ("listen", "poll")
_DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """One queue on one node. `limit` jobs run at once (1 to 10,000, default 10)."""

    limit: int = 10

    def __post_init__(self) -> None:
        _integer("limit", self.limit, 1, MAX_LIMIT)

    @classmethod
    def parse(cls, name: str, value: Any) -> "QueueOptions":
        """Options from an instance, a limit, or a mapping of options; raises `ConfigError`."""
        try:
            if isinstance(value, cls):
                return value
            if isinstance(value, Mapping):
                _check_known(cls, value)
                return cls(**value)
            return cls(limit=value)
        except ConfigError as error:
            raise ConfigError(f"queue {name!r}: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long jobs are kept after they have finished: seconds or timedeltas, then seconds; None keeps them.

    `queues` and `workers` (a worker's name, or its class) map to retentions that stand for
    those jobs instead; where both speak, that of the worker counts. At most `limit` jobs are deleted by one
    statement.
    """

    completed: float | timedelta | None = _DAY
    cancelled: float | timedelta | None = _DAY
    discarded: float | timedelta | None = 7 * _DAY
    queues: Mapping[str, "Retention"] = field(default_factory=dict)
    workers: Mapping[str, "Retention"] = field(default_factory=dict)
    limit: int = 10_000

    def __post_init__(self) -> None:
        for state in ("completed", "cancelled", "discarded"):
            value = getattr(self, state)
            if isinstance(value, timedelta):
                value = value.total_seconds()
                object.__setattr__(self, state, value)
            if value is not None:
                _seconds(f"retention: {state}", value, least=0)
        _integer("retention: limit", self.limit, 1, 1_000_000)
        for option in ("queues", "workers"):
            nested = getattr(self, option)
            if not isinstance(nested, Mapping):
                raise ConfigError(f"retention: {option} must be a dict, not {type(nested).__name__}")
            parsed = {}
            for key, value in nested.items():
                name = getattr(key, "worker_name", key)
                if not isinstance(name, str):
                    raise ConfigError(f"retention: {option} must be named, not {key!r}")
                parsed[name] = Retention.parse(value)
                if parsed[name].queues or parsed[name].workers:
                    raise ConfigError(f"retention: {option}: {name!r} cannot hold others")
            object.__setattr__(self, option, parsed)

    @classmethod
    def parse(cls, value: Any) -> "Retention":
        """A retention from an instance or a mapping of its options; raises `ConfigError`."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"retention must be a dict, such as {{'completed': 3600}}, not {value!r}")
        _check_known(cls, value)
        return cls(**value)


class OptionArguments(TypedDict, total=False):
    """The keyword arguments of `Oban`; what each means is said at `Options`. None is the default."""

    name: str | None
    node: str | None
    prefix: str | None
    queues: Mapping[str, int | QueueOptions | Mapping[str, Any]] | None
    lease: float | None
    shutdown_grace_period: float | None
    notifier: str | None
    listen_url: str | None
    retention: Retention | Mapping[str, Any] | None
    rescue_after: float | None
    statement_timeout: float | None
    poll_interval: float | None
    stage_interval: float | None
    watch_interval: float | None
    control_interval: float | None
    rescue_interval: float | None
    prune_interval: float | None
    heartbeat_interval: float | None
    election_interval: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Everything that an `Oban` can be told; all but the queues have defaults that serve production.

    Intervals and periods are seconds. `node` is the host name unless given.
    """

    name: str = "Oban"
    node: str = field(default_factory=socket.gethostname)
    prefix: str | None = None
    queues: Mapping[str, QueueOptions] = field(default_factory=dict)
    #: How long a node, and the leader, count as alive after they were last heard of. A job whose node
    #: is not heard of for so long is rescued.
    lease: float = 60.0
    #: How long running jobs may go on once the node is told to stop.
    shutdown_grace_period: float = 15.0
    #: How to hear of changes: "listen" (LISTEN on PostgreSQL, data_version on SQLite), or "poll", which
    #: needs nothing of a connection that a pooler in transaction mode cannot give.
    notifier: str = "listen"
    #: A URL for LISTEN alone, that goes to the database directly, where `engine` goes through a pooler.
    listen_url: str | None = None
    #: How long jobs are kept after they have finished.
    retention: Retention = field(default_factory=Retention)
    #: Age at which an executing job is rescued whose node keeps no row in `oban_producers`, as those of
    #: some other implementations.
    rescue_after: float = 3600.0
    #: Longest time that one of the runner's own statements may take, waiting for a connection included.
    statement_timeout: float = 30.0
    #: How often a queue looks for jobs that nobody announced.
    poll_interval: float = 1.0
    #: Longest time between two looks for scheduled and retryable jobs that have become due.
    stage_interval: float = 1.0
    #: How often a running job asks the database whether it was cancelled, beside notifications.
    watch_interval: float = 1.0
    #: How often a node looks what was said about its queues, beside notifications.
    control_interval: float = 1.0
    #: How often the leader looks for jobs whose node is gone; a quarter of the lease unless given.
    rescue_interval: float = 0.0
    #: How often the leader deletes jobs that have been kept long enough.
    prune_interval: float = 30.0
    #: How often a node says that it is alive; a quarter of the lease unless given.
    heartbeat_interval: float = 0.0
    #: How often a node tries to lead, or renews that it does; a quarter of the lease unless given.
    election_interval: float = 0.0

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check_name("node", self.node)
        check_prefix(self.prefix)
        if self.notifier not in NOTIFIERS:
            raise ConfigError(f"notifier must be {' or '.join(NOTIFIERS)}, not {self.notifier!r}")
        if self.listen_url is not None and self.notifier == "poll":
            raise ConfigError("listen_url and notifier='poll' contradict each other: give one of them")
        _seconds("lease", self.lease, least=0.1)
        for option in ("rescue_interval", "heartbeat_interval", "election_interval"):
            if getattr(self, option) == 0:
                object.__setattr__(self, option, self.lease / 4)
        for item in fields(self):
            if item.name.endswith("_interval"):
                _seconds(item.name, getattr(self, item.name), least=0.001)
        for option in ("heartbeat_interval", "election_interval"):
            if getattr(self, option) > self.lease / 2:
                raise ConfigError(f"{option} must be at most half of the lease of {self.lease:g} s")
        for option in ("rescue_after", "statement_timeout"):
            _seconds(option, getattr(self, option), least=0.1)
        _seconds("shutdown_grace_period", self.shutdown_grace_period, least=0)
        object.__setattr__(self, "queues", parse_queues(self.queues))
        object.__setattr__(self, "retention", Retention.parse(self.retention))

    @classmethod
    def make(cls, **values: Any) -> "Options":
        """Options from keyword arguments, where None means the default; raises `ConfigError`."""
        _check_known(cls, values)
        return cls(**{key: value for key, value in values.items() if value is not None})


def _check_known(options: type[Any], values: Mapping[str, Any]) -> None:
    known = [item.name for item in fields(options)]
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown option {key!r}{job_fields.suggestion(key, known)}")


def check_name(option: str, value: object) -> None:
    """Raises `ConfigError` unless the value can be the name of an instance or a node."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{option} must be text that is not blank, not {value!r}")
    if "\x00" in value or len(value) > MAX_NAME:
        raise ConfigError(f"{option} must be {MAX_NAME} characters at most, without NUL: {value[:80]!r}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ConfigError(f"{option} must not have lone surrogates: {value[:80]!r}")


def check_prefix(prefix: str | None) -> None:
    """Raises `ConfigError` unless the prefix is None or a plain lower case schema name."""
    if prefix is not None and not (isinstance(prefix, str) and PREFIX.fullmatch(prefix)):
        raise ConfigError(
            f"prefix {prefix!r} is not a schema name: lower case letters, digits and _ (40 at most)"
        )


def parse_queues(queues: Any) -> dict[str, QueueOptions]:
    """A mapping of queue names to limits or options, checked; raises `ConfigError`."""
    if not isinstance(queues, Mapping):
        raise ConfigError(f"queues must be a dict of names and limits, not {type(queues).__name__}")
    parsed = {}
    for name, value in queues.items():
        try:
            parsed[job_fields.queue(name)] = QueueOptions.parse(name, value)
        except InvalidJob as error:
            raise ConfigError(str(error)) from None
    return parsed


def _integer(option: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(f"{option} must be an integer, {least} to {most}, not {value!r}")


def _seconds(option: str, value: object, least: float) -> None:
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else -1
    if not least <= number < 1e9:
        raise ConfigError(f"{option} must be seconds, at least {least}, not {value!r}")
