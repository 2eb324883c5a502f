"""Insert one job or many, in one statement per batch."""

import functools
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Executable,
    Float,
    Text,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal_column,
    select,
    type_coerce,
)

from oban import encoding, fields
from oban.database.transaction import Transaction
from oban.dialects.base import Dialect, sql_literal
from oban.errors import ConfigError, InvalidTarget
from oban.models import Job
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
#: Those of them that are JSON objects.
_DOCUMENTS = ("args", "meta")
#: What only a job has that is not due at once.
_TIMED = {"state", "scheduled_at", "delay"}
_UNSET = {"attempted_at": None, "cancelled_at": None, "completed_at": None, "discarded_at": None}

_jobs = Job.__table__
#: What an insert returns. As plain types: what most rows share is then converted once (see `_adopt`).
_STORED = (
    _jobs.c.id,
    type_coerce(_jobs.c.inserted_at, DateTime).label("inserted_at"),
    type_coerce(_jobs.c.scheduled_at, DateTime).label("scheduled_at"),
    type_coerce(_jobs.c.state, Text).label("state"),
)


def _usual(dialect: Dialect) -> dict[str, ColumnElement[Any]]:
    """What is not sent for each job: what most jobs have, and the queue and worker of the first one."""
    return {
        "queue": bindparam("usual_queue", type_=Text),
        "worker": bindparam("usual_worker", type_=Text),
        "max_attempts": literal_column("20"),
        "priority": literal_column("0"),
        "meta": literal_column("'{}'"),
        "tags": dialect.string_list(),
    }


@functools.cache
def _one(dialect: Dialect, given: tuple[str, ...]) -> Executable:
    """Inserts one job that is due at once, of which these fields are given.

    No list has to be taken apart, and no time to be compared.
    """
    now = dialect.now()
    values = {"state": dialect.state("available"), "inserted_at": now, "scheduled_at": now, **_usual(dialect)}
    for name in given:
        is_document = name in _DOCUMENTS
        value: Any = bindparam(f"its_{name}", type_=Text if is_document else _COPIED[name])
        values[name] = dialect.json_document(value) if is_document else value
    return insert(_jobs).values(values).returning(*_STORED)


@functools.cache
def _many(dialect: Dialect, lists: bool) -> Executable:
    """Inserts the jobs of a list; `lists`: returns what was stored as one row of lists."""
    given = dialect.recordset(
        "jobs",
        {"n": BigInteger, "state": Text, "scheduled_at": UTCDateTime, "delay": Float, **_COPIED},
    ).c
    now = dialect.now()
    at = case(
        (given.delay.is_not(None), dialect.now_plus(given.delay)),
        else_=func.coalesce(given.scheduled_at, now, type_=UTCDateTime),
    )
    # Whether a time has come is for the database's clock to say, not for the client's.
    state = case(
        (given.state == sql_literal("suspended"), sql_literal("suspended")),
        (at > now, sql_literal("scheduled")),
        else_=sql_literal("available"),
    )
    usual = _usual(dialect)
    copied = [func.coalesce(given[name], usual[name]) if name in usual else given[name] for name in _COPIED]
    rows = select(cast(state, StateType), now, at, *copied).order_by(given.n)
    columns = ["state", "inserted_at", "scheduled_at", *_COPIED]
    inserted = insert(_jobs).from_select(columns, rows).returning(*_STORED)
    if not lists:
        return inserted
    # Three lists take a driver a fifth of the time of a thousand rows, though more than one row.
    stored = inserted.cte("stored").c
    return select(
        func.min(stored.inserted_at).label("inserted_at"),
        func.array_agg(stored.id, type_=ARRAY(BigInteger)),
        func.array_agg(stored.scheduled_at, type_=ARRAY(DateTime)),
        func.array_agg(cast(stored.state, Text), type_=ARRAY(Text)),
    )


def listed(jobs: Iterable[Job] | Job, more: Iterable[Job]) -> list[Job]:
    """The jobs that a call passes, as an iterable or one by one.

    Refuses, before any row is touched, what is not a new job or is passed twice: `InvalidTarget`.
    """
    if not isinstance(jobs, (Job, Iterable)):
        raise InvalidTarget(f"jobs are needed, not {type(jobs).__name__}")
    every = [jobs, *more] if isinstance(jobs, Job) else [*jobs, *more]
    seen = set()
    for job in every:
        if not isinstance(job, Job):
            raise InvalidTarget(f"a Job is needed, not {type(job).__name__}; MyWorker.new(…) makes one")
        if job.__dict__.get("id") is not None or job._is_persistent:
            raise InvalidTarget(f"job {job.__dict__.get('id')} was enqueued before; make a new one")
        if id(job) in seen:
            raise InvalidTarget(f"the same job was passed twice: {job!r}")
        seen.add(id(job))
    return every


def batches(jobs: Iterable[Job], size: int) -> Iterator[list[Job]]:
    """Jobs as lists of `size`, each checked by `listed`, of which none is kept while the next is made."""
    if isinstance(jobs, Job) or not isinstance(jobs, Iterable):
        raise InvalidTarget(f"an iterable of jobs is needed, not {type(jobs).__name__}")
    _check_size(size)
    given = iter(jobs)
    while part := listed(islice(given, size), ()):
        yield part
        del part


async def async_batches(jobs: Iterable[Job] | AsyncIterable[Job], size: int) -> AsyncIterator[list[Job]]:
    """The same as `batches`, of an async iterable, too."""
    if not isinstance(jobs, AsyncIterable):
        for part in batches(jobs, size):
            yield part
            del part
        return
    _check_size(size)
    part = []
    async for job in jobs:
        part.append(job)
        if len(part) == size:
            yield listed(part, ())
            part = []
    if part:
        yield listed(part, ())


def _check_size(size: object) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ConfigError(f"batch must be a positive number of jobs, not {size!r}")


def insert_all(tx: Transaction, jobs: list[Job], attach: bool = False) -> None:
    """Insert jobs that `listed` has accepted, in one statement per `BATCH`.

    The instances get their ids, states and times, in the order given. They are detached afterwards
    or, with `attach`, persistent in the tx.session.
    """
    # Those that the caller had added to the session were inserted when it was flushed.
    fresh = [job for job in jobs if not job._is_persistent]
    is_single = len(fresh) <= BATCH
    for start in range(0, len(fresh), BATCH):
        _insert(tx, fresh[start : start + BATCH], attach, is_single)


def _insert(tx: Transaction, jobs: list[Job], attach: bool, is_single: bool) -> None:
    dialect = tx.dialect
    first = jobs[0].__dict__
    queue, worker = first["queue"], first["worker"]
    parameters: dict[str, Any] = {"usual_queue": queue, "usual_worker": worker}
    records = [_record(n, job, queue, worker) for n, job in enumerate(jobs)]
    lists = dialect.writes_in_cte and len(jobs) > 1
    if len(jobs) == 1 and _TIMED.isdisjoint(records[0]):
        _, *given = records[0]
        statement = _one(dialect, tuple(given))
        parameters |= {f"its_{name}": _parameter(records[0], name) for name in given}
    else:
        statement = _many(dialect, lists)
        parameters["jobs"] = _payload(records)
    # Not before: a job that is refused leaves no connection that may have failed.
    if is_single:
        tx.autocommit_next()
    result = tx.rows(statement, parameters)
    inserted_at = result[0].inserted_at
    # Ids are given out in the order of the rows, while RETURNING promises none.
    if lists:
        rows = sorted(zip(*result[0][1:], strict=True))
    else:
        rows = sorted((row.id, row.scheduled_at, row.state) for row in result)
    if attach:
        tx.on_rollback([job._restore_on_rollback() for job in jobs])
    tx.after_commit(lambda: _adopt(jobs, inserted_at, rows))
    if attach:
        tx.session.add_all(jobs)
    if not dialect.insert_notifies:
        if delays := [at - inserted_at for _, at, state in rows if state == "scheduled"]:
            tx.notify("signal", [{"action": "stage", "in": min(delays).total_seconds()}])
        queues = {job.queue for job, row in zip(jobs, rows, strict=True) if row[2] == "available"}
        tx.notify("insert", [{"queue": queue} for queue in sorted(queues)])


def _adopt(jobs: list[Job], inserted_at: datetime, rows: list[tuple[int, datetime, str]]) -> None:
    """Let the instances show their rows: id, time and state of each, inserted at one time."""
    # For most jobs this is also when they are due.
    now = inserted_at.replace(tzinfo=UTC)
    for job, (id_, scheduled_at, state) in zip(jobs, rows, strict=True):
        held = job.__dict__
        held.update(_UNSET)
        held["id"], held["inserted_at"], held["state"] = id_, now, STATE_BY_VALUE[state]
        due = now if scheduled_at == inserted_at else scheduled_at.replace(tzinfo=UTC)
        held["scheduled_at"] = due
        job._mark_persistent()


def _parameter(record: dict[str, Any], name: str) -> Any:
    value = record[name]
    if name not in _DOCUMENTS:
        return value
    return encoding.dumps_unchecked(value) or encoding.dumps(encoding.json_object(value, name))


def _payload(records: list[dict[str, Any]]) -> str:
    payload = encoding.dumps_unchecked(records)
    if payload is None:
        for record in records:
            for name in record.keys() & {*_DOCUMENTS}:
                record[name] = encoding.json_object(record[name], name)
        payload = encoding.dumps(records)
    return payload


def _record(n: int, job: Job, queue: str, worker: str) -> dict[str, Any]:
    held = job.__dict__
    record = {"n": n, "args": held["args"]}
    if held["queue"] != queue:
        record["queue"] = held["queue"]
    if held["worker"] != worker:
        record["worker"] = held["worker"]
    if held["max_attempts"] != 20:
        record["max_attempts"] = held["max_attempts"]
    if held["priority"]:
        record["priority"] = held["priority"]
    if held["meta"]:
        record["meta"] = held["meta"]
    if held["tags"]:
        record["tags"] = fields.tags(held["tags"])
    if job._schedule_in is not None:
        record["delay"] = job._schedule_in
    elif "scheduled_at" in held:
        at = held["scheduled_at"].replace(tzinfo=None)
        record["scheduled_at"] = at.isoformat(" ", "microseconds")
    if held["state"] is JobState.SUSPENDED:
        record["state"] = "suspended"
    return record
