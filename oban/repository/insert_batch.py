"""Inserts a list of jobs with one statement, and shows on the instances what was stored."""

import functools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from oban import encoding, fields
from oban.database.transaction import Transaction
from oban.models import DEFAULT_MAX_ATTEMPTS, Job
from oban.repository.announce import announce_available, announce_due
from oban.repository.insert_statements import DOCUMENTS, batch_statement
from oban.types import STATE_BY_VALUE, JobState

#: How many jobs one statement inserts.
BATCH = 1000
#: What every new job has in these columns.
UNSET = {
    **dict.fromkeys(("attempted_at", "cancelled_at", "completed_at", "discarded_at")),
    **dict.fromkeys(("unique_key", "unique_rule")),
}
#: A record for the database: the fields of a job that differ from the defaults.
Record = dict[str, Any]
#: What the database has decided for a new job: id, due time without a zone, and state.
Row = tuple[int, datetime, str]


def insert_records(
    tx: Transaction,
    queue: str,
    worker: str,
    records: list[Record],
    *,
    autocommits: bool = False,
    is_unique: bool = False,
) -> tuple[datetime, list[Row]]:
    """Insert records from `make_record`, made with the same queue and worker; returns the time and the rows.

    With `is_unique`, records can have a `unique_key` and a `unique_rule`. With `autocommits`, this is the
    only statement of the transaction.
    """
    for n, record in enumerate(records):
        record["n"] = n
    returns_lists = tx.dialect.writes_in_cte and len(records) > 1
    statement = batch_statement(tx.dialect, returns_lists, is_unique)
    parameters = {"first_queue": queue, "first_worker": worker, "jobs": encode_records(records)}
    if autocommits:
        tx.autocommit_next()
    result: Sequence[Any] = tx.rows(statement, parameters)
    # Ids are assigned in the order of the jobs, but RETURNING does not guarantee an order.
    if returns_lists:
        ((inserted_at, *lists),) = result
        return inserted_at, sorted(decode_lists(inserted_at, *lists))
    return result[0].inserted_at, sorted((id_, at, state) for id_, _, at, state in result)


def decode_lists(inserted_at: datetime, ids: str, times: str, states: str) -> list[Row]:
    """The rows that `as_lists` has returned, in no particular order."""
    due = (inserted_at if at is None else datetime.fromisoformat(at) for at in encoding.loads(times))
    return list(zip(encoding.loads(ids), due, encoding.loads(states), strict=True))


def make_record(job: Job, queue: str, worker: str, max_attempts: int | None) -> Record:
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


def encode_document(column: str, value: Any) -> str:
    """The JSON of one document of a job."""
    return encoding.dumps_unchecked(value) or encoding.dumps(encoding.json_object(value, column))


def encode_records(records: list[Record]) -> str:
    payload = encoding.dumps_unchecked(records)
    if payload is None:
        for record in records:
            for column in record.keys() & {*DOCUMENTS}:
                record[column] = encoding.json_object(record[column], column)
        payload = encoding.dumps(records)
    return payload


def show_inserted(
    tx: Transaction,
    jobs: list[Job],
    inserted_at: datetime,
    rows: list[Row],
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
    rows: list[Row],
    max_attempts: int | None,
) -> None:
    """Set what the database has decided for each job: id, state, due time and time of insertion.

    `max_attempts` is what was stored for jobs that do not set it; None if that was the default.
    """
    # For most jobs, this is also when they are due.
    now = inserted_at.replace(tzinfo=UTC)
    for job, (id_, scheduled_at, state) in zip(jobs, rows, strict=True):
        values = job.__dict__
        values.update(UNSET)
        values["id"], values["inserted_at"], values["state"] = id_, now, STATE_BY_VALUE[state]
        values["scheduled_at"] = now if scheduled_at == inserted_at else scheduled_at.replace(tzinfo=UTC)
        if max_attempts is not None and not job._sets_max_attempts:
            values["max_attempts"] = max_attempts
        if "_sa_instance_state" in values:
            job._mark_persistent()
