"""The pauses between two looks at something that is waited for, and when to give up."""

from datetime import timedelta
from typing import TypeAlias

from oban import clock, fields
from oban.errors import InvalidArgument, InvalidJob

#: Seconds, or a timedelta; None for no limit.
Timeout: TypeAlias = float | timedelta | None

#: Seconds. The first pause is short, because most jobs that somebody waits for take little time.
FIRST_PAUSE = 0.01
LONGEST_PAUSE = 0.5


class Polling:
    """Pauses that double, until a timeout has passed.

    Args:
        timeout: Seconds or a timedelta; None to go on for ever.
        failure: The message of the `TimeoutError`, without the time.
        longest: The longest pause, in seconds.

    Raises:
        InvalidArgument: The timeout is negative, not finite, or not a number.
    """

    def __init__(self, timeout: Timeout, failure: str, longest: float = LONGEST_PAUSE) -> None:
        self._timeout = None if timeout is None else _seconds(timeout)
        self._failure = failure
        self._longest = longest
        self._began = clock.monotonic()
        self._next = FIRST_PAUSE

    def pause(self) -> float:
        """Seconds until the next look; raises `TimeoutError` if the timeout has passed."""
        pause, self._next = self._next, min(2 * self._next, self._longest)
        if self._timeout is None:
            return pause
        left = self._began + self._timeout - clock.monotonic()
        if left <= 0:
            raise TimeoutError(f"{self._failure} after {self._timeout:g} seconds")
        return min(pause, left)


def _seconds(timeout: object) -> float:
    try:
        return fields.delay(timeout, "timeout")
    except InvalidJob as error:
        raise InvalidArgument(str(error)) from None
