"""What `process` may return besides nothing: `Cancel`, `Snooze` and `Record`."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from oban import encoding, fields


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ends the job as `cancelled`; the reason goes into its `errors`."""

    reason: str = "cancelled by its worker"


@dataclass(frozen=True, slots=True)
class Snooze:
    """Runs the job again after `seconds` (a number or a timedelta, not negative).

    The attempt is given back and `meta["snoozed"]` counts how often. Raises `InvalidJob` for a
    delay that is not a finite, non-negative number.
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
    """Completes the job and keeps a JSON value in `meta["return"]`.

    Raises `EncodingError` when the value is not JSON.
    """

    value: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", encoding.json_value(self.value, "Record"))
