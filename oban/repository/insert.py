"""Insert: enqueue one job or many, with one statement per batch."""

from collections.abc import Iterable, Sequence
from typing import Any

from oban import encryption
from oban.database.transaction import Transaction
from oban.errors import InvalidJob, InvalidTarget
from oban.models import Job
from oban.repository.insert_batch import BATCH, encode_document, insert_records, make_record, show_inserted
from oban.repository.insert_statements import DOCUMENTS, single_statement
from oban.repository.unique_insert import any_unique, insert_unique
from oban.types import NEW_STATES, JobState

__all__ = ["BATCH", "collect_jobs", "insert_all"]

#: Keys of a record. A job with one of them may not be due at once.
_TIMING = {"state", "scheduled_at", "delay"}
_ENDED = ("attempted_at", "cancelled_at", "completed_at", "discarded_at")
#: The fields that an insert does not store, because each new job has the same value in them.
_NOT_STORED = ("attempt", "errors", "attempted_by", "inserted_at", *_ENDED)


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
    if state not in NEW_STATES:
        raise InvalidJob("state", f"of a new job is available, scheduled or suspended, not {state}; {advice}")
    if state == JobState.SCHEDULED and values.get("scheduled_at") is None:
        raise InvalidJob("state", "is scheduled, but the job has no scheduled_at or schedule_in")


def insert_all(
    tx: Transaction, jobs: list[Job], attach: bool = False, max_attempts: int | None = None
) -> None:
    """Insert jobs from `collect_jobs`, and set their ids, states and times.

    A unique job that is already there is not inserted: its instance then shows the stored row, with
    `conflict` true. The instances are detached afterwards or, with `attach`, persistent in the transaction's
    session. `max_attempts` is for jobs that do not set it.
    """
    # Jobs that the caller has added to the session were inserted when it was flushed.
    new = [job for job in jobs if not job._is_persistent]
    if encryption.is_used:
        for job in new:
            encryption.seal_values(job.__dict__)
    if any_unique(new):
        insert_unique(tx, new, attach, max_attempts)
        return
    if len(new) == 1 and _insert_one(tx, new[0], attach, max_attempts):
        return
    for start in range(0, len(new), BATCH):
        batch = new[start : start + BATCH]
        _insert_batch(tx, batch, attach, max_attempts, is_only_batch=len(new) <= BATCH)


def _insert_one(tx: Transaction, job: Job, attach: bool, max_attempts: int | None) -> bool:
    """Insert a job that is due at once. For any other one, do nothing and return False."""
    values = job.__dict__
    parameters = {"first_queue": values["queue"], "first_worker": values["worker"]}
    record = make_record(job, values["queue"], values["worker"], max_attempts)
    if not _TIMING.isdisjoint(record):
        return False
    for column, value in record.items():
        parameters[f"own_{column}"] = encode_document(column, value) if column in DOCUMENTS else value
    statement = single_statement(tx.dialect, tuple(record))
    # Not earlier: a job that is refused would count as a failure of the connection.
    tx.autocommit_next()
    rows: Sequence[Any] = tx.rows(statement, parameters)
    ((id_, inserted_at, scheduled_at, state),) = rows
    show_inserted(tx, [job], inserted_at, [(id_, scheduled_at, state)], attach, max_attempts)
    return True


def _insert_batch(
    tx: Transaction, jobs: list[Job], attach: bool, max_attempts: int | None, *, is_only_batch: bool
) -> None:
    first = jobs[0].__dict__
    queue, worker = first["queue"], first["worker"]
    records = [make_record(job, queue, worker, max_attempts) for job in jobs]
    inserted_at, rows = insert_records(tx, queue, worker, records, autocommits=is_only_batch)
    show_inserted(tx, jobs, inserted_at, rows, attach, max_attempts)
