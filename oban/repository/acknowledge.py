"""Acknowledge: record how attempts ended, in one statement for many."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Float,
    SmallInteger,
    Text,
    Update,
    and_,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    update,
)

from oban import encoding
from oban.database.transaction import Transaction
from oban.dialects.base import Dialect, sql_literal
from oban.models import Job
from oban.types import JobState

_jobs = Job.__table__
_job = _jobs.c

#: What `Ack.outcome` may be, and the state that a job gets by it.
OUTCOMES = {
    "completed": JobState.COMPLETED,
    "cancelled": JobState.CANCELLED,
    "snoozed": JobState.SCHEDULED,
    "released": JobState.AVAILABLE,
    "discarded": JobState.DISCARDED,
    # Or `discarded`, if no attempt is left by then.
    "failed": JobState.RETRYABLE,
    "rescued": JobState.AVAILABLE,
}


RunKey = tuple[int, int, str]
"""A run: the job's id, the attempt, and the owner."""


class Ack(NamedTuple):
    """How one attempt of a job ended; `id`, `attempt` and `owner` say whose attempt it was.

    `owner` is the producer's uuid, or "" of an executing row that names none.
    """

    id: int
    attempt: int
    owner: str
    outcome: str
    #: Text for an entry in `errors`.
    error: str | None = None
    #: Seconds until the job is due again.
    delay: float | None = None
    #: JSON text of a recorded value.
    value: str | None = None
    #: The count for `meta["snoozed"]`.
    snoozed: int | None = None
    #: The count for `meta["rescued"]`.
    rescued: int | None = None

    def record(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON values."""
        record: dict[str, Any] = {
            "id": self.id,
            "attempt": self.attempt,
            "owner": self.owner,
            "outcome": self.outcome,
        }
        for name, value in zip(_OPTIONAL, self[len(record) :], strict=True):
            if value is not None:
                record[name] = value
        return record


_OPTIONAL = ("error", "delay", "value", "snoozed", "rescued")


def _locked(dialect: Dialect, these: ColumnElement[bool]) -> ColumnElement[bool]:
    # In id order, as everybody locks, whatever order a join or a scan may have.
    return dialect.in_subquery(_job.id, select(_job.id).where(these).order_by(_job.id).with_for_update())


def _held_by(dialect: Dialect, attempt: Any, owner: Any) -> list[ColumnElement[bool]]:
    return [
        _job.attempt == attempt,
        func.coalesce(dialect.second_element(_job.attempted_by), sql_literal("")) == owner,
        dialect.unindexed_state(_job.state) == sql_literal("executing"),
    ]


@functools.cache
def _complete(dialect: Dialect) -> Update:
    these = dialect.in_ids(_job.id, dialect.id_list())
    attempt, owner = bindparam("acked_attempt", type_=SmallInteger), bindparam("acked_owner", type_=Text)
    return (
        update(_jobs)
        .where(
            these if dialect.single_writer else _locked(dialect, these),
            *_held_by(dialect, attempt, owner),
        )
        .values(state=dialect.state("completed"), completed_at=dialect.now())
        .returning(_job.id)
    )


@functools.cache
def _acknowledge(dialect: Dialect) -> Update:
    ack = dialect.recordset(
        "acks",
        {
            "id": BigInteger,
            "attempt": BigInteger,
            "owner": Text,
            "outcome": Text,
            "error": Text,
            "delay": Float,
            "value": Text,
            "snoozed": BigInteger,
            "rescued": BigInteger,
        },
    ).c
    now = dialect.now()
    # Where nobody locks rows, SQLite would go through all acks for each id of a list.
    locked = true() if dialect.single_writer else _locked(dialect, _job.id.in_(select(ack.id)))
    ended = {outcome: ack.outcome == sql_literal(outcome) for outcome in OUTCOMES}
    retried = or_(ended["failed"], ended["rescued"])
    exhausted = or_(ended["discarded"], and_(retried, _job.attempt >= _job.max_attempts))

    def at(condition: ColumnElement[bool], column: Any) -> Any:
        return case((condition, now), else_=column)

    return (
        update(_jobs)
        .where(
            locked,
            _job.id == ack.id,
            *_held_by(dialect, ack.attempt, ack.owner),
        )
        .values(
            state=case(
                (exhausted, dialect.state("discarded")),
                *((ended[outcome], dialect.state(state)) for outcome, state in OUTCOMES.items()),
                else_=_job.state,
            ),
            attempt=case(
                (or_(ended["snoozed"], ended["released"]), _job.attempt - literal_column("1")),
                else_=_job.attempt,
            ),
            errors=case(
                (
                    ack.error.is_not(None),
                    dialect.append_error(_job.errors, _job.attempt, ack.error),
                ),
                else_=_job.errors,
            ),
            meta=case(
                (
                    ack.value.is_not(None),
                    dialect.set_keys(_job.meta, {"recorded": sql_literal("true"), "return": ack.value}),
                ),
                (
                    ack.snoozed.is_not(None),
                    dialect.set_keys(_job.meta, {"snoozed": ack.snoozed}),
                ),
                (
                    ack.rescued.is_not(None),
                    dialect.set_keys(_job.meta, {"rescued": ack.rescued}),
                ),
                else_=_job.meta,
            ),
            scheduled_at=case(
                (and_(ack.delay.is_not(None), ~exhausted), dialect.now_plus(ack.delay)),
                else_=_job.scheduled_at,
            ),
            completed_at=at(ended["completed"], _job.completed_at),
            cancelled_at=at(ended["cancelled"], _job.cancelled_at),
            discarded_at=at(exhausted, _job.discarded_at),
        )
        .returning(_job.id)
    )


def _alike(acks: Sequence[Ack]) -> bool:
    # Completed, without a value, at attempts of one number, as most batches are.
    same = Ack(0, acks[0].attempt, acks[0].owner, "completed")[1:]
    return all(ack[1:] == same for ack in acks)


def storing(dialect: Dialect, acks: Sequence[Ack]) -> tuple[Update, dict[str, Any]]:
    """What stores some outcomes and returns the ids of the rows that it changed, with its parameters."""
    if _alike(acks):
        ids = sorted(ack.id for ack in acks)
        first = acks[0]
        return _complete(dialect), {"ids": ids, "acked_attempt": first.attempt, "acked_owner": first.owner}
    records = [ack.record() for ack in sorted(acks)]
    return _acknowledge(dialect), {"acks": encoding.dumps(records)}


def acknowledge(tx: Transaction, acks: Sequence[Ack]) -> set[int]:
    """Record how attempts ended, all in one statement; the ids of the jobs that were changed.

    An attempt that is no longer the job's current one (cancelled, rescued, retried, deleted
    meanwhile) changes nothing, but for one thing: the error of a run that was cancelled is kept.
    """
    if not acks:
        return set()
    done: set[int] = set(tx.execute(*storing(tx.dialect, acks)).scalars())
    if late := [ack for ack in acks if ack.id not in done and ack.error is not None]:
        _keep_errors_of_cancelled(tx, late)
    released = [ack.id for ack in acks if ack.id in done and ack.outcome in ("released", "rescued")]
    if released:
        dialect = tx.dialect
        queues = select(_job.queue).where(dialect.in_ids(_job.id, dialect.id_list())).distinct()
        names = tx.execute(queues, {"ids": released}).scalars()
        tx.notify("insert", [{"queue": name} for name in names])
    if delays := [ack.delay for ack in acks if ack.id in done and ack.delay is not None]:
        tx.notify("signal", [{"action": "stage", "in": min(delays)}])
    return done


def _keep_errors_of_cancelled(tx: Transaction, acks: list[Ack]) -> None:
    dialect = tx.dialect
    rows = tx.execute(
        select(_job.id, _job.attempt, _job.attempted_by, _job.errors)
        .where(
            dialect.in_ids(_job.id, dialect.id_list()),
            dialect.unindexed_state(_job.state) == sql_literal("cancelled"),
        )
        .order_by(_job.id)
        .with_for_update(),
        {"ids": [ack.id for ack in acks]},
    )
    cancelled = {row.id: row for row in rows}
    for ack in acks:
        job = cancelled.get(ack.id)
        if job is None or job.attempt != ack.attempt or job.attempted_by[1:] != [ack.owner]:
            continue
        # A repeated acknowledgement, after a lost answer, must not add it twice.
        errors = job.errors if isinstance(job.errors, list) else []
        if any(isinstance(entry, dict) and entry.get("attempt") == ack.attempt for entry in errors):
            continue
        appended = dialect.append_error(_job.errors, _job.attempt, literal(ack.error, Text))
        tx.execute(update(_jobs).where(_job.id == job.id).values(errors=appended))
