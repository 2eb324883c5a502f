"""What the runner does to jobs: fetch them, along with acknowledging others, and stage them."""

import functools
from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    Row,
    Text,
    Update,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    update,
)

from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.models import Job
from oban.repository.acknowledge import Ack, acknowledge, storing

# Statements on the plain table: what they return is not loaded through the session, and their cache
# keys are computed once, where those of ORM updates are computed at each execution.
_jobs = Job.__table__
_job = _jobs.c

#: Jobs that one staging statement moves.
STAGE_BATCH = 5000


def _fetch_after(dialect: Dialect, limit: Any, *returned: ColumnElement[Any]) -> Update:
    due = (
        select(_job.id)
        .where(
            _job.state == dialect.state("available"),
            _job.queue == bindparam("queue_name"),
            # Inside the locking query: a row that can never run must not take a place of others.
            _job.attempt < _job.max_attempts,
        )
        .order_by(_job.priority, _job.scheduled_at, _job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return (
        update(_jobs)
        .where(dialect.in_subquery(_job.id, due))
        .values(
            state=dialect.state("executing"),
            attempt=_job.attempt + literal_column("1"),
            attempted_at=dialect.now(),
            attempted_by=dialect.string_list(bindparam("node", type_=Text), bindparam("owner", type_=Text)),
        )
        .returning(*(returned or _job))
    )


_DEMAND = bindparam("demand", type_=BigInteger)


@functools.cache
def _fetch(dialect: Dialect) -> Update:
    return _fetch_after(dialect, dialect.index_limit(_DEMAND))


_start_order = itemgetter(*map(list(_job.keys()).index, ("priority", "scheduled_at", "id")))


def fetch(tx: Transaction, queue: str, demand: int, node: str, owner: str) -> list[Job]:
    """Claim up to `demand` available jobs of a queue: now executing, in the order to start them."""
    parameters = {"queue_name": queue, "demand": demand, "node": node, "owner": owner}
    return _started(tx.rows(_fetch(tx.dialect), parameters))


@functools.cache
def _claim(dialect: Dialect) -> Update:
    return _fetch_after(dialect, dialect.index_limit(_DEMAND), _job.id)


def claim(tx: Transaction, queue: str, demand: int, node: str, owner: str) -> int:
    """As `fetch`, without reading the rows, which may hold what cannot be read; their number."""
    parameters = {"queue_name": queue, "demand": demand, "node": node, "owner": owner}
    return len(tx.execute(_claim(tx.dialect), parameters).all())


def _started(claimed: Sequence[Row[Any]]) -> list[Job]:
    # Sorted as rows: each call for a row is felt.
    return [Job._from_row(row) for row in sorted(claimed, key=_start_order)]


@functools.cache
def _fetch_and(dialect: Dialect, first: Update) -> Update:
    acknowledged = first.cte("acknowledged")
    # Asked for by the limit, the acknowledgement comes first: the other way round, this would wait
    # for executing rows while it holds available ones, and could deadlock.
    done = select(func.count()).select_from(acknowledged).scalar_subquery()
    return _fetch_after(dialect, _DEMAND + literal_column("0") * done)


def turn(tx: Transaction, acks: Sequence[Ack], queue: str, demand: int, node: str, owner: str) -> list[Job]:
    """One turn of a producer: acknowledge what has ended, then fetch into the free places."""
    dialect = tx.dialect
    # Most turns need no more than one statement.
    if dialect.writes_in_cte and demand > 0 and all(ack.outcome == "completed" for ack in acks):
        tx.autocommit_next()
        if not acks:
            return fetch(tx, queue, demand, node, owner)
        first, parameters = storing(dialect, acks)
        parameters |= {"queue_name": queue, "demand": demand, "node": node, "owner": owner}
        return _started(tx.rows(_fetch_and(dialect, first), parameters))
    acknowledge(tx, acks)
    return fetch(tx, queue, demand, node, owner) if demand > 0 else []


def _waiting(dialect: Dialect) -> ColumnElement[bool]:
    # Spelt as in the partial index.
    return dialect.hint_partial_index(
        _job.state.in_([dialect.state("scheduled"), dialect.state("retryable")])
    )


@functools.cache
def _stage(dialect: Dialect) -> Update:
    due = (
        select(_job.id)
        .where(_waiting(dialect), _job.scheduled_at <= dialect.now())
        .order_by(_job.scheduled_at, _job.id)
        .limit(dialect.index_limit(literal(STAGE_BATCH, BigInteger)))
        .with_for_update(skip_locked=True)
    )
    return (
        update(_jobs)
        .where(dialect.in_subquery(_job.id, due))
        .values(state=dialect.state("available"))
        .returning(_job.queue)
    )


def _names(queues: Iterable[object]) -> list[str]:
    # SQLite keeps whatever somebody puts into a column.
    return sorted({queue for queue in queues if isinstance(queue, str)})


def stage(tx: Transaction) -> int:
    """Make the jobs available whose time has come, and wake their queues; the number staged."""
    statement = _stage(tx.dialect)
    queues = tx.execute(statement).scalars().all()
    tx.notify("insert", [{"queue": queue} for queue in _names(queues)])
    return len(queues)


@functools.cache
def _next_due(dialect: Dialect) -> Executable:
    return select(func.min(_job.scheduled_at), dialect.now()).where(_waiting(dialect))


def seconds_until_due(tx: Transaction) -> float | None:
    """How long until the next scheduled or retryable job is due, by the database's clock."""
    row = tx.execute(_next_due(tx.dialect)).one()
    due: datetime | None = row[0]
    now: datetime = row[1]
    return None if due is None else (due - now).total_seconds()
