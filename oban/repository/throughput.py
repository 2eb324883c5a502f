"""Jobs that have ended lately: statements that read a bounded part of an index."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, cast, extract, func, select

from oban.dialects.base import Dialect
from oban.models import Job
from oban.types import JobState


def has_ended_in(dialect: Dialect, state: JobState) -> ColumnElement[bool]:
    """A condition for the index of the times at which jobs have ended in this state."""
    return dialect.hint_partial_index(Job.state == dialect.state(state.value))


def latest_completed(dialect: Dialect, since: datetime, most: int) -> Select[Any]:
    """The latest jobs that were completed since a time, at most so many."""
    lately = Job.completed_at >= since
    statement = select(Job).where(has_ended_in(dialect, JobState.COMPLETED), lately)
    return statement.order_by(Job.completed_at.desc()).limit(most)


def completed_by_period(
    dialect: Dialect, queue: str, since: datetime, seconds: int, most: int
) -> Select[int, int, int]:
    """Rows of a period, and how many jobs of a queue, and of all queues, were completed in it.

    A period is the time since 1970 divided by its `seconds`. Of all queues, the latest `most` completed jobs
    since a time are looked at.
    """
    latest = latest_completed(dialect, since, most).with_only_columns(Job.queue, Job.completed_at)
    among = latest.subquery("latest").c
    period = cast(extract("epoch", among.completed_at), BigInteger) // seconds
    in_queue = func.count().filter(among.queue == queue)
    return select(period, in_queue, func.count()).group_by(period)
