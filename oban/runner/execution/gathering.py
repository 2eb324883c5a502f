"""Lets free slots of a queue wait for more of them, so that one fetch fills several."""

import asyncio
from collections.abc import Callable

#: The longest time that a free slot waits, in seconds.
MAX_PAUSE = 0.005


class Gathering:
    """The pause of a producer before it fetches jobs into slots that have become free one at a time.

    Args:
        wake: wakes the producer.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None
        #: Seconds that the last turn of the producer took. A slot is free for so long anyway, until a fetch
        #: has filled it, so a pause of that length at most doubles the time.
        self.turn_duration = 0.0

    @property
    def under_way(self) -> bool:
        """Whether a slot waits for more."""
        return self._timer is not None

    @property
    def pause(self) -> float:
        """How long a slot waits, in seconds."""
        return min(self.turn_duration, MAX_PAUSE)

    def begin(self) -> None:
        """Wake the producer at the end of the pause, which begins now unless it has begun already."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.pause, self._elapsed)

    def _elapsed(self) -> None:
        self._timer = None
        self._wake()

    def end(self) -> None:
        """End the pause, because the producer takes a turn."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
