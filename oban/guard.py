"""The guard of unique jobs: locks their keys, and finds the jobs that are in the way.

A transaction claims the keys of its unique jobs first. That waits for other transactions that have claimed
one of them, so that the look-up of conflicts sees what the other one has committed.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import BigInteger, ColumnElement, Executable, Float, Integer, Text

from oban import encoding
from oban.dialects.base import Dialect, Executor
from oban.types import STATES, BigKey, KeyText, StateType, UTCDateTime
from oban.unique import Unique

#: How many keys one statement claims or looks up.
BATCH = 1000

#: What a look-up compares besides keys: the states, and the time if there is a period.
Lookup = tuple[tuple[str, ...], str | None]

# The models import this module. Tables of other metadata are found in any schema, too.
_metadata = sa.MetaData()
#: The table of keys.
KEYS = sa.Table("oban_unique_keys", _metadata, sa.Column("key", KeyText), sa.Column("turn", BigInteger))
_jobs = sa.Table(
    "oban_jobs",
    _metadata,
    sa.Column("id", BigKey),
    sa.Column("state", StateType),
    sa.Column("inserted_at", UTCDateTime),
    sa.Column("scheduled_at", UTCDateTime),
    sa.Column("unique_key", KeyText),
)


class Candidate(NamedTuple):
    """A unique job that is about to be inserted, to be retried, or to get another key."""

    key: str
    rule: Unique
    #: The id of the job if it is stored already: it is not in its own way.
    job_id: int | None = None


def claim(executor: Executor, dialect: Dialect, keys: Iterable[str]) -> None:
    """Lock keys until the end of the transaction, and wait for other transactions that have claimed them.

    At READ COMMITTED, the next statement sees the jobs of those transactions. At REPEATABLE READ and
    SERIALIZABLE, this raises a serialization failure if one of them has committed since the snapshot was
    taken. Two calls never deadlock with each other, as they lock keys in the same order. On SQLite, this
    takes the write lock. `executor` is a `Connection` or a `Transaction`.
    """
    ordered = sorted(set(keys))
    if not ordered:
        return
    if dialect.single_writer:
        dialect.begin_write(executor)
        return
    statement = _claim_statement(dialect)
    for batch in _batches(ordered):
        executor.execute(statement, {"keys": encoding.dumps([{"key": key} for key in batch])})


def find_conflicts(executor: Executor, dialect: Dialect, candidates: Sequence[Candidate]) -> list[int | None]:
    """Return for each candidate the id of a stored job that is in its way, or None.

    Call `claim` with the keys before, in the same transaction. Candidates are not compared with each other.
    `executor` is a `Connection` or a `Transaction`.
    """
    found: list[int | None] = [None] * len(candidates)
    by_statement: dict[Lookup, list[dict[str, Any]]] = {}
    for n, (key, rule, job_id) in enumerate(candidates):
        record = {"n": n, "key": key, "period": rule.period, "job_id": job_id}
        by_statement.setdefault(lookup_of(rule), []).append(record)
    for (states, timestamp), records in by_statement.items():
        if not states:
            # Another program may have stored a rule with states that Oban does not have.
            continue
        statement = _lookup_statement(dialect, states, timestamp)
        for batch in _batches(records):
            for n, id_ in executor.execute(statement, {"candidates": encoding.dumps(batch)}):
                found[n] = id_
    return found


def lookup_of(rule: Unique) -> Lookup:
    """How a rule looks for jobs: in which states, and by which time, if it has a period."""
    states = tuple(state for state in STATES if state in rule.states)
    return states, None if rule.period is None else rule.timestamp


def _batches(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


@functools.cache
def _claim_statement(dialect: Dialect) -> Executable:
    key = dialect.recordset("keys", {"key": Text}).c.key
    statement: Executable = claim_from(dialect, sa.select(key).order_by(sa.collate(key, "C")))
    return statement


def claim_from(dialect: Dialect, keys: sa.Select[Any], where: ColumnElement[bool] | None = None) -> Any:
    """The statement that claims the keys of a query, which sorts them; `where` is about rows that exist."""
    insert: Any = dialect.insert(KEYS).from_select(["key"], keys)
    turn = {"turn": insert.excluded.turn}
    return insert.on_conflict_do_update(index_elements=["key"], set_=turn, where=where)


@functools.cache
def _lookup_statement(dialect: Dialect, states: tuple[str, ...], timestamp: str | None) -> Executable:
    """Look up candidates that have the same states and compare the same time, or none."""
    candidate = dialect.recordset(
        "candidates", {"n": Integer, "key": Text, "period": Float, "job_id": BigInteger}
    ).c
    id_ = conflicting_id(dialect, candidate.key, candidate.period, states, timestamp, candidate.job_id)
    return sa.select(candidate.n, id_)


def conflicting_id(
    dialect: Dialect,
    key: ColumnElement[str],
    period: ColumnElement[float],
    states: tuple[str, ...],
    timestamp: str | None,
    job_id: ColumnElement[int] | None = None,
) -> ColumnElement[int]:
    """The id of a stored job with a key that is in some states, or NULL; `job_id` is left out.

    With a `timestamp`, that time of the job is within the period. There is a subquery for each state, the
    first of which that finds a job ends the look-up: one that has yet to run, if there is one. Each reads one
    entry of the index of keys, on every release of the databases and whatever the planner knows.
    """
    columns = _jobs.c
    # The order is that of the index. By the id, the planner would walk through the primary key, and without
    # an order it may read the table.
    any_job = (
        sa.select(columns.id)
        .where(columns.unique_key == key)
        .order_by(columns.unique_key, columns.state, columns.inserted_at)
        .limit(sa.literal_column("1"))
    )
    conditions: list[ColumnElement[bool]] = []
    if job_id is not None:
        conditions.append(columns.id != sa.func.coalesce(job_id, sa.literal_column("0")))
    if timestamp is not None:
        conditions.append(columns[timestamp] >= dialect.now_minus(period))
    latest_first = [column.desc() for column in (columns.unique_key, columns.state, columns.inserted_at)]
    ids = [
        any_job.where(columns.state == dialect.state(state), *conditions)
        .order_by(None)
        .order_by(*latest_first)
        .scalar_subquery()
        for state in states
    ]
    # NULL is for a single state, as SQLite's coalesce() takes two arguments or more.
    found = sa.func.coalesce(*ids, sa.null(), type_=BigInteger)
    # Most keys are new, and have no job in any state.
    return sa.case((any_job.scalar_subquery().is_not(None), found))
