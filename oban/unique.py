"""Unique jobs: which fields of two jobs are compared, and which existing jobs are in the way of a new one.

Nothing here asks the database. A job's key is the same text for all jobs that are duplicates of each other,
and its rule says which of the jobs with that key count.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from oban import display, encryption, suggestions
from oban import unique_options as options
from oban.errors import ConfigError, EncodingError, InvalidJob, ObanError
from oban.registry import registry
from oban.unique_options import (
    DEFAULT_FIELDS,
    DEFAULT_STATES,
    DOCUMENTS,
    FIELDS,
    OPTIONS,
    OWN_KEYS,
    REPLACEABLE,
    STATES,
    FieldName,
    GroupName,
    StateName,
    TimestampName,
)
from oban.unique_options import (
    UniqueOptions as UniqueOptions,
)

#: The fields to replace, by the state of the existing job.
Replacement: TypeAlias = dict[str, tuple[str, ...]]
#: The option `unique`.
UniqueOption: TypeAlias = "bool | UniqueOptions | Unique | None"


@dataclass(frozen=True, slots=True, init=False)
class Unique:
    """Which jobs are duplicates of each other, for the option `unique`.

    A new job is not inserted if there is one with the same values in `fields`, in one of `states` and within
    `period`.

    Args:
        period: For how long, in seconds or as a timedelta, a job keeps duplicates out, up to 100 years
            (default None: as long as it exists).
        fields: The fields that are compared: "worker", "queue", "args" and "meta" (default: the first three).
            The context of a trace in meta is not compared.
        keys: The keys of args, and of meta if it is one of `fields`, that are compared (default: all).
        states: The states in which a job keeps duplicates out: a list of states, or the group "all",
            "incomplete", "scheduled", "successful" or "executing" (default "successful": all states but
            cancelled and discarded).
        timestamp: From when `period` counts: "inserted_at" or "scheduled_at" (default "inserted_at").
        group: Another word for `states`.

    Raises:
        ConfigError: A value cannot be used.

    Example:
        `Unique(period=60, fields=["worker", "args"], keys=["account_id"], states="incomplete")`
    """

    period: float | None
    fields: tuple[str, ...]
    keys: tuple[str, ...]
    states: tuple[str, ...]
    timestamp: str

    def __init__(
        self,
        period: float | timedelta | None = None,
        fields: Sequence[FieldName] = DEFAULT_FIELDS,
        keys: Sequence[str] = (),
        states: GroupName | Sequence[StateName] = DEFAULT_STATES,
        timestamp: TimestampName = "inserted_at",
        group: GroupName | Sequence[StateName] | None = None,
    ) -> None:
        if group is not None:
            # The default is an object of its own, so this finds states that are equal to it as well.
            if states is not DEFAULT_STATES:
                raise ConfigError("unique: states and group mean the same: pass one of them")
            states = group
        checked = {
            "period": options.check_period(period),
            "fields": options.check_names(fields, FIELDS, "fields"),
            "keys": options.check_keys(keys),
            "states": options.check_states(states),
            "timestamp": options.check_timestamp(timestamp),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.keys and not {*self.fields} & {*DOCUMENTS}:
            raise ConfigError('unique: keys are those of args or meta: add "args" or "meta" to fields')

    @classmethod
    def parse(cls, value: object) -> "Unique | None":
        """The option `unique`: True, a dict of the arguments, or a `Unique`; False and None are None.

        Raises `ConfigError`.
        """
        if value is None or value is False:
            return None
        if value is True:
            return _DEFAULT
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(
                'unique must be True, False, a dict such as {"period": 60}, or a Unique,'
                f" not {display.shown(value)}"
            )
        arguments = {**value}
        for name in arguments:
            if name not in (*OPTIONS, "group"):
                hint = suggestions.suggestion(name, [*OPTIONS, "group"])
                raise ConfigError(f"unique: unknown option {display.shown(name)}{hint}")
        if "group" in arguments:
            if "states" in arguments:
                raise ConfigError("unique: states and group mean the same: pass one of them")
            arguments["states"] = arguments.pop("group")
        return cls(**arguments)

    def key(self, values: Mapping[str, Any]) -> str:
        """The key of a job with these `worker`, `queue`, `args` and `meta`; only compared ones are needed.

        Of encrypted args, it has a keyed hash, for which `worker` is needed as well.

        Two jobs have the same key if the compared values are the same JSON. A number is the same with and
        without a fraction of zero, because PostgreSQL stores 1e20 as digits. A missing key is not null.
        Raises `InvalidJob` for values that are not JSON, and for encrypted args without the key.
        """
        return self._keys(values)[0]

    def older_keys(self, values: Mapping[str, Any]) -> list[str]:
        """The keys that a job with these values had before its worker got a newer key for its encrypted args.

        Raises `InvalidJob` as `key` does.
        """
        return self._keys(values)[1:]

    def _keys(self, values: Mapping[str, Any]) -> list[str]:
        is_encrypted = encryption.is_used and "args" in self.fields
        cipher = encryption.of(values.get("worker")) if is_encrypted else None
        if cipher is not None:
            values = {**values, "args": cipher.plain(values["args"])}
        try:
            compared = {field: _canonical(self._compared(field, values[field])) for field in self.fields}
            if self.keys:
                # Jobs that are compared by all of their args are no duplicates of these.
                compared["keys"] = sorted(self.keys)
            if cipher is None:
                return [_hash(compared)]
            digests = cipher.digests(_encode(compared["args"]))
            return [_hash({**compared, "args": digest}) for digest in digests]
        except (TypeError, ValueError, RecursionError) as error:
            if isinstance(error, ObanError):
                raise
            raise EncodingError(" or ".join(self.fields), f"is not JSON: {error}") from None

    def _compared(self, field: str, value: Any) -> Any:
        if field not in DOCUMENTS or not isinstance(value, dict):
            return value
        if not self.keys:
            if field == "meta" and not OWN_KEYS.isdisjoint(value):
                return {key: item for key, item in value.items() if key not in OWN_KEYS}
            return value
        return {key: value[key] for key in self.keys if key in value}

    def counts(self, state: str, age: float) -> bool:
        """Whether a job with the same key is in the way of a new one.

        `state` is its state, and `age` how many seconds ago its `timestamp` is, negative if that is later.
        """
        return state in self.states and (self.period is None or age <= self.period)

    def rule(self) -> dict[str, Any]:
        """What is stored with a job, so that programs without its worker can judge a retry or an update."""
        return {
            "period": self.period,
            "fields": [*self.fields],
            "keys": [*self.keys],
            "states": [*self.states],
            "timestamp": self.timestamp,
        }

    @classmethod
    def from_rule(cls, rule: object) -> "Unique | None":
        """The `Unique` of a stored rule, whatever another program has stored; None if it is no rule.

        A missing or wrong part counts as its default. Unknown states are left out.
        """
        if not isinstance(rule, Mapping):
            return None
        states = rule.get("states")
        if isinstance(states, list):
            known = [state for state in STATES if state in states]
            if not known:
                return None
            rule = {**rule, "states": known}
        stored = {name: rule[name] for name in OPTIONS if name in rule}
        try:
            return cls(**stored)
        except ConfigError:
            pass
        parts: dict[str, Any] = {}
        for name, value in stored.items():
            try:
                parts[name] = getattr(cls(**{name: value}), name)
            except ConfigError:
                continue
        try:
            return cls(**parts)
        except ConfigError:
            # Its keys are of fields that are not compared.
            return cls(**{**parts, "keys": ()})


_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _hash(compared: dict[str, Any]) -> str:
    return hashlib.blake2b(_encode(compared).encode(), digest_size=16).hexdigest()


def _canonical(value: Any) -> Any:
    """The value with integers for floats that are whole numbers."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        # A job cannot have an integer of more than 64 bits, but a float that equals it.
        is_float = 64 < value.bit_length() < 1024 and int(float(value)) == value
        return _whole(float(value)) if is_float else int(value)
    if isinstance(value, float):
        return _whole(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    return value


def _whole(value: float) -> int:
    """The integer that `jsonb` makes of a float: the shortest digits that stand for it, and zeros."""
    return int(value) if abs(value) < 2**53 else int(Decimal(repr(value)))


def parse_replace(value: object) -> Replacement:
    """The option `replace`: fields to replace, as a list for every state or as a dict by the state.

    The result does not name `scheduled_at` for an executing job, which has started. Raises `ConfigError`.
    """
    by_state = value if isinstance(value, Mapping) else dict.fromkeys(STATES, value)
    replacement: Replacement = {}
    for state, listed in by_state.items():
        if state not in STATES:
            hint = suggestions.suggestion(state, [*STATES])
            raise ConfigError(f"replace: {display.shown(state)} is not a state{hint}")
        names = options.check_strings(listed, "replace: fields", '["scheduled_at"]')
        for name in names:
            if name not in REPLACEABLE:
                hint = suggestions.suggestion(name, [*REPLACEABLE])
                raise ConfigError(f"replace: {display.shown(name)} cannot be replaced{hint}")
        if state == "executing":
            names = tuple(name for name in names if name != "scheduled_at")
        if names:
            replacement[str.__str__(state)] = names
    return replacement


def check(value: object) -> "Unique | Literal[False] | None":
    """The option `unique` of a single job; False turns that of its worker off. Raises `InvalidJob`."""
    try:
        return False if value is False else Unique.parse(value)
    except ConfigError as error:
        raise InvalidJob("unique", str(error).removeprefix("unique").lstrip(": ")) from None


def check_replace(value: object) -> Replacement | None:
    """The option `replace` of a single job. Raises `InvalidJob`."""
    try:
        return None if value is None else parse_replace(value)
    except ConfigError as error:
        raise InvalidJob("replace", str(error).removeprefix("replace").lstrip(": ")) from None


def check_known_keys(
    unique: Unique | Literal[False] | None, find_known: Callable[[], Collection[str] | None]
) -> None:
    """Raise `ConfigError` if a key is no key of the args. `find_known` returns all, if they are known."""
    # With meta, it can be a key of that.
    if not unique or not unique.keys or "args" not in unique.fields or "meta" in unique.fields:
        return
    if (known := find_known()) is None:
        return
    for name in unique.keys:
        if name not in known:
            hint = suggestions.suggestion(name, [*known])
            raise ConfigError(f"unique: keys has {display.shown(name)}, but its args have no such key{hint}")


_DEFAULT = Unique()
_NO_REPLACEMENT: Replacement = {}
_UNSET: Any = object()


def of_job(values: Mapping[str, Any]) -> tuple[Unique | None, Replacement]:
    """The rule of a new job, and what it replaces; `values` are its `__dict__`.

    The registered worker decides unless the job has options of its own.
    """
    worker = registry.get(values.get("worker", ""))
    unique = values.get("_unique", _UNSET)
    if unique is _UNSET:
        unique = None if worker is None else worker._unique
    if unique is None:
        return None, _NO_REPLACEMENT
    replacement = values.get("_replace")
    if replacement is None:
        replacement = _NO_REPLACEMENT if worker is None else worker._replace
    return unique, replacement
