"""Cron expressions in words, and their next times."""

import re
from datetime import UTC, datetime

from cronsim import CronSim

from oban.cron import Cron
from oban.errors import ConfigError

#: The largest step that is true to its words, of each field: "every 90th minute of every hour" is minute 0.
_STEPS = (30, 12, 15, 6, 3)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def words(expression: str) -> str | None:
    """An expression in words, such as `At 02:30 on Monday through Friday`; None if it cannot be told.

    The words come from the parser that also finds the times, so they are about the same dialect.
    """
    try:
        cron = Cron.parse(expression)
    except ConfigError:
        return None
    if cron.fields is None:
        return "Once when the first node starts"
    for field, most in zip(cron.fields.split(), _STEPS, strict=True):
        if any(int(step) > most for step in re.findall(r"/(\d+)", field)):
            return None
    return CronSim(cron.fields, _EPOCH).explain()


def next_times(expression: str, timezone: str, after: datetime, number: int = 5) -> list[datetime]:
    """The next times of an expression, in its zone. Raises `ConfigError` for a wrong expression or zone."""
    cron = Cron.parse(expression, timezone)
    found: list[datetime] = []
    following = cron.next_after(after)
    while len(found) < number and following is not None:
        found.append(following.astimezone(cron.zone))
        following = cron.next_after(following)
    return found
