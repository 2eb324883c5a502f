"""How jobs in child processes end: results and exceptions as JSON, and made again in the node."""

import contextlib
import functools
import sys
from typing import Any

from oban import encoding, error_rules, error_texts
from oban.error_rules import Rules
from oban.outcomes import Cancel, Discard, RaisableOutcome, Record, Snooze
from oban.runner.execution.outcome import (
    AttemptFailed,
    RemoteError,
    RemoteTraceback,
    Result,
    from_error,
    from_result,
    hide_own_frames,
    is_outcome,
)

#: A coroutine cannot raise these, or would mean something else by them.
_UNRAISABLE = (StopIteration, StopAsyncIteration)


def encode_result(result: object) -> dict[str, Any]:
    """The message for a run whose `process` returned `result`."""
    return from_result(result)


def encode_error(error: BaseException, rules: Rules) -> dict[str, Any]:
    """The message for a run whose `process` raised `error`. Never raises.

    It has the outcome by the rules of the worker, in case that the node cannot make the exception again.
    """
    hide_own_frames(error)
    outcome = from_error(error, rules)
    if is_outcome(error):
        return {**outcome, "is_raised": True}
    if type(error) is AttemptFailed:
        return {"failed": outcome, "text": error.text, "reason": _describe(error.error)}
    return {"failed": outcome, "text": error_texts.error_text(error), "raised": _describe(error)}


def decode(message: dict[str, Any]) -> Result:
    """What `process` returned or raised in the child process.

    Raises an error for a message that a job has made up: it has access to the connection.
    """
    match message:
        case {"outcome": "completed", "value": str(value)}:
            return Result(Record(encoding.loads(value)))
        case {"outcome": "completed"}:
            return Result()
        case {"outcome": "cancelled", "error": str(reason)}:
            return _returned_or_raised(message, Cancel(reason))
        case {"outcome": "discarded", "error": str(reason)}:
            return _returned_or_raised(message, Discard(reason))
        case {"outcome": "snoozed", "delay": delay}:
            return _returned_or_raised(message, Snooze(delay, message.get("meta")))
        case {"failed": dict(outcome), "text": str(text), "raised": dict(description)}:
            error = _make(description, outcome)
            error.__cause__ = RemoteTraceback(error_texts.sanitize(text))
            return Result(error=error)
        case {"failed": dict(outcome), "text": str(text), "reason": dict(description)}:
            failed = AttemptFailed(_make(description, outcome))
            failed.text = error_texts.sanitize(text)
            return Result(error=failed)
    raise ValueError("not an outcome")


def _returned_or_raised(message: dict[str, Any], outcome: RaisableOutcome) -> Result:
    return Result(error=outcome) if message.get("is_raised") else Result(outcome)


def _describe(error: BaseException) -> dict[str, Any]:
    """An exception as JSON: its class, its message and, if it has any, JSON arguments that make it again."""
    description: dict[str, Any] = {
        "module": "builtins",
        "name": "Exception",
        "message": "",
        "arguments": None,
    }
    # The methods of an exception can do anything. What is known by then is enough.
    with contextlib.suppress(BaseException):
        cls = type(error)
        description |= {"module": str(cls.__module__), "name": str(cls.__qualname__)}
        description["message"] = error_texts.sanitize(error_texts.error_message(error))
        reduced: Any = cls.__reduce__(error)
        made, *arguments = reduced
        copy = encoding.json_value(arguments, "arguments")
        # JSON has no tuples, and the arguments are one.
        if made is cls and copy == [list(arguments[0]), *arguments[1:]]:
            description["arguments"] = copy
    return description


def _make(description: dict[str, Any], outcome: dict[str, Any]) -> Exception:
    """Make an exception again, as an instance of its own class if that gives the same exception."""
    module, name, message = (str(description[key]) for key in ("module", "name", "message"))
    found = _find_class("__main__" if module == "__mp_main__" else module, name)
    # Where only the child process has what the exception needs, another one takes its place.
    with contextlib.suppress(BaseException):
        if issubclass(found, Exception) and not issubclass(found, _UNRAISABLE):
            arguments, *state = description["arguments"]
            error: Exception = found.__new__(found, *arguments)
            if state and state[0]:
                error.__setstate__(state[0])
            if str(error) == message:
                return error
    rule = error_rules.checked_rule(outcome["outcome"], outcome.get("delay"))
    return _stand_in(module, name)(message, rule)


def _find_class(module: str, name: str) -> Any:
    """The class of this name in a module that is imported already, or None."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    return found


@functools.lru_cache(256)
def _stand_in(module: str, name: str) -> type[RemoteError]:
    """A class that tracebacks show as the one that the child process has."""
    return type(name.rpartition(".")[2], (RemoteError,), {"__module__": module, "__qualname__": name})
