"""The only module that reads the wall clock and the monotonic clock, so that tests can replace them."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from weakref import WeakMethod

#: A clock that, unlike `time.monotonic()`, goes on while the machine is suspended. On macOS, that is the one
#: that the system calls monotonic.
_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


class Clock:
    """The machine's clocks. Pass an instance of a subclass to `use` to replace them."""

    #: Whether the database's time follows this clock. If not, this is the clock of one machine, which can be
    #: wrong, and the database has its own.
    moves_database = False

    # In a class, where freezegun does not replace it: a wait in a test has to end while the time is frozen.
    _monotonic = staticmethod(time.monotonic)

    def now(self) -> datetime:
        """The current time as an aware UTC datetime."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some point in the past; they never go back."""
        return self._monotonic()

    def boottime(self) -> float:
        """Like `monotonic`, but where the system has such a clock, it goes on during a suspend."""
        return self.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


class MovableClock(Clock):
    """A clock that a test moves, and the time of jobs in the database with it.

    While it is in `use`, everything that this process does with jobs happens at its time: schedules, backoff,
    snooze, unique periods, periodic jobs and retention. Other processes keep the machine's clock. So do
    heartbeats, leases, timeouts and all other durations: a node does not look dead because a test has moved
    the clock by a day.

    Args:
        start: The first time, with a time zone. The default is the machine's time.
        ticking: Whether time passes between two moves as well. The default is a clock that stands still.

    Raises:
        ValueError: `start` has no time zone.
    """

    moves_database = True

    def __init__(self, start: datetime | None = None, *, ticking: bool = False) -> None:
        self._ticking = ticking
        # Held while the clock is moved, so that two threads that advance it move it by the sum.
        self._lock = threading.RLock()
        self._set(super().now() if start is None else _utc(start))

    def now(self) -> datetime:
        """The current time as an aware UTC datetime, rounded up to milliseconds, which SQLite counts in."""
        if not self._ticking:
            return self._at
        with self._lock:
            return _whole(self._at + timedelta(seconds=self._monotonic() - self._since))

    def advance(self, by: float | timedelta = 0.0, /, **units: float) -> datetime:
        """Move the clock forward, or back by a negative amount, and wake the nodes of this process.

        Args:
            by: Seconds, or a timedelta.
            units: More of the same, as a timedelta takes it: `days=1`, `hours=2`, `minutes=30`.

        Returns:
            The new time.
        """
        step = (by if isinstance(by, timedelta) else timedelta(seconds=by)) + timedelta(**units)
        return self._move(lambda: self.now() + step)

    def move_to(self, time: datetime) -> datetime:
        """Set the clock to a time, which can be in its past, and wake the nodes of this process.

        Args:
            time: The new time, with a time zone.

        Returns:
            The new time.

        Raises:
            ValueError: `time` has no time zone.
        """
        at = _utc(time)
        return self._move(lambda: at)

    def _move(self, target: Callable[[], datetime]) -> datetime:
        with self._lock:
            self._set(target())
            moved_to = self._at
        if _current is self:
            _tell()
        return moved_to

    def _set(self, at: datetime) -> None:
        self._at, self._since = _whole(at), self._monotonic()


C = TypeVar("C", bound=Clock)

_current = Clock()
_listeners: list[WeakMethod[Callable[[], None]]] = []


def now() -> datetime:
    """The current time as an aware UTC datetime."""
    return _current.now()


def monotonic() -> float:
    """Seconds since some point in the past, for durations and deadlines."""
    return _current.monotonic()


def boottime() -> float:
    """Seconds since some point in the past, for times that can include a suspend of the machine."""
    return _current.boottime()


def moved() -> bool:
    """Whether the database's time follows the clock in use, so that each statement brings its own time."""
    return _current.moves_database


@contextmanager
def use(clock: C) -> Iterator[C]:
    """Replace the machine's clocks by `clock`, in the whole process, while the block runs.

    With a `MovableClock`, the time of jobs in the database follows it, too.

    Args:
        clock: A `MovableClock`.

    Returns:
        The clock.

    Example:
        `with use(MovableClock(datetime(2030, 1, 1, tzinfo=UTC))) as clock: clock.advance(days=1)`
    """
    global _current
    before, _current = _current, clock
    jumps = before.moves_database or clock.moves_database
    if jumps:
        _tell()
    try:
        yield clock
    finally:
        _current = before
        if jumps:
            _tell()


def subscribe(listener: Callable[[], None]) -> None:
    """Call a bound method when the time of jobs jumps, in any thread, for as long as its object exists."""
    _listeners.append(WeakMethod(listener, _listeners.remove))


def _tell() -> None:
    for reference in tuple(_listeners):
        if (listener := reference()) is not None:
            listener()


def _utc(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError(
            f"the time must carry a time zone; {at.isoformat()} does not (datetime.now(UTC) does)"
        )
    return at.astimezone(UTC)


def _whole(at: datetime) -> datetime:
    # Rounded up, so that a job is due when the clock is moved to its `scheduled_at`.
    return at + timedelta(microseconds=-at.microsecond % 1000)


if hasattr(os, "register_at_fork"):
    # The listeners belong to the event loops of the parent.
    os.register_at_fork(after_in_child=_listeners.clear)
