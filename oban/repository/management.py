"""Get, cancel, retry, delete and update jobs, with the states that each of these applies to."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from inspect import iscoroutinefunction
from typing import Any, Protocol, TypeAlias

from sqlalchemy import Row, bindparam, case, delete, select, update
from sqlalchemy.orm import attributes
from sqlalchemy.orm.attributes import instance_state

from oban import encoding, fields
from oban.database.transaction import Transaction
from oban.errors import InvalidJob, JobNotFound
from oban.fields import JobUpdate
from oban.initial_state import state_at
from oban.models import COLUMN_KEYS, Job
from oban.repository.announce import announce_available, announce_cancelled, announce_due
from oban.repository.instances import refresh_instances, reload_instances
from oban.repository.selection import MAX_ID, Selection, load_jobs, lock
from oban.types import JobState


class JobUpdateField:
    """Nothing is an instance of it. Type checkers show the name where a dict has a field that no job has."""


class UntypedChanges(Protocol):
    """For type checkers, a `dict[str, Any]`, but no dict whose values have a type.

    If changes could be a `Mapping[str, Any]`, a misspelt field in `{"priorty": 1}` would be no error.
    """

    def __getitem__(self, key: str, /) -> JobUpdateField: ...


Changes: TypeAlias = JobUpdate | UntypedChanges
JobChanges: TypeAlias = Changes | Callable[[Job], Changes]

#: The states in which a job waits to run.
PENDING_STATES = (JobState.AVAILABLE, JobState.SCHEDULED, JobState.SUSPENDED, JobState.RETRYABLE)
#: The states that cancel, retry and delete apply to; update applies to all.
CANCEL_STATES = (*PENDING_STATES, JobState.EXECUTING)
RETRY_STATES = tuple(set(JobState) - {JobState.AVAILABLE, JobState.EXECUTING})
DELETE_STATES = tuple(set(JobState) - {JobState.EXECUTING})


def get_job(tx: Transaction, job_id: int) -> Job | None:
    """The job with an id, or None."""
    if not 0 < job_id <= MAX_ID:
        return None
    return next(iter(load_jobs(tx, select(Job).where(Job.id == job_id))), None)


def cancel_jobs(tx: Transaction, selection: Selection) -> int:
    """Cancel the selected jobs that have not finished; returns the number changed.

    The row of an executing job changes as well, and a notification goes to the node that runs it.
    """
    dialect = tx.dialect
    rows = lock(tx, selection, Job.state, states=CANCEL_STATES)
    _update(tx, selection, rows, state=dialect.state("cancelled"), cancelled_at=dialect.now())
    announce_cancelled(tx, [row.id for row in rows if row.state == JobState.EXECUTING])
    return len(rows)


def retry_jobs(tx: Transaction, selection: Selection, changes: Mapping[str, Any] | None = None) -> int:
    """Make the selected jobs that are neither available nor executing available; returns the number changed.

    `max_attempts` is raised where no attempt is left, and a recorded value is removed. A job that has used as
    many attempts as the column can store is left unchanged.

    Args:
        tx: A transaction.
        selection: The jobs.
        changes: A queue, a priority and a time, all checked. With a future time, the jobs become scheduled.
    """
    dialect = tx.dialect
    locked = lock(tx, selection, Job.queue, Job.attempt, dialect.now().label("now"), states=RETRY_STATES)
    # SQLite stores values of any type in a column, if another program writes them.
    rows = [
        row for row in locked if isinstance(row.attempt, (int, float)) and row.attempt < fields.MAX_ATTEMPTS
    ]
    if not rows:
        return 0
    values = {"scheduled_at": dialect.now(), **(changes or {})}
    state, now = JobState.AVAILABLE, rows[0].now
    if "schedule_in" in values:
        values["scheduled_at"] = now + timedelta(seconds=values.pop("schedule_in"))
    if isinstance(values["scheduled_at"], datetime):
        state = state_at(values["scheduled_at"], now)
    is_recorded = dialect.has_key(Job.meta, "recorded")
    _update(
        tx,
        selection,
        rows,
        state=dialect.state(state.value),
        max_attempts=case((Job.attempt >= Job.max_attempts, Job.attempt + 1), else_=Job.max_attempts),
        meta=case((is_recorded, dialect.without_keys(Job.meta, "recorded", "return")), else_=Job.meta),
        cancelled_at=None,
        completed_at=None,
        discarded_at=None,
        **values,
    )
    if state == JobState.AVAILABLE:
        announce_available(tx, [values["queue"]] if "queue" in values else (row.queue for row in rows))
    else:
        announce_due(tx, max(0.0, (values["scheduled_at"] - now).total_seconds()))
    return len(rows)


def delete_jobs(tx: Transaction, selection: Selection) -> int:
    """Delete the selected jobs that are not executing; returns the number deleted."""
    dialect = tx.dialect
    ids = [row.id for row in lock(tx, selection, states=DELETE_STATES)]
    if ids:
        statement = delete(Job).where(dialect.in_ids(Job.id, dialect.id_list()))
        # "fetch" makes instances in the caller's session deleted ones.
        tx.orm_execute(statement, {"ids": ids}, synchronize_session="fetch")
    return len(ids)


def update_jobs(tx: Transaction, selection: Selection, changes: JobChanges) -> list[Job]:
    """Change fields of the selected jobs, all or none.

    Args:
        tx: A transaction.
        selection: The jobs.
        changes: A dict, or a function that gets each job as it is under its lock and returns a dict. No other
            columns are written.

    Returns:
        The jobs as they are afterwards, each once: in the order of the call, or of their ids for a statement.

    Raises:
        InvalidJob: A field cannot be set, or has a wrong value.
        JobNotFound: Some ids belong to no job.
    """
    rows = lock(tx, selection, Job, tx.dialect.now().label("now"), populate_existing=True)
    jobs: dict[int, Job] = {row.id: row.Job for row in rows}
    if missing := [id_ for id_ in selection.ids if id_ not in jobs]:
        raise JobNotFound(missing)
    values = {row.id: _new_values(row.Job, changes, row.now) for row in rows}
    _write(tx, values)
    for id_, job in jobs.items():
        for column, value in values[id_].items():
            attributes.set_committed_value(job, column, value)
    _announce(tx, [jobs[id_] for id_ in jobs if values[id_].keys() & {"queue", "scheduled_at", "state"}])
    refresh_instances(tx, selection, jobs.values(), values)
    order = jobs if selection.statement is not None else selection.ids
    return [selection.instances.get(id_, [jobs[id_]])[0] for id_ in order]


def check_changes(changes: object) -> None:
    """Raise `InvalidJob` for changes that no job can have, before any row is touched."""
    if iscoroutinefunction(changes):
        raise InvalidJob("changes", "must be a plain function: it runs while the row is locked")
    if not callable(changes):
        _check_dict(changes)


def _check_dict(changes: object) -> dict[str, Any]:
    if not isinstance(changes, Mapping):
        raise InvalidJob("changes", f"must be a dict, not {type(changes).__name__}")
    return fields.check(changes)


def _new_values(job: Job, changes: JobChanges, now: datetime) -> dict[str, Any]:
    """The column values to write for a locked job."""
    values = _check_dict(_call(changes, job) if callable(changes) else changes)
    if "schedule_in" in values:
        values["scheduled_at"] = now + timedelta(seconds=values.pop("schedule_in"))
    # A job that waits to run needs an attempt that it has not used.
    least = job.attempt + (job.state in PENDING_STATES)
    if values.get("max_attempts", least) < least:
        raise InvalidJob(
            "max_attempts",
            f"must be at least {least}: job {job.id} is {job.state} after {job.attempt} attempts",
        )
    if "scheduled_at" in values and job.state in (JobState.AVAILABLE, JobState.SCHEDULED):
        state = state_at(values["scheduled_at"], now)
        if state != job.state:
            values["state"] = state
    return values


def _call(function: Callable[[Job], Changes], job: Job) -> Changes:
    # The function gets a copy, so that only what it returns can change the row or the session.
    copy = Job._from_row([encoding.copied(getattr(job, key)) for key in COLUMN_KEYS])
    changes = function(copy)
    if instance_state(copy).modified:
        raise InvalidJob("changes", "must be returned as a dict; an attribute was set instead")
    return changes


def _write(tx: Transaction, values: dict[int, dict[str, Any]]) -> None:
    """Write column values by id, with one statement for all jobs that get the same columns."""
    parameters: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for id_, changed in values.items():
        if changed:
            parameters.setdefault(tuple(sorted(changed)), []).append({"key": id_, **changed})
    table = Job.__table__
    for columns, rows in parameters.items():
        statement = (
            update(table)
            .where(table.c.id == bindparam("key"))
            .values({column: bindparam(column, type_=table.c[column].type) for column in columns})
        )
        tx.execute(statement, rows)


def _update(tx: Transaction, selection: Selection, rows: Sequence[Row[Any]], **values: Any) -> None:
    """Write the same column expressions to all of some locked rows."""
    if ids := [row.id for row in rows]:
        dialect = tx.dialect
        statement = update(Job).where(dialect.in_ids(Job.id, dialect.id_list())).values(values)
        tx.orm_execute(statement, {"ids": ids}, synchronize_session=False)
        reload_instances(tx, selection, ids, values)


def _announce(tx: Transaction, moved: list[Job]) -> None:
    """Wake the nodes after the queue, the time or the state of some jobs has changed."""
    announce_available(tx, (job.queue for job in moved if job.state == JobState.AVAILABLE))
    if any(job.state in (JobState.SCHEDULED, JobState.RETRYABLE) for job in moved):
        announce_due(tx)
