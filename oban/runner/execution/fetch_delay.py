"""Delays a fetch for a moment, so that it fills several free slots."""

import asyncio
from collections.abc import Callable

#: The longest delay, in seconds.
MAX_DELAY = 0.005


class FetchDelay:
    """The delay before a producer fetches jobs into slots that become free one at a time.

    Args:
        wake: wakes the producer.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        #: Seconds that the last turn of the producer took. A slot is free for so long anyway, until a fetch
        #: has filled it, so a delay of that length at most doubles the time.
        self.turn_duration = 0.0

    @property
    def is_running(self) -> bool:
        """Whether the delay has begun and not ended."""
        return self._timer is not None

    @property
    def seconds(self) -> float:
        """The length of the delay."""
        return min(self.turn_duration, MAX_DELAY)

    def start(self) -> None:
        """Begin the delay, unless it is running, and wake the producer at its end."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.seconds, self._elapsed)

    def _elapsed(self) -> None:
        self._timer = None
        self._wake()

    def cancel(self) -> None:
        """End the delay without waking the producer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
