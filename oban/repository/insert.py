"""Insert one job or many, in one statement per batch."""

import functools
from collections.abc import Iterable, Sequence
from datetime import UTC
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Float,
    Insert,
    Text,
    case,
    cast,
    func,
    insert,
    select,
    type_coerce,
)
from sqlalchemy.orm import Session, object_session

from oban import dialects, encoding
from oban.dialects.base import Dialect, constant
from oban.errors import InvalidTarget
from oban.models import Job
from oban.repository.transaction import execute, notify
from oban.types import STATE_BY_VALUE, JobState, JSONDocument, StateType, TextList, UTCDateTime

#: Rows per statement.
BATCH = 1000

_COPIED = {
    "queue": Text,
    "worker": Text,
    "max_attempts": BigInteger,
    "priority": BigInteger,
    "args": JSONDocument,
    "meta": JSONDocument,
    "tags": TextList,
}
_UNSET = {"attempted_at": None, "cancelled_at": None, "completed_at": None, "discarded_at": None}


@functools.cache
def _statement(dialect: Dialect) -> Insert:
    given = dialect.recordset(
        "jobs",
        {"n": BigInteger, "state": Text, "scheduled_at": UTCDateTime, "delay": Float, **_COPIED},
    ).c
    now = dialect.now()
    at = case(
        (given.delay.is_not(None), dialect.later(given.delay)),
        else_=func.coalesce(given.scheduled_at, now, type_=UTCDateTime),
    )
    # Whether a time has come is for the database's clock to say, not for the client's.
    state = case(
        (given.state == constant("suspended"), constant("suspended")),
        (at > now, constant("scheduled")),
        else_=constant("available"),
    )
    rows = select(cast(state, StateType), now, at, *(given[name] for name in _COPIED)).order_by(given.n)
    table = Job.__table__
    return (
        insert(table)  # type: ignore[arg-type]
        .from_select(["state", "inserted_at", "scheduled_at", *_COPIED], rows)
        # As plain types: what most rows share is then converted once (see _insert).
        .returning(
            table.c.id,
            type_coerce(table.c.inserted_at, DateTime),
            type_coerce(table.c.scheduled_at, DateTime),
            type_coerce(table.c.state, Text),
        )
    )


def insert_many(session: Session, jobs: Iterable[Job], attach: bool = False) -> list[Job]:
    """Insert jobs and return the same instances, with their ids, in the order given.

    They are detached afterwards or, with `attach`, persistent in the session. Raises `InvalidTarget`
    for what is not a `Job`, is passed twice or was enqueued before; then nothing is inserted.
    """
    listed = list(jobs)
    _check(listed)
    pending = [job for job in listed if object_session(job) is session]
    if pending:
        session.flush(pending)
    fresh = [job for job in listed if "id" not in job.__dict__]
    for start in range(0, len(fresh), BATCH):
        _insert(session, fresh[start : start + BATCH], attach)
    return listed


def insert_one(session: Session, job: Job, attach: bool = False) -> Job:
    """Insert one job; like `insert_many`."""
    return insert_many(session, [job], attach)[0]


def _insert(session: Session, jobs: Sequence[Job], attach: bool) -> None:
    dialect = dialects.of(session)
    payload = _payload(jobs)
    # Ids are given out in the order of the rows, while RETURNING promises none.
    rows = sorted(execute(session, _statement(dialect), {"jobs": payload}), key=itemgetter(0))
    queues = set()
    now = None
    for job, (id_, inserted_at, scheduled_at, state) in zip(jobs, rows, strict=True):
        # One statement, one time: equal for all rows, and for most jobs when they are due, too.
        now = now or inserted_at.replace(tzinfo=UTC)
        due = now if scheduled_at == inserted_at else scheduled_at.replace(tzinfo=UTC)
        held = job.__dict__
        held.update(_UNSET)
        held["id"], held["inserted_at"], held["scheduled_at"] = id_, now, due
        held["state"] = STATE_BY_VALUE[state]
        job.keyed()
        if state == "available":
            queues.add(held["queue"])
    if attach:
        session.add_all(jobs)
    if queues and not dialect.insert_notifies:
        notify(session, "insert", [{"queue": queue} for queue in queues])


def _payload(jobs: Sequence[Job]) -> str:
    records = [_record(n, job) for n, job in enumerate(jobs)]
    payload = encoding.dumps_unchecked(records)
    if payload is None:
        for record in records:
            for name in ("args", "meta"):
                record[name] = encoding.json_object(record[name], name)
        payload = encoding.dumps(records)
    return payload


def _record(n: int, job: Job) -> dict[str, Any]:
    held = job.__dict__
    record = {
        "n": n,
        "queue": held["queue"],
        "worker": held["worker"],
        "max_attempts": held["max_attempts"],
        "priority": held["priority"],
        "args": held["args"],
        "meta": held["meta"],
        "tags": held["tags"],
    }
    if job._schedule_in is not None:
        record["delay"] = job._schedule_in
    elif "scheduled_at" in held:
        at = held["scheduled_at"].replace(tzinfo=None)
        record["scheduled_at"] = at.isoformat(" ", "microseconds")
    if held["state"] is JobState.SUSPENDED:
        record["state"] = "suspended"
    return record


def _check(jobs: list[Job]) -> None:
    seen = set()
    for job in jobs:
        if not isinstance(job, Job):
            raise InvalidTarget(f"a Job is needed, not {type(job).__name__}; MyWorker.new(…) makes one")
        if job.__dict__.get("id") is not None:
            raise InvalidTarget(f"job {job.id} was enqueued before; make a new one")
        if id(job) in seen:
            raise InvalidTarget(f"the same job was passed twice: {job!r}")
        seen.add(id(job))
