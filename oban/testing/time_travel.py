"""Moves the time of jobs in a test."""

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date, datetime, timedelta
from types import TracebackType
from typing import Any, TypeVar

from oban import clock, display, suggestions
from oban.clock import MovableClock
from oban.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = ["weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds"]


def travel(to: datetime | timedelta | None = None, *, ticking: bool = False, **units: float) -> "Travel":
    """Move the clock by which jobs are due, for a `with` block or, as a decorator, for a test.

    Schedules, backoff, snooze, unique periods, periodic jobs and retention go by that time, on every database
    and in all threads of this process. The clock stands still until it is moved, unless it is `ticking`. At
    the end, the clock that was in use before is in use again, so that blocks can be nested.

    `datetime.now()` is not moved. In code whose time a test has to move, call `oban.clock.now()`.

    Args:
        to: The time, with a time zone, or a timedelta from now. Without it and `units`, the time is now.
        ticking: Whether time passes (default False).
        units: The time from now, as a timedelta takes it: `days=1`, `hours=-2`. Now is the time of the clock
            in use when the block or the test begins.

    Returns:
        A context manager, which yields a `MovableClock` with `advance(…)` and `move_to(…)`. It can be used
        more than once. As a decorator, it takes a function, with or without `async`.

    Raises:
        ConfigError: `to` is no datetime with a time zone and no timedelta, a unit is unknown or not a number,
            there are both, or the time is one that a datetime cannot have.
    """
    return Travel(_target(to, units), ticking)


class Travel(AbstractContextManager[MovableClock]):
    """What `travel` returns."""

    def __init__(self, target: datetime | timedelta, ticking: bool) -> None:
        self._target = target
        self._ticking = ticking
        self._entered: list[AbstractContextManager[MovableClock]] = []

    def __enter__(self) -> MovableClock:
        target = self._target
        try:
            start = clock.now() + target if isinstance(target, timedelta) else target
            used = clock.use(MovableClock(start, ticking=self._ticking))
        except OverflowError:
            raise ConfigError(
                f"a datetime cannot tell the time {display.shown(target)} from now"
                if isinstance(target, timedelta)
                else f"a datetime in UTC cannot tell the time {target.isoformat()}"
            ) from None
        moving = used.__enter__()
        self._entered.append(used)
        return moving

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.pop().__exit__(kind, error, trace)

    def __call__(self, test: F) -> F:
        """Decorate a function, so that each of its calls happens at that time."""
        if (
            not inspect.isroutine(test)
            or inspect.isgeneratorfunction(test)
            or inspect.isasyncgenfunction(test)
        ):
            raise ConfigError(
                f"travel() can decorate a function or a coroutine function, not {display.shown(test)}: use"
                " `with travel(…)` in it"
            )
        # Each call has an object of its own, as it may run while another one does.
        target, ticking = self._target, self._ticking

        @functools.wraps(test)
        def call(*args: Any, **kwargs: Any) -> Any:
            with Travel(target, ticking):
                return test(*args, **kwargs)

        @functools.wraps(test)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with Travel(target, ticking):
                return await test(*args, **kwargs)

        decorated: Any = call_async if inspect.iscoroutinefunction(test) else call
        return decorated  # type: ignore[no-any-return]


def _target(to: Any, units: dict[str, float]) -> datetime | timedelta:
    if to is not None and units:
        raise ConfigError(f"travel() takes a time or units such as {next(iter(units))}=…, not both")
    if to is None:
        return _from_units(units)
    if isinstance(to, timedelta):
        return to
    if isinstance(to, datetime):
        if to.utcoffset() is None:
            raise ConfigError(
                f"to must have a time zone, and {to.isoformat()} has none: write"
                f" {_written(to)}, or the time zone that it is meant in"
            )
        return to
    if isinstance(to, date):
        midnight = datetime(to.year, to.month, to.day)  # noqa: DTZ001 - it is shown with UTC
        raise ConfigError(
            f"to must be a time, and {to.isoformat()} is a whole day: write {_written(midnight)}"
        )
    raise ConfigError(
        f"to must be a datetime with a time zone or a timedelta, not {display.shown(to)}; units such as"
        " days=1 are also possible"
    )


def _from_units(units: dict[str, float]) -> timedelta:
    for name, count in units.items():
        if name not in _UNITS:
            raise ConfigError(f"travel() has no unit {name}{suggestions.suggestion(name, _UNITS)}")
        if isinstance(count, bool) or not isinstance(count, (int, float)):
            raise ConfigError(f"{name} must be a number, not {display.shown(count)}")
    try:
        return timedelta(**units)
    except (OverflowError, ValueError) as error:
        raise ConfigError(f"a timedelta cannot tell that many {' and '.join(units)}: {error}") from None


def _written(at: datetime) -> str:
    parts = [at.year, at.month, at.day, at.hour, at.minute, at.second]
    while len(parts) > 3 and not parts[-1]:
        parts.pop()
    return f"datetime({', '.join(map(str, parts))}, tzinfo=UTC)"
