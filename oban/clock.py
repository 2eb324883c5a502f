"""The only place that reads a wall or a monotonic clock, so that both can be replaced."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime


class Clock:
    """The machine's clocks. A subclass passed to `use` stands in for them."""

    def now(self) -> datetime:
        """The wall clock, as an aware UTC datetime."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some fixed point in the past; never goes back."""
        return time.monotonic()


_current = Clock()


def now() -> datetime:
    """The current time as an aware UTC datetime."""
    return _current.now()


def monotonic() -> float:
    """Monotonic seconds, for durations and deadlines."""
    return _current.monotonic()


@contextmanager
def use(clock: Clock) -> Iterator[Clock]:
    """Let `clock` answer instead of the machine's clocks, for this process, inside the block."""
    global _current
    before, _current = _current, clock
    try:
        yield clock
    finally:
        _current = before
