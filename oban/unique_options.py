"""The values that the options of unique jobs can have, and their checks, which raise `ConfigError`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Literal, TypeAlias, TypedDict, get_args

from oban import display, encoding, suggestions
from oban.errors import ConfigError, EncodingError

FieldName: TypeAlias = Literal["worker", "queue", "args", "meta"]
#: States as strings; a `JobState` is a `StrEnum`.
StateName: TypeAlias = (
    Literal["available", "scheduled", "suspended", "executing"]
    | Literal["retryable", "completed", "discarded", "cancelled"]
    | StrEnum
)
GroupName: TypeAlias = Literal["all", "incomplete", "scheduled", "successful", "executing"]
TimestampName: TypeAlias = Literal["inserted_at", "scheduled_at"]
ReplaceableName: TypeAlias = Literal[
    "args", "max_attempts", "meta", "priority", "queue", "scheduled_at", "tags", "worker"
]

#: The groups of states. "all" has every state, in the order of `JobState`.
GROUPS: dict[str, tuple[str, ...]] = {
    "all": (
        *("available", "scheduled", "suspended", "executing", "retryable"),
        *("completed", "discarded", "cancelled"),
    ),
    "incomplete": ("available", "scheduled", "suspended", "executing", "retryable"),
    "scheduled": ("scheduled",),
    "successful": ("available", "scheduled", "suspended", "executing", "retryable", "completed"),
    "executing": ("executing",),
}
STATES = GROUPS["all"]
DEFAULT_STATES: Sequence[StateName] = GROUPS["successful"]  # type: ignore[assignment]
#: The fields that can be compared, and those that are by default.
FIELDS: tuple[FieldName, ...] = get_args(FieldName)
DEFAULT_FIELDS: tuple[FieldName, ...] = ("worker", "queue", "args")
#: The fields that hold documents, which `keys` is about.
DOCUMENTS = ("args", "meta")
#: Keys of meta that Oban sets itself, so that they distinguish no jobs: the context of a trace, and the names
#: of redacted fields.
OWN_KEYS = frozenset({"traceparent", "tracestate", "baggage", "redact"})
TIMESTAMPS: tuple[str, ...] = get_args(TimestampName)
#: The fields of an existing job that a new one can replace.
REPLACEABLE: tuple[str, ...] = get_args(ReplaceableName)
#: The arguments of `Unique`.
OPTIONS = ("period", "fields", "keys", "states", "timestamp")
#: The longest period, in seconds: 100 years.
MAX_PERIOD = 36_525 * 86_400.0
#: The option `replace`.
ReplaceOption: TypeAlias = Sequence[ReplaceableName] | Mapping[StateName, Sequence[ReplaceableName]] | None


class UniqueOptions(TypedDict, total=False):
    """The dict in the option `unique`. See `Unique`; `group` is another word for `states`."""

    period: float | timedelta | None
    fields: Sequence[FieldName]
    keys: Sequence[str]
    states: GroupName | Sequence[StateName]
    group: GroupName | Sequence[StateName]
    timestamp: TimestampName


def check_period(value: object) -> float | None:
    if value is None:
        return None
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise ConfigError(f"unique: period must be seconds or a timedelta, not {display.shown(value)}")
    # NaN is not in between.
    if not 0 < number <= MAX_PERIOD:
        advice = "leave it out for jobs that are unique as long as they exist"
        limits = f"more than 0 seconds and at most 100 years; {advice}"
        raise ConfigError(f"unique: period must be {limits}, not {display.shown(value)}")
    return float(number)


def check_strings(value: object, option: str, example: str) -> tuple[str, ...]:
    """The strings of a list, each once, and as plain strings: a state can be a `JobState`."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise ConfigError(f"{option} must be a list such as {example}, not {display.shown(value)}")
    names = [*value]
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"{option} must be strings; {display.shown(name)} is not")
    return tuple(dict.fromkeys(map(str.__str__, names)))


def check_names(value: object, known: tuple[str, ...], option: str) -> tuple[str, ...]:
    """At least one of the known names, in their order."""
    names = check_strings(value, f"unique: {option}", json.dumps(known[:2]))
    for name in names:
        if name not in known:
            hint = suggestions.suggestion(name, [*known])
            raise ConfigError(f"unique: {option} has {display.shown(name)}, which is not one of them{hint}")
    if not names:
        raise ConfigError(f"unique: {option} is empty; pass one of {', '.join(known)}")
    return tuple(name for name in known if name in names)


def check_keys(value: object) -> tuple[str, ...]:
    return tuple(_key(name) for name in check_strings(value, "unique: keys", '["account_id"]'))


def _key(name: str) -> str:
    try:
        return encoding.string(name, "unique: keys")
    except EncodingError as error:
        raise ConfigError(str(error)) from None


def check_states(value: object) -> tuple[str, ...]:
    if not isinstance(value, str):
        return check_names(value, STATES, "states")
    name = str.__str__(value)
    if name in GROUPS:
        return GROUPS[name]
    if name in STATES:
        raise ConfigError(f'unique: states "{name}" is a state and not a group; pass ["{name}"]')
    hint = suggestions.suggestion(name, [*GROUPS])
    raise ConfigError(f"unique: {display.shown(name)} is not a group of states{hint}")


def check_timestamp(value: object) -> str:
    if value in TIMESTAMPS:
        return str(value)
    raise ConfigError(f"unique: timestamp must be {' or '.join(TIMESTAMPS)}, not {display.shown(value)}")
