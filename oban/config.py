"""Options of an instance, checked in one place."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from oban import fields as job_fields
from oban.errors import ConfigError, InvalidJob

#: Schema names: what needs no quoting anywhere, short enough for a notification channel (63 bytes).
PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,39}", re.ASCII)
MAX_LIMIT = 10_000


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
                known = [item.name for item in fields(cls)]
                for key in value:
                    if key not in known:
                        hint = job_fields.suggestion(key, known)
                        raise ConfigError(f"unknown option {key!r}{hint}")
                return cls(**value)
            return cls(limit=value)
        except ConfigError as error:
            raise ConfigError(f"queue {name!r}: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Everything that an `Oban` can be told; all but the queues have defaults that serve production.

    Intervals and periods are seconds. `node` is the host name unless given.
    """

    name: str = "Oban"
    node: str = field(default_factory=socket.gethostname)
    prefix: str | None = None
    queues: Mapping[str, QueueOptions] = field(default_factory=dict)
    #: How long running jobs may go on once the node is told to stop.
    shutdown_grace_period: float = 15.0
    #: How often a queue looks for jobs that nobody announced.
    poll_interval: float = 1.0
    #: Longest time between two looks for scheduled and retryable jobs that have become due.
    stage_interval: float = 1.0
    #: How often a running job asks the database whether it was cancelled, beside notifications.
    watch_interval: float = 1.0

    def __post_init__(self) -> None:
        for option in ("name", "node"):
            value = getattr(self, option)
            if not isinstance(value, str) or not value.strip():
                raise ConfigError(f"{option} must be text that is not blank, not {value!r}")
        check_prefix(self.prefix)
        for option in ("poll_interval", "stage_interval", "watch_interval"):
            _seconds(option, getattr(self, option), least=0.001)
        _seconds("shutdown_grace_period", self.shutdown_grace_period, least=0)
        object.__setattr__(self, "queues", parse_queues(self.queues))

    @classmethod
    def make(cls, **values: Any) -> "Options":
        """Options from keyword arguments, where None means the default; raises `ConfigError`."""
        known = [item.name for item in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown option {key!r}{job_fields.suggestion(key, known)}")
        return cls(**{key: value for key, value in values.items() if value is not None})


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
