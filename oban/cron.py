"""Cron expressions: when they are due, in a time zone whose offset from UTC changes.

cronsim parses the expressions, and finds the times by a clock without time zones. What happens when the
clocks change is decided here, by the rule of Debian's cron:

- An expression whose minute or hour begins with `*` follows real time: it is due whenever the local clock
  shows a time that matches.
- Any other one is due once for each local time. Times that the clock skips are due together, right after the
  gap, and a time that it shows twice is due the first time.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim

from oban import cron_errors, time_zones

#: What each shortcut stands for.
SHORTCUTS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
#: Due once when the first node of an instance starts, and at no time of the clock.
REBOOT = "@reboot"

_SECOND = timedelta(seconds=1)
#: No zone changes its offset twice within this time.
_STRIDE = timedelta(hours=12)
#: How much of the past decides which local times the clock has shown: no change is greater than a day.
_LOOK_BACK = timedelta(days=2)
#: How much time is searched at once.
_WINDOW = timedelta(days=4)
#: Around the first and the last year, times cannot be converted between zones.
_FIRST, _LAST = datetime(1, 1, 10, tzinfo=UTC), datetime(9999, 12, 20, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression in a time zone. `parse` makes one."""

    #: As it was written.
    expression: str
    #: The name of the time zone.
    timezone: str
    #: The five fields; None for `@reboot`.
    fields: str | None
    zone: tzinfo

    @classmethod
    def parse(cls, expression: object, timezone: object = "UTC") -> "Cron":
        """Parse an expression of five fields or a shortcut such as `@daily`.

        Args:
            expression: Minute, hour, day of the month, month and day of the week, each with numbers, names,
                ranges, steps and lists; or one of `SHORTCUTS`, or `@reboot`.
            timezone: The zone whose clock the fields are about: its name, or a tzinfo object with one.

        Raises:
            ConfigError: The expression is invalid or never matches, or there is no such time zone.
        """
        name = time_zones.name_of(timezone)
        return _parse(cron_errors.check_text(expression), name)

    @property
    def is_reboot(self) -> bool:
        return self.fields is None

    def ticks(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """The times from `start` up to, but not including, `end` at which the expression is due, in UTC."""
        # Ticks are at whole seconds, and so are changes of offsets.
        start, end = _round_up(_utc(start)), _round_up(_utc(end))
        if self.fields is None:
            return
        while start < end:
            stop = min(start + _WINDOW, end)
            yield from _ticks(self.fields, self.zone, start, stop)
            # Expressions such as "0 0 29 2 *" leave years out. Skipped times are due at most a day later.
            upcoming = next(_naive(self.fields, _local(stop, self.zone) - _LOOK_BACK, None), None)
            if upcoming is None:
                return
            start = max(stop, upcoming.replace(tzinfo=UTC) - _LOOK_BACK)

    def next_after(self, time: datetime) -> datetime | None:
        """The first time after `time` at which the expression is due, in UTC.

        None for `@reboot`, and if there is no such time in the next decades.
        """
        after = _utc(time).replace(microsecond=0) + _SECOND
        return next(self.ticks(after, _LAST), None)

    def newest(self, start: datetime, end: datetime, count: int) -> list[datetime]:
        """Of the ticks after `start` up to and including `end`, the last `count` ones, in order."""
        first = _utc(start).replace(microsecond=0) + _SECOND
        stop = _utc(end).replace(microsecond=0) + _SECOND
        found: list[datetime] = []
        span = timedelta(hours=1)
        # From the end, as there may be many more of them.
        while first < stop and len(found) < count:
            begin = max(first, stop - span) if stop - _FIRST > span else first
            found = [*self.ticks(begin, stop), *found]
            stop, span = begin, span * 2
        return found[-count:] if count > 0 else []


@functools.lru_cache(1024)
def _parse(expression: str, timezone: str) -> Cron:
    zone = time_zones.find(timezone)
    shortcut = expression.strip().lower()
    if shortcut == REBOOT:
        return Cron(expression, timezone, None, zone)
    fields = SHORTCUTS.get(shortcut, expression)
    cron_errors.check_fields(fields, [*SHORTCUTS, REBOOT])
    return Cron(expression, timezone, " ".join(fields.split()), zone)


def _ticks(fields: str, zone: tzinfo, start: datetime, end: datetime) -> Iterator[datetime]:
    follows_real_time = any(field.startswith("*") for field in fields.split()[:2])
    #: The latest local time that the clock has shown.
    shown: datetime | None = None
    for begin, finish, offset in _segments(zone, start - _LOOK_BACK, end):
        first, last = ((time + offset).replace(tzinfo=None) for time in (begin, finish))
        earliest = max(first, (start + offset).replace(tzinfo=None))
        skipped = False
        if shown is not None and not follows_real_time:
            skipped = begin >= start and any(True for _ in _naive(fields, shown, first))
            # What the clock has shown before it was set back is not due again.
            earliest = max(earliest, shown)
        if skipped:
            yield begin
        for time in _naive(fields, earliest, last):
            tick = (time - offset).replace(tzinfo=UTC)
            if not (skipped and tick == begin):
                yield tick
        shown = last if shown is None else max(shown, last)


def _segments(zone: tzinfo, start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime, timedelta]]:
    """Cut a time into parts with one offset from UTC each: their start, end and offset."""
    at = start
    while at < end:
        offset = _offset(at, zone)
        near = far = at
        while far < end and _offset(far, zone) == offset:
            near, far = far, far + _STRIDE
        if _offset(far, zone) != offset:
            # Changes happen at whole seconds, in the days of local mean time not at whole minutes.
            while far - near > _SECOND:
                middle = near + (far - near) // _SECOND // 2 * _SECOND
                near, far = (middle, far) if _offset(middle, zone) == offset else (near, middle)
        yield at, min(far, end), offset
        at = far


def _utc(time: datetime) -> datetime:
    """A time in UTC, within the years whose times can be converted."""
    try:
        return min(max(time.astimezone(UTC), _FIRST), _LAST)
    except OverflowError:
        return _FIRST if time.year == 1 else _LAST


def _round_up(time: datetime) -> datetime:
    return time.replace(microsecond=0) + _SECOND if time.microsecond else time


def _offset(time: datetime, zone: tzinfo) -> timedelta:
    return time.astimezone(zone).utcoffset() or timedelta()


def _local(time: datetime, zone: tzinfo) -> datetime:
    return time.astimezone(zone).replace(tzinfo=None)


def _naive(fields: str, first: datetime, last: datetime | None) -> Iterator[datetime]:
    """The times that match by a clock without time zones, from `first` up to `last`, without that one."""
    if last is not None and first >= last:
        return
    try:
        # cronsim begins after a time, and drops its fraction of a second.
        for time in CronSim(fields, first - timedelta(microseconds=1)):
            if last is not None and time >= last:
                return
            if time >= first:
                yield time
    except OverflowError:
        # It has reached the last year.
        return
