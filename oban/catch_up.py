"""Which ticks of a periodic entry insert jobs, when nobody looked at the time of each of them."""

from datetime import datetime, timedelta

from oban.cron import Cron
from oban.periodic import MAX_CATCH_UP, CatchUp

#: How late, in seconds, a tick can insert its job with the policy "skip".
PUNCTUAL = 60.0


def due_ticks(
    cron: Cron, last_tick: datetime, now: datetime, policy: CatchUp, window: float
) -> list[datetime]:
    """The ticks after `last_tick` up to `now` that insert jobs, in order.

    Args:
        cron: When the entry is due.
        last_tick: The last tick that has inserted a job, or the time at which the entry began. Ticks up to it
            never count again, even if the clock was set back.
        now: The time by the database's clock.
        policy: "skip": only a tick of the last minute. "latest": the newest tick of the window. A number: so
            many of the newest ticks of the window. "all": all of them. Never more than `MAX_CATCH_UP`.
        window: The seconds before `now` in which ticks are made up for.
    """
    if policy == "skip":
        count, window = 1, PUNCTUAL
    elif policy == "latest":
        count = 1
    else:
        count = MAX_CATCH_UP if policy == "all" else min(policy, MAX_CATCH_UP)
    try:
        # A tick exactly at the beginning of the window still counts.
        begin = now - timedelta(seconds=window) - timedelta(microseconds=1)
    except OverflowError:
        begin = last_tick
    return cron.newest(max(last_tick, begin), now, count)
