"""Outcomes that `process` can return: `Cancel`, `Discard`, `Snooze` and `Record`.

All but `Record` can be raised as well. Any other result completes the job.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from oban import encoding, fields


class RaisableOutcome(Exception):
    """Base class of the outcomes that can be raised as well as returned.

    They are values: equal if their arguments are equal, hashable, and read-only. They are no frozen
    dataclasses, because Python sets attributes of an exception that is raised.
    """

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.args == other.args

    def __hash__(self) -> int:
        return hash((type(self), self.args))

    def __repr__(self) -> str:
        names: tuple[str, ...] = self.__match_args__  # type: ignore[attr-defined]
        arguments = (f"{name}={value!r}" for name, value in zip(names, self.args, strict=False))
        return f"{type(self).__qualname__}({', '.join(arguments)})"


class Cancel(RaisableOutcome):
    """Make the job `cancelled`, with the reason in its `errors`. It does not run again unless it is retried.

    Args:
        reason: Why, for whoever reads the job (default "cancelled by its worker").
    """

    __match_args__ = ("reason",)

    def __init__(self, reason: str = "cancelled by its worker") -> None:
        super().__init__(reason)

    @property
    def reason(self) -> str:
        """Why the job is cancelled."""
        reason: str = self.args[0]
        return reason


class Discard(RaisableOutcome):
    """Make the job `discarded` at once, however many attempts are left, with the reason in its `errors`.

    It is logged as an error, as a job that has failed for good. It does not run again unless it is retried.

    Args:
        reason: Why, for whoever reads the job (default "discarded by its worker").
    """

    __match_args__ = ("reason",)

    def __init__(self, reason: str = "discarded by its worker") -> None:
        super().__init__(reason)

    @property
    def reason(self) -> str:
        """Why the job is discarded."""
        reason: str = self.args[0]
        return reason


class Snooze(RaisableOutcome):
    """Make the job `scheduled`, to run again later.

    This attempt does not count, and `meta["snoozed"]` goes up by one.

    Args:
        seconds: The delay, in seconds or as a timedelta.
        meta: A dict of JSON values to put into the job's `meta`, in the same transaction as the new state.
            The other keys of `meta` stay as they are (default: none).

    Raises:
        InvalidJob: The delay is negative, not finite, or not a number, or `meta` is not a dict of JSON
            values.
    """

    __match_args__ = ("seconds", "meta")

    def __init__(self, seconds: float | timedelta, meta: dict[str, Any] | None = None) -> None:
        fields.delay(seconds, "Snooze")
        checked = {} if meta is None else encoding.json_object(meta, "meta")
        super().__init__(seconds, *([checked] if checked else []))

    def __hash__(self) -> int:
        return hash((type(self), self.seconds))

    @property
    def seconds(self) -> float | timedelta:
        """The delay as it was passed."""
        seconds: float | timedelta = self.args[0]
        return seconds

    @property
    def meta(self) -> dict[str, Any] | None:
        """What is put into the job's `meta`."""
        return self.args[1] if len(self.args) > 1 else None

    @property
    def delay(self) -> float:
        """The delay in seconds."""
        return fields.delay(self.seconds, "Snooze")


@dataclass(frozen=True, slots=True)
class Record:
    """Make the job `completed`, and store a value in `meta["return"]`, with `meta["recorded"]` true.

    Args:
        value: A JSON value.

    Raises:
        EncodingError: The value is not JSON.
    """

    value: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", encoding.json_value(self.value, "Record"))
