"""Cancel, retry, delete and update, with the rules for which states each applies to.

Every function locks the rows in id order first, so that two calls on the same jobs wait for each
other instead of deadlocking, and decides on the locked rows.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from datetime import datetime, timedelta
from inspect import iscoroutinefunction
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, case, delete, select, update
from sqlalchemy.orm import attributes
from sqlalchemy.orm.attributes import instance_state

from oban import fields
from oban.database.transaction import Transaction
from oban.errors import InvalidJob, InvalidTarget, JobNotFound
from oban.models import COLUMN_KEYS, Job, state_at
from oban.repository.instances import refresh, show
from oban.repository.selection import MAX_ID, Selection, lock, lock_statement, look, parse, recheck
from oban.types import JobState

Changes = Mapping[str, Any]
JobChanges = Changes | Callable[[Job], Changes]

CANCELLABLE = (
    JobState.AVAILABLE,
    JobState.SCHEDULED,
    JobState.SUSPENDED,
    JobState.EXECUTING,
    JobState.RETRYABLE,
)
#: Of a `pkill` of ours: the row says it, too. Others, which let the row execute, only ask with theirs.
DONE = {"done": True}
WAITING = tuple(set(CANCELLABLE) - {JobState.EXECUTING})
RETRYABLE = tuple(set(JobState) - {JobState.AVAILABLE, JobState.EXECUTING})
DELETABLE = tuple(set(JobState) - {JobState.EXECUTING})


def get_job(tx: Transaction, id_: int) -> Job | None:
    """The job with this id, or None."""
    known = 0 < id_ <= MAX_ID
    return next(iter(look(tx, select(Job).where(Job.id == id_))), None) if known else None


def list_jobs(tx: Transaction, statement: Select[Any] | None = None) -> list[Job]:
    """The jobs that a `select(Job)` gives; all jobs, in id order, without one."""
    if statement is None:
        statement = select(Job).order_by(Job.id)
    elif not isinstance(statement, Select):
        raise InvalidTarget(f"a select(Job) is needed, not {type(statement).__name__}")
    else:
        parse(statement)
    return look(tx, statement)


def cancel_jobs(tx: Transaction, named: Selection) -> int:
    """Cancel the jobs that have not ended; the number changed.

    Executing jobs too: the row changes now, and the node that runs the job is told.
    """
    rows = lock(tx, named, CANCELLABLE)
    ids = [row.id for row in rows]
    now = tx.dialect.now()
    _set(tx, named, ids, state=_state(tx, JobState.CANCELLED), cancelled_at=now)
    executing = [row.id for row in rows if row.state is JobState.EXECUTING]
    tx.notify("signal", [{"action": "pkill", "job_id": id_, **DONE} for id_ in executing])
    return len(ids)


def retry_jobs(tx: Transaction, named: Selection) -> int:
    """Make the jobs that are neither available nor executing run again now; the number changed.

    `max_attempts` is raised where all attempts are used, and a recorded result is removed.
    """
    dialect = tx.dialect
    rows = lock(tx, named, RETRYABLE)
    ids = [row.id for row in rows]
    used_up = Job.attempt >= Job.max_attempts
    _set(
        tx,
        named,
        ids,
        state=_state(tx, JobState.AVAILABLE),
        scheduled_at=dialect.now(),
        max_attempts=case((used_up, Job.attempt + 1), else_=Job.max_attempts),
        meta=case(
            (dialect.has_key(Job.meta, "recorded"), dialect.without_keys(Job.meta, "recorded", "return")),
            else_=Job.meta,
        ),
        cancelled_at=None,
        completed_at=None,
        discarded_at=None,
    )
    _wake(tx, (row.queue for row in rows))
    return len(ids)


def delete_jobs(tx: Transaction, named: Selection) -> int:
    """Delete the jobs that are not executing; the number deleted."""
    dialect = tx.dialect
    ids = [row.id for row in lock(tx, named, DELETABLE)]
    if ids:
        statement = delete(Job).where(dialect.in_ids(Job.id, dialect.id_list()))
        # Instances of the caller's session become deleted ones.
        tx.orm_execute(statement, {"ids": ids}, synchronize_session="fetch")
    return len(ids)


def update_jobs(tx: Transaction, named: Selection, changes: JobChanges) -> list[Job]:
    """Update some fields; the jobs as they are then, in the order given, each once.

    A callable gets each job as it is under its lock, and returns the changes for it. Only the
    columns named are written. Raises `InvalidJob` for a field that cannot be set or a value that
    it cannot hold, `JobNotFound` for ids without a job, and whatever a callable raises; in each
    case no job is changed.
    """
    dialect = tx.dialect
    statement, ids, seen = lock_statement(tx, named, Job, dialect.now())
    found: list[tuple[Job, datetime, str]] = [
        (row[0], row[1], row[2]) for row in tx.orm_execute(statement, {"ids": ids}, populate_existing=True)
    ]
    meant = recheck(tx, named, seen, {job.id: version for job, _, version in found})
    rows = [(job, now) for job, now, _ in found if job.id in meant]
    locked = {job.id: job for job, _ in rows}
    if missing := [id_ for id_ in named.ids if id_ not in locked]:
        raise JobNotFound(missing)
    decided = {
        job.id: _decide(job, _called(changes, job) if callable(changes) else changes, now)
        for job, now in rows
    }
    _write(tx, decided)
    for id_, values in decided.items():
        for column, value in values.items():
            attributes.set_committed_value(locked[id_], column, value)
    _announce(tx, [(locked[id_], values) for id_, values in decided.items()])
    show(tx, named, locked.values(), decided)
    order = locked if named.statement is not None else named.ids
    return [named.instances.get(id_, [locked[id_]])[0] for id_ in order]


def _called(function: Callable[[Job], Changes], job: Job) -> Changes:
    # A copy, so that nothing but what is returned can reach the row or the tx.session.
    copy = Job._from_row(deepcopy([getattr(job, key) for key in COLUMN_KEYS]))
    changes = function(copy)
    if instance_state(copy).modified:
        raise InvalidJob("changes", "must be returned as a dict; an attribute was set instead")
    return changes


def check(changes: object) -> None:
    """Refuse, before any row is touched, what can be no change: raises `InvalidJob`."""
    if iscoroutinefunction(changes):
        raise InvalidJob("changes", "must be a plain function: it runs while the row is locked")
    if not callable(changes):
        _checked(changes)


def _checked(changes: object) -> dict[str, Any]:
    if not isinstance(changes, Mapping):
        raise InvalidJob("changes", f"must be a dict, not {type(changes).__name__}")
    return fields.check(changes)


def _decide(job: Job, changes: Changes, now: datetime) -> dict[str, Any]:
    """The column values to write for one locked job."""
    values = _checked(changes)
    if "schedule_in" in values:
        values["scheduled_at"] = now + timedelta(seconds=values.pop("schedule_in"))
    # An attempt more has to be left for a job that waits for one.
    least = job.attempt + (job.state in WAITING)
    if values.get("max_attempts", least) < least:
        raise InvalidJob(
            "max_attempts",
            f"must be at least {least}: job {job.id} is {job.state} after {job.attempt} attempts",
        )
    if "scheduled_at" in values and job.state in (JobState.AVAILABLE, JobState.SCHEDULED):
        state = state_at(values["scheduled_at"], now)
        if state is not job.state:
            values["state"] = state
    return values


def _write(tx: Transaction, decided: dict[int, dict[str, Any]]) -> None:
    """One statement per set of columns, executed once for each job that has it."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for id_, values in decided.items():
        if values:
            groups.setdefault(tuple(sorted(values)), []).append({"key": id_, **values})
    table = Job.__table__
    for columns, parameters in groups.items():
        statement = (
            update(table)
            .where(table.c.id == bindparam("key"))
            .values({column: bindparam(column, type_=table.c[column].type) for column in columns})
        )
        tx.execute(statement, parameters)


def _set(tx: Transaction, named: Selection, ids: list[int], **values: Any) -> None:
    if ids:
        dialect = tx.dialect
        statement = update(Job).where(dialect.in_ids(Job.id, dialect.id_list())).values(values)
        tx.orm_execute(statement, {"ids": ids}, synchronize_session=False)
        refresh(tx, named, ids, values)


def _state(tx: Transaction, state: JobState) -> ColumnElement[Any]:
    return tx.dialect.state(state.value)


def _announce(tx: Transaction, updated: list[tuple[Job, dict[str, Any]]]) -> None:
    """Wake the queues in which a job may start now, and the stagers when a due time has moved."""
    moved = {"queue", "scheduled_at", "state"}
    changed = [job for job, values in updated if values.keys() & moved]
    _wake(tx, (job.queue for job in changed if job.state is JobState.AVAILABLE))
    if any(job.state in (JobState.SCHEDULED, JobState.RETRYABLE) for job in changed):
        tx.notify("signal", [{"action": "stage"}])


def _wake(tx: Transaction, queues: Iterable[str]) -> None:
    tx.notify("insert", [{"queue": queue} for queue in sorted(set(queues))])
