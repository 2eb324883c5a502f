"""What the runner does to jobs: fetch, acknowledge, stage, and ask which runs are still its own."""

import functools
from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    Float,
    Table,
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
from sqlalchemy.orm import Session

from oban import dialects, encoding
from oban.dialects.base import Dialect, constant
from oban.models import Job
from oban.repository.session import alone, execute, notify
from oban.types import JobState

# Statements on the plain table: what they return is not loaded through the session, and their cache
# keys are computed once, where those of ORM updates are computed at each execution.
_jobs = cast(Table, Job.__table__)
_job = _jobs.c

#: Jobs that one staging statement moves.
STAGE_BATCH = 5000

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


Held = tuple[int, int, str]
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
        .where(dialect.picked(_job.id, due))
        .values(
            state=dialect.state("executing"),
            attempt=_job.attempt + literal_column("1"),
            attempted_at=dialect.now(),
            attempted_by=dialect.texts(bindparam("node", type_=Text), bindparam("owner", type_=Text)),
        )
        .returning(*(returned or _job))
    )


_DEMAND = bindparam("demand", type_=BigInteger)


@functools.cache
def _fetch(dialect: Dialect) -> Update:
    return _fetch_after(dialect, _DEMAND)


def _start_order(job: Job) -> tuple[int, datetime, int]:
    held = job.__dict__
    return held["priority"], held["scheduled_at"], held["id"]


def fetch(session: Session, queue: str, demand: int, node: str, owner: str) -> list[Job]:
    """Claim up to `demand` available jobs of a queue: now executing, in the order to start them."""
    parameters = {"queue_name": queue, "demand": demand, "node": node, "owner": owner}
    return _started(execute(session, _fetch(dialects.of(session)), parameters))


@functools.cache
def _claim(dialect: Dialect) -> Update:
    return _fetch_after(dialect, _DEMAND, _job.id)


def claim(session: Session, queue: str, demand: int, node: str, owner: str) -> int:
    """As `fetch`, without reading the rows, which may hold what cannot be read; their number."""
    parameters = {"queue_name": queue, "demand": demand, "node": node, "owner": owner}
    return len(execute(session, _claim(dialects.of(session)), parameters).all())


def _started(rows: Iterable[Any]) -> list[Job]:
    return sorted(map(Job.stored, rows), key=_start_order)


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
    locked: ColumnElement[bool] = true()
    if not dialect.single_writer:
        # In id order, as everybody locks, whatever order the join may have.
        ids = select(_job.id).where(_job.id.in_(select(ack.id))).order_by(_job.id).with_for_update()
        locked = dialect.picked(_job.id, ids)
    ended = {outcome: ack.outcome == constant(outcome) for outcome in OUTCOMES}
    retried = or_(ended["failed"], ended["rescued"])
    exhausted = or_(ended["discarded"], and_(retried, _job.attempt >= _job.max_attempts))

    def at(condition: ColumnElement[bool], column: Any) -> Any:
        return case((condition, now), else_=column)

    return (
        update(_jobs)
        .where(
            locked,
            _job.id == ack.id,
            _job.attempt == ack.attempt,
            func.coalesce(dialect.second(_job.attempted_by), constant("")) == ack.owner,
            dialect.plain_state(_job.state) == constant("executing"),
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
                    dialect.set_keys(_job.meta, {"recorded": constant("true"), "return": ack.value}),
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
                (and_(ack.delay.is_not(None), ~exhausted), dialect.later(ack.delay)),
                else_=_job.scheduled_at,
            ),
            completed_at=at(ended["completed"], _job.completed_at),
            cancelled_at=at(ended["cancelled"], _job.cancelled_at),
            discarded_at=at(exhausted, _job.discarded_at),
        )
        .returning(_job.id)
    )


_id = attrgetter("id")


def _payload(acks: Iterable[Ack]) -> str:
    return encoding.dumps([ack.record() for ack in acks])


def acknowledge(session: Session, acks: Sequence[Ack]) -> set[int]:
    """Record how attempts ended, all in one statement; the ids of the jobs that were changed.

    An attempt that is no longer the job's current one (cancelled, rescued, retried, deleted
    meanwhile) changes nothing, but for one thing: the error of a run that was cancelled is kept.
    """
    if not acks:
        return set()
    ordered = sorted(acks, key=_id)
    statement = _acknowledge(dialects.of(session))
    done: set[int] = set(execute(session, statement, {"acks": _payload(ordered)}).scalars())
    if late := [ack for ack in ordered if ack.id not in done and ack.error is not None]:
        _keep_errors_of_cancelled(session, late)
    released = [ack.id for ack in ordered if ack.id in done and ack.outcome in ("released", "rescued")]
    if released:
        dialect = dialects.of(session)
        queues = select(_job.queue).where(dialect.among(_job.id, dialect.id_list())).distinct()
        names = execute(session, queues, {"ids": released}).scalars()
        notify(session, "insert", [{"queue": name} for name in names])
    if delays := [ack.delay for ack in ordered if ack.id in done and ack.delay is not None]:
        notify(session, "signal", [{"action": "stage", "in": min(delays)}])
    return done


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
        errors = job.errors if isinstance(job.errors, list) else []
        if any(isinstance(entry, dict) and entry.get("attempt") == ack.attempt for entry in errors):
            continue
        appended = dialect.append_error(Job.errors, Job.attempt, literal(ack.error, Text))
        statement = update(Job).where(Job.id == job.id).values(errors=appended)
        execute(session, statement, synchronize_session=False)


@functools.cache
def _acknowledge_and_fetch(dialect: Dialect) -> Update:
    acknowledged = _acknowledge(dialect).cte("acknowledged")
    # Asked for by the limit, the acknowledgement comes first: the other way round, this would wait
    # for executing rows while it holds available ones, and could deadlock.
    done = select(func.count()).select_from(acknowledged).scalar_subquery()
    return _fetch_after(dialect, _DEMAND + literal_column("0") * done)


def turn(session: Session, acks: Sequence[Ack], queue: str, demand: int, node: str, owner: str) -> list[Job]:
    """One turn of a producer: acknowledge what has ended, then fetch into the free places."""
    dialect = dialects.of(session)
    # Most turns need no more than one statement.
    if dialect.writes_in_cte and demand > 0 and all(ack.outcome == "completed" for ack in acks):
        alone(session)
        if not acks:
            return fetch(session, queue, demand, node, owner)
        parameters = {"queue_name": queue, "demand": demand, "node": node, "owner": owner}
        parameters["acks"] = _payload(sorted(acks, key=_id))
        return _started(execute(session, _acknowledge_and_fetch(dialect), parameters))
    acknowledge(session, acks)
    return fetch(session, queue, demand, node, owner) if demand > 0 else []


def _waiting(dialect: Dialect) -> ColumnElement[bool]:
    # Spelt as in the partial index.
    return _job.state.in_([dialect.state("scheduled"), dialect.state("retryable")])


@functools.cache
def _stage(dialect: Dialect) -> Update:
    due = (
        select(_job.id)
        .where(_waiting(dialect), _job.scheduled_at <= dialect.now())
        .order_by(_job.scheduled_at, _job.id)
        .limit(STAGE_BATCH)
        .with_for_update(skip_locked=True)
    )
    return (
        update(_jobs)
        .where(dialect.picked(_job.id, due))
        .values(state=dialect.state("available"))
        .returning(_job.queue)
    )


def _names(queues: Iterable[object]) -> list[str]:
    # SQLite keeps whatever somebody puts into a column.
    return sorted({queue for queue in queues if isinstance(queue, str)})


def stage(session: Session) -> int:
    """Make the jobs available whose time has come, and wake their queues; the number staged."""
    statement = _stage(dialects.of(session))
    queues = execute(session, statement).scalars().all()
    notify(session, "insert", [{"queue": queue} for queue in _names(queues)])
    return len(queues)


@functools.cache
def _next_due(dialect: Dialect) -> Executable:
    return select(func.min(_job.scheduled_at), dialect.now()).where(_waiting(dialect))


def seconds_until_due(session: Session) -> float | None:
    """How long until the next scheduled or retryable job is due, by the database's clock."""
    row = execute(session, _next_due(dialects.of(session))).one()
    due: datetime | None = row[0]
    now: datetime = row[1]
    return None if due is None else (due - now).total_seconds()
