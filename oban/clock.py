"""The only module that reads the wall clock and the monotonic clock, so that tests can replace them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

#: A clock that, unlike `time.monotonic()`, goes on while the machine is suspended. On macOS, that is the one
#: that the system calls monotonic.
_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


class Clock:
    """The machine's clocks. Pass an instance of a subclass to `use` to replace them."""

    def now(self) -> datetime:
        """The current time as an aware UTC datetime."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some point in the past; they never go back."""
        return time.monotonic()

    def boottime(self) -> float:
        """Like `monotonic`, but where the system has such a clock, it goes on during a suspend."""
        return self.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


_current = Clock()


def now() -> datetime:
    """The current time as an aware UTC datetime."""
    return _current.now()


def monotonic() -> float:
    """Seconds since some point in the past, for durations and deadlines."""
    return _current.monotonic()


def boottime() -> float:
    """Seconds since some point in the past, for times that can include a suspend of the machine."""
    return _current.boottime()


@contextmanager
def use(clock: Clock) -> Iterator[Clock]:
    """Replace the machine's clocks by `clock`, in the whole process, while the block runs."""
    global _current
    before, _current = _current, clock
    try:
        yield clock
    finally:
        _current = before
