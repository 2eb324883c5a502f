"""Fetch: claim available jobs for a producer, on their own or in one statement with acknowledgements."""

import functools
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    Text,
    Update,
    bindparam,
    func,
    literal_column,
    select,
    update,
)

from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.models import Job
from oban.repository.acknowledge import Ack, Acknowledgement, acknowledge, acknowledge_statement

# Statements on the table, not on the class: an ORM update computes its cache key at each execution, and loads
# what it returns through the session.
_jobs = Job.__table__
_job = _jobs.c

_DEMAND = bindparam("demand", type_=BigInteger)
_start_order = itemgetter(*map(list(_job.keys()).index, ("priority", "scheduled_at", "id")))


def fetch(tx: Transaction, queue: str, demand: int, node: str, owner: str) -> list[Job]:
    """Claim up to `demand` available jobs of a queue, which then execute; in the order to start them."""
    parameters = {"queue_name": queue, "demand": demand, "node": node, "owner": owner}
    return _jobs_to_start(tx.rows(_fetch_statement(tx.dialect), parameters))


def claim(tx: Transaction, queue: str, demand: int, node: str, owner: str) -> int:
    """Claim jobs as `fetch` does, without reading them, for a queue with rows that cannot be read.

    Returns the number of jobs.
    """
    parameters = {"queue_name": queue, "demand": demand, "node": node, "owner": owner}
    return len(tx.execute(_claim_statement(tx.dialect), parameters).all())


def acknowledge_and_fetch(
    tx: Transaction, acks: Sequence[Ack], queue: str, demand: int, node: str, owner: str
) -> list[Job]:
    """Acknowledge the runs that have ended, and fetch into the places that they leave free.

    One statement in autocommit does both if all of the jobs were completed, as in most calls.
    """
    dialect = tx.dialect
    if dialect.writes_in_cte and demand > 0 and all(ack.outcome == "completed" for ack in acks):
        tx.autocommit_next()
        if not acks:
            return fetch(tx, queue, demand, node, owner)
        acknowledgement, parameters = acknowledge_statement(dialect, acks, tx.history)
        parameters |= {"queue_name": queue, "demand": demand, "node": node, "owner": owner}
        return _jobs_to_start(tx.rows(_acknowledge_and_fetch_statement(dialect, acknowledgement), parameters))
    acknowledge(tx, acks)
    return fetch(tx, queue, demand, node, owner) if demand > 0 else []


def _jobs_to_start(rows: Sequence[Row[Any]]) -> list[Job]:
    # Rows are sorted faster than jobs.
    return [Job._from_row(row) for row in sorted(rows, key=_start_order)]


@functools.cache
def _fetch_statement(dialect: Dialect) -> Update:
    return _claim_available(dialect, dialect.index_limit(_DEMAND), *_job)


@functools.cache
def _claim_statement(dialect: Dialect) -> Update:
    return _claim_available(dialect, dialect.index_limit(_DEMAND), _job.id)


@functools.cache
def _acknowledge_and_fetch_statement(dialect: Dialect, acknowledgement: Acknowledgement) -> Update:
    # The limit refers to the CTE, so PostgreSQL acknowledges before it fetches. In the other order, the
    # statement would wait for executing rows while it has locked available ones, and could deadlock.
    count = select(func.count()).select_from(acknowledgement.acknowledged).scalar_subquery()
    statement = _claim_available(dialect, _DEMAND + literal_column("0") * count, *_job)
    stored = acknowledgement.attempts
    return statement if stored is None else statement.add_cte(stored)


def _claim_available(dialect: Dialect, limit: Any, *returned: ColumnElement[Any]) -> Update:
    available = (
        select(_job.id)
        .where(
            _job.state == dialect.state("available"),
            _job.queue == bindparam("queue_name"),
            # Before the limit is applied: rows that can never run must not count towards it.
            _job.attempt < _job.max_attempts,
        )
        .order_by(_job.priority, _job.scheduled_at, _job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return claim_where(dialect, dialect.in_subquery(_job.id, available), *returned)


def claim_where(dialect: Dialect, condition: ColumnElement[bool], *returned: ColumnElement[Any]) -> Update:
    """The statement that begins an attempt of the jobs that fulfil a condition."""
    return (
        update(_jobs)
        .where(condition)
        .values(
            state=dialect.state("executing"),
            attempt=_job.attempt + literal_column("1"),
            attempted_at=dialect.now(),
            attempted_by=dialect.string_list(bindparam("node", type_=Text), bindparam("owner", type_=Text)),
        )
        .returning(*returned)
    )
