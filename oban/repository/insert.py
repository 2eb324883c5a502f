"""Insert: enqueue one job or many, with one statement per batch."""

import functools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
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
from oban.dialects.base import Dialect
from oban.dialects.expressions import sql_literal
from oban.errors import InvalidJob, InvalidTarget
from oban.models import DEFAULT_MAX_ATTEMPTS, Job
from oban.repository.announce import announce_available, announce_due
from oban.types import STATE_BY_VALUE, JobState, JSONDocument, StateType, TextList, UTCDateTime

#: How many jobs one statement inserts.
BATCH = 1000

#: The columns that are sent for a job if its value differs from `_default_values`.
_COLUMNS = {
    "queue": Text,
    "worker": Text,
    "max_attempts": BigInteger,
    "priority": BigInteger,
    "args": JSONDocument,
    "meta": JSONDocument,
    "tags": TextList,
}
_DOCUMENTS = ("args", "meta")
#: Further keys of a record. A job with one of them may not be due at once.
_TIMING = {"state", "scheduled_at", "delay"}
_UNSET = {"attempted_at": None, "cancelled_at": None, "completed_at": None, "discarded_at": None}
#: The fields that an insert does not store, because each new job has the same value in them.
_NOT_STORED = ("attempt", "errors", "attempted_by", "inserted_at", *_UNSET)
_NEW_STATES = (JobState.AVAILABLE, JobState.SCHEDULED, JobState.SUSPENDED)

_jobs = Job.__table__
#: The columns that an insert returns, in plain types: `_show_rows` converts values that many rows share once.
_RETURNED = (
    _jobs.c.id,
    type_coerce(_jobs.c.inserted_at, DateTime).label("inserted_at"),
    type_coerce(_jobs.c.scheduled_at, DateTime).label("scheduled_at"),
    cast(_jobs.c.state, Text).label("state"),
)


def collect_jobs(jobs: Iterable[Job] | Job, *more: Job) -> list[Job]:
    """List the jobs that a caller passes, as an iterable or one by one.

    Raises `InvalidTarget`, before any row is touched, if an item is not a new job or is passed twice, and
    `InvalidJob` if a field of a new job has a value that would not be stored.
    """
    if not isinstance(jobs, (Job, Iterable)):
        raise InvalidTarget(f"jobs are needed, not {type(jobs).__name__}")
    collected = [jobs, *more] if isinstance(jobs, Job) else [*jobs, *more]
    seen = set()
    for job in collected:
        if not isinstance(job, Job):
            raise InvalidTarget(f"a Job is needed, not {type(job).__name__}; MyWorker.new(…) makes one")
        values = job.__dict__
        # Most jobs have neither: nothing was assigned since `new` made them. Lists can change in place.
        if "_sa_instance_state" in values or "id" in values or values["errors"] or values["attempted_by"]:
            _check_new(job)
        if id(job) in seen:
            raise InvalidTarget(f"the same job was passed twice: {job!r}")
        seen.add(id(job))
    return collected


def _check_new(job: Job) -> None:
    """Refuse a job that was enqueued before, and fields whose values an insert would drop."""
    values = job.__dict__
    if job._is_persistent:
        raise InvalidTarget(f"job {job._known_id} was enqueued before; make a new one")
    advice = "session.add() stores a job as it is"
    if values.get("id") is not None:
        raise InvalidJob("id", f"is assigned by the database; {advice}")
    for field in _NOT_STORED:
        if values.get(field):
            raise InvalidJob(field, f"of a new job cannot be set: it has not run yet; {advice}")
    state = values.get("state", JobState.AVAILABLE)
    if state not in _NEW_STATES:
        raise InvalidJob("state", f"of a new job is available, scheduled or suspended, not {state}; {advice}")
    if state == JobState.SCHEDULED and values.get("scheduled_at") is None:
        raise InvalidJob("state", "is scheduled, but the job has no scheduled_at or schedule_in")


def insert_all(
    tx: Transaction, jobs: list[Job], attach: bool = False, max_attempts: int | None = None
) -> None:
    """Insert jobs from `collect_jobs`, and set their ids, states and times.

    The instances are detached afterwards or, with `attach`, persistent in the transaction's session.
    `max_attempts` is for jobs that do not set it.
    """
    # Jobs that the caller has added to the session were inserted when it was flushed.
    new = [job for job in jobs if not job._is_persistent]
    if len(new) == 1 and _insert_one(tx, new[0], attach, max_attempts):
        return
    for start in range(0, len(new), BATCH):
        batch = new[start : start + BATCH]
        _insert_batch(tx, batch, attach, max_attempts, is_only_batch=len(new) <= BATCH)


def _insert_one(tx: Transaction, job: Job, attach: bool, max_attempts: int | None) -> bool:
    """Insert a job that is due at once. For any other one, do nothing and return False."""
    values = job.__dict__
    parameters = {"first_queue": values["queue"], "first_worker": values["worker"]}
    record = _record(job, values["queue"], values["worker"], max_attempts)
    if not _TIMING.isdisjoint(record):
        return False
    for column, value in record.items():
        parameters[f"own_{column}"] = _document(column, value) if column in _DOCUMENTS else value
    statement = _single_statement(tx.dialect, tuple(record))
    # Not earlier: a job that is refused would count as a failure of the connection.
    tx.autocommit_next()
    rows: Sequence[Any] = tx.rows(statement, parameters)
    ((id_, inserted_at, scheduled_at, state),) = rows
    _show_inserted(tx, [job], inserted_at, [(id_, scheduled_at, state)], attach, max_attempts)
    return True


def _insert_batch(
    tx: Transaction, jobs: list[Job], attach: bool, max_attempts: int | None, *, is_only_batch: bool
) -> None:
    first = jobs[0].__dict__
    queue, worker = first["queue"], first["worker"]
    records = [_record(job, queue, worker, max_attempts) for job in jobs]
    for n, record in enumerate(records):
        record["n"] = n
    returns_lists = tx.dialect.writes_in_cte and len(jobs) > 1
    statement = _batch_statement(tx.dialect, returns_lists)
    payload = _payload(records)
    if is_only_batch:
        tx.autocommit_next()
    result: Sequence[Any] = tx.rows(
        statement, {"first_queue": queue, "first_worker": worker, "jobs": payload}
    )
    # Ids are assigned in the order of the jobs, but RETURNING does not guarantee an order.
    if returns_lists:
        ((inserted_at, *lists),) = result
        ids, times, states = map(encoding.loads, lists)
        due = (inserted_at if time is None else datetime.fromisoformat(time) for time in times)
        rows = sorted(zip(ids, due, states, strict=True))
    else:
        inserted_at = result[0].inserted_at
        rows = sorted((id_, scheduled_at, state) for id_, _, scheduled_at, state in result)
    _show_inserted(tx, jobs, inserted_at, rows, attach, max_attempts)


def _record(job: Job, queue: str, worker: str, max_attempts: int | None) -> dict[str, Any]:
    """What is sent for a job: `args`, and what differs from the defaults."""
    values = job.__dict__
    record = {"args": values["args"]}
    if values["queue"] != queue:
        record["queue"] = values["queue"]
    if values["worker"] != worker:
        record["worker"] = values["worker"]
    if max_attempts is not None and not job._sets_max_attempts:
        record["max_attempts"] = max_attempts
    elif values["max_attempts"] != DEFAULT_MAX_ATTEMPTS:
        record["max_attempts"] = values["max_attempts"]
    if values["priority"]:
        record["priority"] = values["priority"]
    if values["meta"]:
        record["meta"] = values["meta"]
    if values["tags"]:
        record["tags"] = fields.tags(values["tags"])
    if job._schedule_in is not None:
        record["delay"] = job._schedule_in
    elif values.get("scheduled_at") is not None:
        at = values["scheduled_at"].replace(tzinfo=None)
        record["scheduled_at"] = at.isoformat(" ", "microseconds")
    if values["state"] == JobState.SUSPENDED:
        record["state"] = "suspended"
    return record


def _document(column: str, value: Any) -> str:
    """The JSON of one document of a job."""
    return encoding.dumps_unchecked(value) or encoding.dumps(encoding.json_object(value, column))


def _payload(records: list[dict[str, Any]]) -> str:
    payload = encoding.dumps_unchecked(records)
    if payload is None:
        for record in records:
            for column in record.keys() & {*_DOCUMENTS}:
                record[column] = encoding.json_object(record[column], column)
        payload = encoding.dumps(records)
    return payload


def _show_inserted(
    tx: Transaction,
    jobs: list[Job],
    inserted_at: datetime,
    rows: list[tuple[int, datetime, str]],
    attach: bool,
    max_attempts: int | None,
) -> None:
    """Update the instances once the caller can see the rows, and announce the jobs if no trigger does."""
    if attach:
        # Called before the values change.
        tx.on_rollback([job._restore_on_rollback() for job in jobs])
    tx.after_commit(functools.partial(_show_rows, jobs, inserted_at, rows, max_attempts))
    if attach:
        # In the caller's transaction, that has run by now, and made the instances ones that are stored.
        tx.attach(jobs)
    if not tx.dialect.insert_notifies:
        if delays := [at - inserted_at for _, at, state in rows if state == "scheduled"]:
            announce_due(tx, min(delays).total_seconds())
        queues = {job.queue for job, row in zip(jobs, rows, strict=True) if row[2] == "available"}
        announce_available(tx, queues)


def _show_rows(
    jobs: list[Job],
    inserted_at: datetime,
    rows: list[tuple[int, datetime, str]],
    max_attempts: int | None,
) -> None:
    """Set what the database has decided for each job: id, state, due time and time of insertion.

    `max_attempts` is what was stored for jobs that do not set it; None if that was the default.
    """
    # For most jobs, this is also when they are due.
    now = inserted_at.replace(tzinfo=UTC)
    for job, (id_, scheduled_at, state) in zip(jobs, rows, strict=True):
        values = job.__dict__
        values.update(_UNSET)
        values["id"], values["inserted_at"], values["state"] = id_, now, STATE_BY_VALUE[state]
        values["scheduled_at"] = now if scheduled_at == inserted_at else scheduled_at.replace(tzinfo=UTC)
        if max_attempts is not None and not job._sets_max_attempts:
            values["max_attempts"] = max_attempts
        if "_sa_instance_state" in values:
            job._mark_persistent()


def _default_values(dialect: Dialect) -> dict[str, ColumnElement[Any]]:
    """The values of most jobs, which are not sent for each of them."""
    return {
        "queue": bindparam("first_queue", type_=Text),
        "worker": bindparam("first_worker", type_=Text),
        "max_attempts": literal_column(str(DEFAULT_MAX_ATTEMPTS)),
        "priority": literal_column("0"),
        "meta": literal_column("'{}'"),
        "tags": dialect.string_list(),
    }


@functools.cache
def _single_statement(dialect: Dialect, columns: tuple[str, ...]) -> Executable:
    """Insert one job that is due at once, with its own values in some columns.

    The database needs less time for it than for a batch of one: it decodes no list, and compares no times.
    """
    now = dialect.now()
    values = {
        "state": dialect.state("available"),
        "inserted_at": now,
        "scheduled_at": now,
        **_default_values(dialect),
    }
    for column in columns:
        is_document = column in _DOCUMENTS
        value: Any = bindparam(f"own_{column}", type_=Text if is_document else _COLUMNS[column])
        values[column] = dialect.json_document(value) if is_document else value
    return insert(_jobs).values(values).returning(*_RETURNED)


@functools.cache
def _batch_statement(dialect: Dialect, returns_lists: bool) -> Executable:
    """Insert a list of records, and return their rows or, with `returns_lists`, one row of lists."""
    record = dialect.recordset(
        "jobs",
        {"n": BigInteger, "state": Text, "scheduled_at": UTCDateTime, "delay": Float, **_COLUMNS},
    ).c
    now = dialect.now()
    scheduled_at = case(
        (record.delay.is_not(None), dialect.now_plus(record.delay)),
        else_=func.coalesce(record.scheduled_at, now, type_=UTCDateTime),
    )
    # As in `oban.initial_state.state_at`, but by the database's clock.
    state = case(
        (record.state == sql_literal("suspended"), sql_literal("suspended")),
        (scheduled_at > now, sql_literal("scheduled")),
        else_=sql_literal("available"),
    )
    defaults = _default_values(dialect)
    values = [
        func.coalesce(record[column], defaults[column]) if column in defaults else record[column]
        for column in _COLUMNS
    ]
    rows = select(cast(state, StateType), now, scheduled_at, *values).order_by(record.n)
    columns = ["state", "inserted_at", "scheduled_at", *_COLUMNS]
    statement = insert(_jobs).from_select(columns, rows).returning(*_RETURNED)
    if not returns_lists:
        return statement
    # Three lists are decoded in a fifth of the time of a thousand rows. They are JSON, because asyncpg would
    # ask the server about the types of arrays of numbers and times, on each new connection.
    inserted = statement.cte("inserted").c
    due_later = func.nullif(inserted.scheduled_at, inserted.inserted_at)
    return select(
        func.min(inserted.inserted_at).label("inserted_at"),
        *(cast(func.json_agg(column), Text) for column in (inserted.id, due_later, inserted.state)),
    )
