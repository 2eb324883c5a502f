"""Prune: delete finished jobs when their retention has ended."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Float, Select, delete, literal, or_, select, true

from oban.config import Retention
from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.models import Job
from oban.repository.attempts import delete_attempts
from oban.types import JobState

_jobs = Job.__table__
_job = _jobs.c

#: When a job finished, and its id.
Finished = tuple[datetime, int]


class Rule(NamedTuple):
    """How long jobs of a state are kept: all of them, or those of a queue or worker."""

    state: JobState
    #: Seconds since the job finished.
    seconds: float
    queue: str | None = None
    worker: str | None = None
    #: Queues and workers for which there are other rules.
    excluded_queues: Sequence[str] = ()
    excluded_workers: Sequence[str] = ()


def rules(retention: Retention) -> list[Rule]:
    """The rules of a retention. For a job, that of its worker takes precedence over that of its queue."""
    queues, workers = tuple(retention.queues), tuple(retention.workers)
    scopes: list[tuple[Retention, dict[str, Any]]] = [
        (retention, {"excluded_queues": queues, "excluded_workers": workers}),
        *((own, {"queue": queue, "excluded_workers": workers}) for queue, own in retention.queues.items()),
        *((own, {"worker": worker}) for worker, own in retention.workers.items()),
    ]
    return [
        Rule(state, seconds, **scope)
        for state in (JobState.COMPLETED, JobState.CANCELLED, JobState.DISCARDED)
        for own, scope in scopes
        if (seconds := getattr(own, state.value)) is not None
    ]


def prune(
    tx: Transaction,
    rule: Rule,
    limit: int,
    after: Finished | None = None,
    only: Sequence[int] | None = None,
    keys: set[str] | None = None,
) -> int:
    """Delete up to `limit` jobs whose retention has ended, the first to finish first, and their attempts.

    Returns the number of jobs.

    `after` restricts this to jobs that finished after another one, and `only` to some ids. The keys of
    unique jobs are added to `keys`.
    """
    expired = _expired(tx.dialect, rule, limit, after, only).with_for_update(skip_locked=True)
    statement = (
        delete(_jobs).where(tx.dialect.in_subquery(_job.id, expired)).returning(_job.id, _job.unique_key)
    )
    rows = tx.execute(statement, {} if only is None else {"only": only}).all()
    delete_attempts(tx, [row.id for row in rows])
    if keys is not None:
        keys.update(row.unique_key for row in rows if row.unique_key is not None)
    return len(rows)


def prunable(tx: Transaction, rule: Rule, limit: int, after: Finished | None = None) -> list[Finished]:
    """The jobs that `prune` would delete."""
    statement = _expired(tx.dialect, rule, limit, after).add_columns(_finished_at(rule)).order_by(_job.id)
    return [(finished_at, id_) for id_, finished_at in tx.execute(statement)]


def _finished_at(rule: Rule) -> Any:
    return _job[f"{rule.state.value}_at"]


def _expired(
    dialect: Dialect, rule: Rule, limit: int, after: Finished | None, only: Sequence[int] | None = None
) -> Select[Any]:
    finished_at = _finished_at(rule)
    statement = select(_job.id).where(
        dialect.hint_partial_index(_job.state == dialect.state(rule.state.value)),
        finished_at <= dialect.now_minus(literal(rule.seconds, Float)),
    )
    if rule.queue is not None:
        # `IS TRUE` keeps the planner from the index on state and queue, with which it would sort all
        # finished jobs of the queue.
        statement = statement.where((_job.queue == rule.queue).is_(true()))
    if rule.worker is not None:
        statement = statement.where(_job.worker == rule.worker)
    if rule.excluded_queues:
        statement = statement.where(_job.queue.not_in(rule.excluded_queues))
    if rule.excluded_workers:
        statement = statement.where(_job.worker.not_in(rule.excluded_workers))
    if only is not None:
        statement = statement.where(dialect.in_ids(_job.id, dialect.id_list("only")))
    if after is not None:
        at, id_ = after
        statement = statement.where(finished_at >= at, or_(finished_at > at, _job.id > id_))
    return statement.order_by(finished_at).limit(dialect.index_limit(literal(limit, BigInteger)))
