"""What the runner does to jobs: fetch, acknowledge, stage, and ask which runs are still its own."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    Float,
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
    update,
)
from sqlalchemy.orm import Session

from oban import dialects, encoding
from oban.dialects.base import Dialect, constant
from oban.models import Job
from oban.repository.transaction import execute, notify
from oban.types import JobState

#: Jobs that one staging statement moves.
STAGE_BATCH = 5000

#: What `Ack.outcome` may be, and the state that a job gets by it.
OUTCOMES = {
    "completed": JobState.COMPLETED,
    "cancelled": JobState.CANCELLED,
    "snoozed": JobState.SCHEDULED,
    "released": JobState.AVAILABLE,
    # Or `discarded`, if no attempt is left by then.
    "failed": JobState.RETRYABLE,
}


@dataclass(frozen=True, slots=True)
class Ack:
    """How one attempt of a job ended; `id`, `attempt` and `owner` say whose attempt it was."""

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

    def record(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON values."""
        record: dict[str, Any] = {
            "id": self.id,
            "attempt": self.attempt,
            "owner": self.owner,
            "outcome": self.outcome,
        }
        for name in ("error", "delay", "value", "snoozed"):
            if (value := getattr(self, name)) is not None:
                record[name] = value
        return record


@functools.cache
def _fetch(dialect: Dialect) -> Update:
    due = (
        select(Job.id)
        .where(
            Job.state == dialect.state("available"),
            Job.queue == bindparam("queue_name"),
            # Inside the locking query: a row that can never run must not take a place of others.
            Job.attempt < Job.max_attempts,
        )
        .order_by(Job.priority, Job.scheduled_at, Job.id)
        .limit(bindparam("demand", type_=BigInteger))
        .with_for_update(skip_locked=True)
    )
    return (
        update(Job)
        .where(dialect.picked(Job.id, due))
        .values(
            state=dialect.state("executing"),
            attempt=Job.attempt + literal_column("1"),
            attempted_at=dialect.now(),
            attempted_by=dialect.texts(bindparam("node", type_=Text), bindparam("owner", type_=Text)),
        )
        .returning(Job)
    )


def _start_order(job: Job) -> tuple[int, datetime, int]:
    return job.priority, job.scheduled_at, job.id


def fetch(session: Session, queue: str, demand: int, node: str, owner: str) -> list[Job]:
    """Claim up to `demand` available jobs of a queue: now executing, in the order to start them."""
    parameters = {"queue_name": queue, "demand": demand, "node": node, "owner": owner}
    statement = _fetch(dialects.of(session))
    jobs = execute(session, statement, parameters, synchronize_session=False).scalars().all()
    return sorted(jobs, key=_start_order)


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
        },
    ).c
    now = dialect.now()
    ended = {outcome: ack.outcome == constant(outcome) for outcome in OUTCOMES}
    exhausted = and_(ended["failed"], Job.attempt >= Job.max_attempts)

    def at(condition: ColumnElement[bool], column: Any) -> Any:
        return case((condition, now), else_=column)

    return (
        update(Job)
        .where(
            Job.id == ack.id,
            Job.attempt == ack.attempt,
            dialect.second(Job.attempted_by) == ack.owner,
            dialect.plain_state(Job.state) == constant("executing"),
        )
        .values(
            state=case(
                (exhausted, dialect.state("discarded")),
                *((ended[outcome], dialect.state(state)) for outcome, state in OUTCOMES.items()),
                else_=Job.state,
            ),
            attempt=case(
                (or_(ended["snoozed"], ended["released"]), Job.attempt - literal_column("1")),
                else_=Job.attempt,
            ),
            errors=case(
                (
                    ack.error.is_not(None),
                    dialect.append_error(Job.errors, Job.attempt, ack.error),
                ),
                else_=Job.errors,
            ),
            meta=case(
                (
                    ack.value.is_not(None),
                    dialect.set_keys(Job.meta, {"recorded": constant("true"), "return": ack.value}),
                ),
                (
                    ack.snoozed.is_not(None),
                    dialect.set_keys(Job.meta, {"snoozed": ack.snoozed}),
                ),
                else_=Job.meta,
            ),
            scheduled_at=case(
                (and_(ack.delay.is_not(None), ~exhausted), dialect.later(ack.delay)),
                else_=Job.scheduled_at,
            ),
            completed_at=at(ended["completed"], Job.completed_at),
            cancelled_at=at(ended["cancelled"], Job.cancelled_at),
            discarded_at=at(exhausted, Job.discarded_at),
        )
        .returning(Job.id, Job.attempt)
    )


def acknowledge(session: Session, acks: Sequence[Ack]) -> None:
    """Record how attempts ended, all in one statement.

    An attempt that is no longer the job's current one (cancelled, rescued, retried, deleted
    meanwhile) changes nothing, but for one thing: the error of a run that was cancelled is kept.
    """
    if not acks:
        return
    ordered = sorted(acks, key=lambda ack: ack.id)
    payload = encoding.dumps([ack.record() for ack in ordered])
    statement = _acknowledge(dialects.of(session))
    done = {row.id for row in execute(session, statement, {"acks": payload}, synchronize_session=False)}
    if late := [ack for ack in ordered if ack.id not in done and ack.error is not None]:
        _keep_errors_of_cancelled(session, late)
    released = [ack.id for ack in ordered if ack.id in done and ack.outcome == "released"]
    if released:
        dialect = dialects.of(session)
        queues = select(Job.queue).where(dialect.among(Job.id, dialect.id_list())).distinct()
        names = execute(session, queues, {"ids": released}).scalars()
        notify(session, "insert", [{"queue": name} for name in names])
    if any(ack.outcome in ("failed", "snoozed") for ack in ordered if ack.id in done):
        notify(session, "signal", [{"action": "stage"}])


def _keep_errors_of_cancelled(session: Session, acks: list[Ack]) -> None:
    dialect = dialects.of(session)
    rows = execute(
        session,
        select(Job)
        .where(
            dialect.among(Job.id, dialect.id_list()),
            dialect.plain_state(Job.state) == constant("cancelled"),
        )
        .order_by(Job.id)
        .with_for_update(),
        {"ids": [ack.id for ack in acks]},
        populate_existing=True,
    ).scalars()
    cancelled = {job.id: job for job in rows}
    for ack in acks:
        job = cancelled.get(ack.id)
        if job is None or job.attempt != ack.attempt or job.attempted_by[1:] != [ack.owner]:
            continue
        # A repeated acknowledgement, after a lost answer, must not add it twice.
        if any(entry.get("attempt") == ack.attempt for entry in job.errors):
            continue
        appended = dialect.append_error(Job.errors, Job.attempt, literal(ack.error, Text))
        statement = update(Job).where(Job.id == job.id).values(errors=appended)
        execute(session, statement, synchronize_session=False)


def turn(session: Session, acks: Sequence[Ack], queue: str, demand: int, node: str, owner: str) -> list[Job]:
    """One turn of a producer: acknowledge what has ended, then fetch into the free places."""
    acknowledge(session, acks)
    return fetch(session, queue, demand, node, owner) if demand > 0 else []


@functools.cache
def _stage(dialect: Dialect) -> Update:
    waiting = or_(Job.state == dialect.state("scheduled"), Job.state == dialect.state("retryable"))
    due = (
        select(Job.id)
        .where(waiting, Job.scheduled_at <= dialect.now())
        .order_by(Job.scheduled_at, Job.id)
        .limit(STAGE_BATCH)
        .with_for_update(skip_locked=True)
    )
    return (
        update(Job)
        .where(dialect.picked(Job.id, due))
        .values(state=dialect.state("available"))
        .returning(Job.queue)
    )


def stage(session: Session) -> int:
    """Make the jobs available whose time has come, and wake their queues; the number staged."""
    statement = _stage(dialects.of(session))
    queues = execute(session, statement, synchronize_session=False).scalars().all()
    notify(session, "insert", [{"queue": queue} for queue in sorted(set(queues))])
    return len(queues)


@functools.cache
def _next_due(dialect: Dialect) -> Executable:
    waiting = or_(Job.state == dialect.state("scheduled"), Job.state == dialect.state("retryable"))
    return select(func.min(Job.scheduled_at), dialect.now()).where(waiting)


def seconds_until_due(session: Session) -> float | None:
    """How long until the next scheduled or retryable job is due, by the database's clock."""
    row = execute(session, _next_due(dialects.of(session))).one()
    due: datetime | None = row[0]
    now: datetime = row[1]
    return None if due is None else (due - now).total_seconds()


Held = tuple[int, int, str]
"""A run: the job's id, the attempt, and the owner."""


def lost(session: Session, runs: Sequence[Held]) -> set[Held]:
    """Which of some runs are no longer the current, executing attempt of their job."""
    dialect = dialects.of(session)
    statement = select(Job.id, Job.attempt, dialect.second(Job.attempted_by)).where(
        dialect.among(Job.id, dialect.id_list()),
        dialect.plain_state(Job.state) == constant("executing"),
    )
    ids = sorted({run[0] for run in runs})
    held = {tuple(row) for row in execute(session, statement, {"ids": ids})}
    return {run for run in runs if run not in held}
