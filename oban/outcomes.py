"""Results that `process` can return: `Cancel`, `Snooze` and `Record`. Any other result completes the job."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from oban import encoding, fields


@dataclass(frozen=True, slots=True)
class Cancel:
    """Make the job `cancelled`, with the reason in its `errors`. It does not run again unless it is retried.

    Args:
        reason: Why, for whoever reads the job (default "cancelled by its worker").
    """

    reason: str = "cancelled by its worker"


@dataclass(frozen=True, slots=True)
class Snooze:
    """Make the job `scheduled`, to run again later.

    This attempt does not count, and `meta["snoozed"]` goes up by one.

    Args:
        seconds: The delay, in seconds or as a timedelta.

    Raises:
        InvalidJob: The delay is negative, not finite, or not a number.
    """

    seconds: float | timedelta

    @property
    def delay(self) -> float:
        """The delay in seconds."""
        return fields.delay(self.seconds, "Snooze")

    def __post_init__(self) -> None:
        fields.delay(self.seconds, "Snooze")


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
