"""Drain: run the jobs that wait in a queue one by one, for `oban.testing`."""

from collections.abc import Collection
from datetime import datetime
from typing import Literal

from sqlalchemy import ColumnElement, and_, or_, select

from oban.database.transaction import Transaction
from oban.models import COLUMN_KEYS, Job
from oban.repository.fetch import claim_where
from oban.repository.instances import reload_instances
from oban.repository.selection import Selection

_job = Job.__table__.c

_SCHEDULED = ("scheduled", "retryable")


def waiting_jobs(
    tx: Transaction, queue: str, scheduled: datetime | Literal["all", "due"], limit: int | None = None
) -> list[int]:
    """The ids of the jobs of a queue that wait for a run, in the order to start them.

    `scheduled` tells which of the scheduled and retryable jobs are among them: those that are due by a time,
    all of them, or those that are due now.
    """
    dialect = tx.dialect
    later: ColumnElement[bool] = _job.state.in_([dialect.state(state) for state in _SCHEDULED])
    if scheduled != "all":
        later = and_(later, _job.scheduled_at <= (dialect.now() if scheduled == "due" else scheduled))
    statement = (
        select(_job.id)
        .where(
            or_(_job.state == dialect.state("available"), later),
            _job.queue == queue,
            _job.attempt < _job.max_attempts,
        )
        .order_by(_job.priority, _job.scheduled_at, _job.id)
        .limit(limit)
    )
    return list(tx.execute(statement).scalars())


def claim_job(tx: Transaction, job_id: int, node: str, owner: str) -> Job | None:
    """Begin an attempt of a job that waits for one, due or not, and return it; None if it does not wait."""
    dialect = tx.dialect
    states = [dialect.state(state) for state in ("available", *_SCHEDULED)]
    waits = and_(_job.id == job_id, _job.state.in_(states), _job.attempt < _job.max_attempts)
    rows = tx.rows(claim_where(dialect, waits, *_job), {"node": node, "owner": owner})
    return Job._from_row(rows[0]) if rows else None


def show_jobs(tx: Transaction, jobs: Collection[Job], ids: Collection[int]) -> None:
    """Let some instances, and those of the caller's session, show the rows as the runs have left them."""
    reload_instances(tx, Selection(targets=list(jobs)), ids, COLUMN_KEYS)
