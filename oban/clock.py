"""The only module that reads the wall clock and the monotonic clock, so that tests can replace them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime


class Clock:
    """The machine's clocks. Pass an instance of a subclass to `use` to replace them."""

    def now(self) -> datetime:
        """The current time as an aware UTC datetime."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some point in the past; they never go back."""
        return time.monotonic()


_current = Clock()


def now() -> datetime:
    """The current time as an aware UTC datetime."""
    return _current.now()


def monotonic() -> float:
    """Seconds since some point in the past, for durations and deadlines."""
    return _current.monotonic()


@contextmanager
def use(clock: Clock) -> Iterator[Clock]:
    """Replace the machine's clocks by `clock`, in the whole process, while the block runs."""
    global _current
    before, _current = _current, clock
    try:
        yield clock
    finally:
        _current = before
