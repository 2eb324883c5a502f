"""Insert one job or many, in one statement per batch."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import BigInteger, Float, Insert, Text, case, cast, func, insert, select
from sqlalchemy.orm import Session, object_session
from sqlalchemy.orm.attributes import instance_state

from oban import dialects, encoding
from oban.dialects.base import Dialect, constant
from oban.errors import InvalidTarget
from oban.models import Job
from oban.repository.transaction import execute, notify
from oban.types import JobState, JSONDocument, StateType, TextList, UTCDateTime

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
_RETURNED = ("id", "state", "inserted_at", "scheduled_at")
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
        .returning(*(table.c[name] for name in _RETURNED))
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
    payload = encoding.dumps([_record(n, job) for n, job in enumerate(jobs)])
    # Ids are given out in the order of the rows, while RETURNING promises none.
    rows = sorted(execute(session, _statement(dialect), {"jobs": payload}))
    queues = set()
    for job, row in zip(jobs, rows, strict=True):
        job.__dict__.update(_UNSET)
        job.__dict__.update(zip(_RETURNED, row, strict=True))
        state = instance_state(job)
        # What make_transient_to_detached() does, less what only instances with a history need.
        state.key = state.mapper.identity_key_from_primary_key((job.id,))
        if job.state is JobState.AVAILABLE:
            queues.add(job.queue)
    if attach:
        session.add_all(jobs)
    if queues and not dialect.insert_notifies:
        notify(session, "insert", [{"queue": queue} for queue in queues])


def _record(n: int, job: Job) -> dict[str, Any]:
    held = job.__dict__
    record = {
        "n": n,
        "queue": held["queue"],
        "worker": held["worker"],
        "max_attempts": held["max_attempts"],
        "priority": held["priority"],
        # Checked again: a dict may have been changed in place since the job was made.
        "args": encoding.json_object(held["args"], "args"),
        "meta": encoding.json_object(held["meta"], "meta"),
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
