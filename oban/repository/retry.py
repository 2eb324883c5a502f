"""Retry jobs."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import case

from oban import fields
from oban.database.transaction import Transaction
from oban.initial_state import state_at
from oban.models import Job
from oban.repository.announce import announce_available, announce_due
from oban.repository.instances import write_to_rows
from oban.repository.selection import Selection, lock
from oban.types import JobState

RETRY_STATES = tuple(set(JobState) - {JobState.AVAILABLE, JobState.EXECUTING})


def retry_jobs(tx: Transaction, selection: Selection, changes: Mapping[str, Any] | None = None) -> int:
    """Make the selected jobs that are neither available nor executing available; returns the number changed.

    `max_attempts` is raised where no attempt is left, and a recorded value is removed. A job that has used as
    many attempts as the column can store is left unchanged.

    Args:
        tx: A transaction.
        selection: The jobs.
        changes: A queue, a priority and a time, all checked. With a future time, the jobs become scheduled.
    """
    dialect = tx.dialect
    locked = lock(tx, selection, Job.queue, Job.attempt, dialect.now().label("now"), states=RETRY_STATES)
    # SQLite stores values of any type in a column, if another program writes them.
    rows = [
        row for row in locked if isinstance(row.attempt, (int, float)) and row.attempt < fields.MAX_ATTEMPTS
    ]
    if not rows:
        return 0
    values = {"scheduled_at": dialect.now(), **(changes or {})}
    state, now = JobState.AVAILABLE, rows[0].now
    if "schedule_in" in values:
        values["scheduled_at"] = now + timedelta(seconds=values.pop("schedule_in"))
    if isinstance(values["scheduled_at"], datetime):
        state = state_at(values["scheduled_at"], now)
    is_recorded = dialect.has_key(Job.meta, "recorded")
    write_to_rows(
        tx,
        selection,
        rows,
        state=dialect.state(state.value),
        max_attempts=case((Job.attempt >= Job.max_attempts, Job.attempt + 1), else_=Job.max_attempts),
        meta=case((is_recorded, dialect.without_keys(Job.meta, "recorded", "return")), else_=Job.meta),
        cancelled_at=None,
        completed_at=None,
        discarded_at=None,
        **values,
    )
    if state == JobState.AVAILABLE:
        announce_available(tx, [values["queue"]] if "queue" in values else (row.queue for row in rows))
    else:
        announce_due(tx, max(0.0, (values["scheduled_at"] - now).total_seconds()))
    return len(rows)
