"""The rule of Debian's cron by brute force: it looks at the wall clock in every minute of a stretch of time.

Nothing of it is shared with the library, which computes the times instead.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
#: How long before a stretch the clock is watched, so that times that it shows again are known.
BEFORE = timedelta(hours=26)


def _values(text: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    for part in text.split(","):
        wanted, _, step = part.partition("/")
        if wanted == "*":
            first, last = low, high
        elif "-" in wanted:
            first, last = map(int, wanted.split("-"))
        else:
            first = int(wanted)
            last = high if step else first
        values |= set(range(first, last + 1, int(step or 1)))
    return values


class Expression:
    """An expression of five fields, without names."""

    def __init__(self, text: str) -> None:
        minute, hour, day, month, weekday = text.split()
        self.minutes, self.hours = _values(minute, 0, 59), _values(hour, 0, 23)
        self.days, self.months = _values(day, 1, 31), _values(month, 1, 12)
        self.weekdays = {value % 7 for value in _values(weekday, 0, 7)}
        self.needs_both_days = day.startswith("*") or weekday.startswith("*")
        self.follows_real_time = minute.startswith("*") or hour.startswith("*")

    def matches(self, time: datetime) -> bool:
        if time.minute not in self.minutes or time.hour not in self.hours or time.month not in self.months:
            return False
        day, weekday = time.day in self.days, time.isoweekday() % 7 in self.weekdays
        return (day and weekday) if self.needs_both_days else (day or weekday)


class Stretch:
    """The days after a date in a zone, with what the wall clock shows in each minute of them."""

    def __init__(self, zone: str, date: str, days: int) -> None:
        self.zone, self.date = zone, date
        place = ZoneInfo(zone)
        self.start = datetime.fromisoformat(date).replace(tzinfo=place).astimezone(UTC)
        self.end = self.start + timedelta(days=days)
        #: Each minute, what the clock shows then, and which times it has passed for the first time.
        self.minutes: list[tuple[datetime, datetime, list[datetime]]] = []
        passed: set[datetime] = set()
        time = self.start - BEFORE
        before = time.astimezone(place).replace(tzinfo=None) - MINUTE
        while time < self.end:
            shown = time.astimezone(place).replace(tzinfo=None)
            new = [missed for missed in _minutes(before + MINUTE, shown) if missed not in passed]
            if shown not in passed:
                new.append(shown)
            passed.update(new)
            if time >= self.start:
                self.minutes.append((time, shown, new))
            before = shown
            time += MINUTE

    def ticks(self, text: str) -> list[datetime]:
        """When an expression is due in this stretch."""
        expression = Expression(text)
        if expression.follows_real_time:
            return [time for time, shown, _ in self.minutes if expression.matches(shown)]
        return [time for time, _, new in self.minutes if any(map(expression.matches, new))]


def _minutes(first: datetime, end: datetime) -> Iterator[datetime]:
    while first < end:
        yield first
        first += MINUTE
