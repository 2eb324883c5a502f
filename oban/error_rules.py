"""Rules of workers: the options `retry_on`, `discard_on`, `cancel_on` and `snooze_on`.

Each names classes of exceptions. The most specific class of an exception decides how its attempt ends.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from oban import display, fields
from oban.errors import ConfigError, InvalidJob
from oban.fields import WorkerOptions
from oban.outcomes import RaisableOutcome

_OUTCOMES = {
    "retry_on": "failed",
    "discard_on": "discarded",
    "cancel_on": "cancelled",
    "snooze_on": "snoozed",
}
_WITH_DELAY = ("retry_on", "snooze_on")
#: Read like this because a metaclass can replace the attribute, and this must not raise.
_mro = type.__dict__["__mro__"].__get__


class Rule(NamedTuple):
    """How an attempt ends."""

    #: "failed", "discarded", "cancelled" or "snoozed".
    outcome: str
    #: Seconds until the job runs again; None for the worker's backoff, or if it does not run again.
    delay: float | None = None


Rules: TypeAlias = Mapping[type[BaseException], Rule]


def pop_rules(options: WorkerOptions) -> Rules:
    """Remove these four options from those of a worker, and return the rules in them.

    Raises `ConfigError` for what is not a class of exceptions, for a class in two options, and for a class in
    `snooze_on` without a delay.
    """
    rules: dict[type[BaseException], Rule] = {}
    named: dict[type[BaseException], str] = {}
    for option, outcome in _OUTCOMES.items():
        # The type of the options only knows literal names.
        value = options.pop(option, None)  # type: ignore[misc]
        for cls, delay in [] if value is None else _classes(option, value):
            _check_class(option, cls)
            if cls in named:
                where = f"twice in {option}" if named[cls] == option else f"in both {named[cls]} and {option}"
                raise ConfigError(f"{cls.__qualname__} is {where}: an exception can have only one outcome")
            named[cls] = option
            rules[cls] = Rule(outcome, delay)
    return rules


def rule_for(rules: Rules, error: BaseException) -> Rule | None:
    """The rule of the most specific class of an exception; None if no rule is about it. Never raises."""
    if rules:
        for cls in _mro(type(error)):
            if (rule := rules.get(cls)) is not None:
                return rule
    return None


def checked_rule(outcome: object, delay: object) -> Rule:
    """The rule that a child process has applied. Raises `ValueError` if it does not exist."""
    if not isinstance(outcome, str) or outcome not in _OUTCOMES.values():
        raise ValueError(f"no rule has the outcome {outcome!r}")
    return Rule(outcome, None if delay is None else fields.delay(delay, outcome))


def _classes(option: str, value: Any) -> list[tuple[Any, float | None]]:
    """The classes of an option, each with its delay."""
    if isinstance(value, Mapping):
        if option not in _WITH_DELAY:
            raise ConfigError(f"{option} takes a class of exceptions or a tuple of them, without delays")
        return [(cls, _delay(option, cls, delay)) for cls, delay in value.items()]
    classes = value if isinstance(value, tuple) else (value,)
    if option == "snooze_on" and classes:
        names = ", ".join(f"{_name(cls)}: 60" for cls in classes)
        raise ConfigError(f"snooze_on needs the seconds to wait for each class: snooze_on={{{names}}}")
    return [(cls, None) for cls in classes]


def _delay(option: str, cls: Any, delay: Any) -> float:
    try:
        return fields.delay(delay, option)
    except InvalidJob as error:
        raise ConfigError(f"{error}, for {_name(cls)}") from None


def _check_class(option: str, cls: Any) -> None:
    if not isinstance(cls, type) or not issubclass(cls, BaseException):
        hint = "; use a tuple of classes" if isinstance(cls, (list, set, frozenset)) else ""
        raise ConfigError(f"{option} takes classes of exceptions; {display.shown(cls)} is not one{hint}")
    if issubclass(cls, RaisableOutcome):
        raise ConfigError(f"{option} cannot have {cls.__qualname__}, which is an outcome itself")


def _name(cls: Any) -> str:
    return cls.__qualname__ if isinstance(cls, type) else display.shown(cls)
