"""Stage: make scheduled and retryable jobs available when they are due."""

import functools
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Executable, Select, Update, func, literal, select, update

from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.models import Job
from oban.repository.announce import announce_available

_jobs = Job.__table__
_job = _jobs.c

#: How many jobs one statement stages.
BATCH = 5000


def stage(tx: Transaction) -> int:
    """Make up to `BATCH` jobs that are due available, and wake their queues; returns their number."""
    queues = tx.execute(stage_statement(tx.dialect)).scalars().all()
    announce_available(tx, queues)
    return len(queues)


@functools.cache
def stage_statement(dialect: Dialect) -> Update:
    due = due_jobs(dialect, literal(BATCH, BigInteger)).with_for_update(skip_locked=True)
    return (
        update(_jobs)
        .where(dialect.in_subquery(_job.id, due))
        .values(state=dialect.state("available"))
        .returning(_job.queue)
    )


def seconds_until_due(tx: Transaction) -> float | None:
    """Seconds until the next job is due by the database's clock, negative if one is; None without jobs."""
    tx.autocommit_next()
    row: Any = tx.rows(_next_due_statement(tx.dialect), {})[0]
    due_at, now = row
    return None if due_at is None else (due_at - now).total_seconds()


@functools.cache
def _next_due_statement(dialect: Dialect) -> Executable:
    return select(func.min(_job.scheduled_at), dialect.now()).where(is_waiting(dialect))


def due_jobs(dialect: Dialect, limit: ColumnElement[int]) -> Select[Any]:
    """The ids of jobs that are due and not available yet, up to a limit."""
    return (
        select(_job.id)
        .where(is_waiting(dialect), _job.scheduled_at <= dialect.now())
        .order_by(_job.scheduled_at, _job.id)
        .limit(dialect.index_limit(limit))
    )


def is_waiting(dialect: Dialect) -> ColumnElement[bool]:
    # Written as in the partial index, which the planner otherwise does not use.
    return dialect.hint_partial_index(
        _job.state.in_([dialect.state("scheduled"), dialect.state("retryable")])
    )
