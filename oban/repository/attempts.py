"""The history: a row for each attempt that has ended, stored by the transaction that ends it."""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Delete,
    Insert,
    Select,
    Text,
    Update,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from oban import encoding
from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.dialects.expressions import sql_literal
from oban.models import Attempt, Job
from oban.repository.selection import MAX_ID, Selection

if TYPE_CHECKING:
    from oban.repository.acknowledge import Ack

_job = Job.__table__.c
_attempts = Attempt.__table__
_attempt = _attempts.c

#: A statement deletes the attempts of jobs whose ids are close together: those further apart than `MAX_GAP`
#: get another one, up to `MAX_RANGES` of them.
MAX_GAP = 5000
MAX_RANGES = 10
#: The fields of an `Ack` that are added to the row of an attempt which was stored before it ended.
_REPORTED = ("error", "log", "progress", "trace")


def columns_of(dialect: Dialect, jobs: Any) -> dict[str, ColumnElement[Any]]:
    """The columns of an attempt that come from its job, whose columns are `jobs`."""
    return {
        "job_id": jobs.id,
        "attempt": jobs.attempt,
        "node": dialect.element(jobs.attempted_by, 0),
        "producer": dialect.element(jobs.attempted_by, 1),
        "started_at": jobs.attempted_at,
    }


def insert_statement(columns: Mapping[str, ColumnElement[Any]], *conditions: ColumnElement[bool]) -> Insert:
    """The statement that stores attempts with these columns, of the rows that fulfil the conditions."""
    rows = select(*columns.values()).where(*conditions)
    return insert(_attempts).from_select(list(columns), rows, include_defaults=False)


def add_cancelled(tx: Transaction, ids: Sequence[int]) -> None:
    """Store the attempts of jobs that executed until they were cancelled."""
    if ids and tx.history:
        tx.execute(_cancelled_statement(tx.dialect), {"ids": ids})


@functools.cache
def _cancelled_statement(dialect: Dialect) -> Insert:
    columns = columns_of(dialect, _job)
    columns |= {"outcome": sql_literal("cancelled"), "ended_at": _job.cancelled_at}
    return insert_statement(columns, dialect.in_ids(_job.id, dialect.id_list()))


def complete_late(tx: Transaction, acks: "Sequence[Ack]") -> None:
    """Add what runs report to the rows that were stored when their jobs were cancelled or rescued."""
    reported = [ack for ack in acks if any(getattr(ack, name) is not None for name in _REPORTED)]
    if reported and tx.history:
        ids = [ack.id for ack in reported]
        names = ("id", "attempt", "owner", *_REPORTED)
        rows = [{name: getattr(ack, name) for name in names} for ack in reported]
        parameters = {"acks": encoding.dumps(rows), "low": min(ids), "high": max(ids)}
        tx.execute(_complete_statement(tx.dialect), parameters)


@functools.cache
def _complete_statement(dialect: Dialect) -> Update:
    columns = {
        "id": BigInteger,
        "attempt": BigInteger,
        **dict.fromkeys(("owner", *_REPORTED), Text),
    }
    ack = dialect.recordset("acks", columns).c
    log, progress = dialect.json_document(ack.log), dialect.json_document(ack.progress)
    is_cancelled = _attempt.outcome == sql_literal("cancelled")
    return (
        update(_attempts)
        .where(
            *_of_jobs(dialect, lambda job_id: job_id == ack.id),
            _attempt.attempt == ack.attempt,
            func.coalesce(_attempt.producer, sql_literal("")) == ack.owner,
            or_(is_cancelled, _attempt.outcome == sql_literal("rescued")),
        )
        # The acknowledgement may be repeated, if the answer to the first one was lost.
        .values(
            # The job of a rescued attempt does not get the error either.
            error=case((is_cancelled, func.coalesce(_attempt.error, ack.error)), else_=_attempt.error),
            log=func.coalesce(_attempt.log, log),
            progress=func.coalesce(_attempt.progress, progress),
            trace=func.coalesce(_attempt.trace, ack.trace),
        )
    )


def _of_jobs(
    dialect: Dialect, condition: Callable[[ColumnElement[int]], ColumnElement[bool]]
) -> tuple[ColumnElement[bool], ...]:
    """A condition on the `job_id` of many attempts, of jobs whose ids are from `low` to `high`.

    Through a BRIN index, PostgreSQL would look up each id on its own, by a pass over the whole index.
    """
    low, high = bindparam("low", type_=BigInteger), bindparam("high", type_=BigInteger)
    unindexed = _attempt.job_id + literal_column("0") if dialect.has_range_index else _attempt.job_id
    return _attempt.job_id.between(low, high), condition(unindexed)


def list_attempts(tx: Transaction, selection: Selection) -> list[Attempt]:
    """The attempts of one job that have ended, the first one first, as instances without a session."""
    (job_id,) = selection.ids
    if not 0 < job_id <= MAX_ID:
        return []
    rows = tx.execute(_list_statement(), {"id": job_id})
    attempts = [Attempt(**row._mapping) for row in rows]
    # SQLite stores values of any type in a column of numbers, if another program writes them.
    return sorted(
        attempts,
        key=lambda each: (each.ended_at, each.attempt if isinstance(each.attempt, int) else 0),
    )


@functools.cache
def _list_statement() -> Select[Any]:
    return select(_attempts).where(_attempt.job_id == bindparam("id", type_=BigInteger))


def delete_attempts(tx: Transaction, ids: Collection[int]) -> None:
    """Delete the attempts of jobs that this transaction deletes."""
    statement = _delete_statement(tx.dialect)
    for part in _ranges(ids) if tx.dialect.has_range_index else [sorted(ids)]:
        if part:
            rows = encoding.dumps([{"id": id_} for id_ in part])
            tx.execute(statement, {"jobs": rows, "low": part[0], "high": part[-1]})


@functools.cache
def _delete_statement(dialect: Dialect) -> Delete:
    ids = select(dialect.recordset("jobs", {"id": BigInteger}).c.id)
    return delete(_attempts).where(*_of_jobs(dialect, lambda job_id: job_id.in_(ids)))


def _ranges(ids: Collection[int]) -> Iterator[list[int]]:
    """The ids in ascending order, as lists of ids that are close together."""
    ordered = sorted(ids)
    gaps = [(after - before, place) for place, (before, after) in enumerate(pairwise(ordered), 1)]
    widest = sorted((gap for gap in gaps if gap[0] > MAX_GAP), reverse=True)[: MAX_RANGES - 1]
    places = [0, *sorted(place for _, place in widest), len(ordered)]
    for start, end in pairwise(places):
        yield ordered[start:end]
