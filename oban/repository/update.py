"""Update fields of jobs."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from inspect import iscoroutinefunction
from typing import Any, Protocol, TypeAlias

from sqlalchemy.orm import attributes
from sqlalchemy.orm.attributes import instance_state

from oban import encoding, encryption, fields, redaction
from oban.database.transaction import Transaction
from oban.errors import InvalidJob, JobNotFound, UniqueConflict
from oban.fields import JobUpdate
from oban.initial_state import state_at
from oban.models import COLUMN_KEYS, Job
from oban.registry import registry
from oban.repository.announce import announce_available, announce_due
from oban.repository.instances import refresh_instances
from oban.repository.selection import Selection, lock
from oban.repository.unique_changes import ChangedJob, find_conflicts, new_key
from oban.repository.write import write_each
from oban.types import ENDED_STATES, PENDING_STATES, JobState
from oban.unique import Unique


class JobUpdateField:
    """Nothing is an instance of it. Type checkers show the name where a dict has a field that no job has."""


class UntypedChanges(Protocol):
    """For type checkers, a `dict[str, Any]`, but no dict whose values have a type.

    If changes could be a `Mapping[str, Any]`, a misspelt field in `{"priorty": 1}` would be no error.
    """

    def __getitem__(self, key: str, /) -> JobUpdateField: ...


Changes: TypeAlias = JobUpdate | UntypedChanges
#: A `JobUpdate`, which can be a plain dict, or a plain function that gets the job and returns one.
JobChanges: TypeAlias = Changes | Callable[[Job], Changes]


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
        UniqueConflict: Another job with the key that a job would get is in the way.
    """
    rows = lock(tx, selection, Job, tx.dialect.now().label("now"), populate_existing=True)
    jobs: dict[int, Job] = {row.id: row.Job for row in rows}
    if missing := [id_ for id_ in selection.ids if id_ not in jobs]:
        raise JobNotFound(missing)
    values = {row.id: _new_values(row.Job, changes, row.now) for row in rows}
    if any(job.unique_key is not None for job in jobs.values()):
        _judge(tx, [jobs[id_] for id_ in selection.found if id_ in jobs], values, rows[0].now)
    write_each(tx, values)
    for id_, job in jobs.items():
        for column, value in values[id_].items():
            attributes.set_committed_value(job, column, value)
    _announce(tx, [jobs[id_] for id_ in jobs if values[id_].keys() & {"queue", "scheduled_at", "state"}])
    refresh_instances(tx, selection, jobs.values(), values)
    order = jobs if selection.statement is not None else selection.ids
    return [selection.instances.get(id_, [jobs[id_]])[0] for id_ in order]


def _judge(tx: Transaction, jobs: Iterable[Job], values: dict[int, dict[str, Any]], now: datetime) -> None:
    """Add their new keys to the values of unique jobs, or raise `UniqueConflict`."""
    changed_jobs = []
    for job in jobs:
        changed = values[job.id]
        rule = None if not isinstance(job.unique_key, str) else Unique.from_rule(job.unique_rule)
        # Another program may have stored a rule that Oban cannot read: the key stays as it is.
        if rule is None or (key := new_key(rule, job, changed)) is None:
            continue
        changed["unique_key"] = key
        state = JobState(changed.get("state", job.state))
        # A job that has finished does not run again unless it is retried, which judges it.
        if state not in ENDED_STATES:
            scheduled_at = changed.get("scheduled_at", job.scheduled_at)
            changed_jobs.append(ChangedJob(job.id, key, rule, state.value, job.inserted_at, scheduled_at))
    conflicts = find_conflicts(tx, changed_jobs, now)
    if conflicts:
        raise UniqueConflict(next(iter(conflicts.values())))


def check_changes(changes: object) -> None:
    """Raise `InvalidJob` for changes that no job can have, before any row is touched."""
    if iscoroutinefunction(changes):
        raise InvalidJob("changes", "must be a plain function: it runs while the row is locked")
    if not callable(changes):
        _check_dict(changes)


def _check_dict(changes: object) -> dict[str, Any]:
    if not isinstance(changes, Mapping):
        raise InvalidJob("changes", f"must be a dict, not {type(changes).__name__}")
    for field in ("unique", "replace"):
        if field in changes:
            raise InvalidJob(field, "is for new jobs and cannot be updated")
    return fields.check(changes)


def _new_values(job: Job, changes: JobChanges, now: datetime) -> dict[str, Any]:
    """The column values to write for a locked job."""
    values = _check_dict(_call(changes, job) if callable(changes) else changes)
    if not values.keys().isdisjoint(("args", "worker")) and (
        encryption.is_used or encryption.is_sealed(job.args)
    ):
        _seal(job, values)
    if "schedule_in" in values:
        values["scheduled_at"] = now + timedelta(seconds=values.pop("schedule_in"))
    _keep_redacted(job, values)
    # A job that waits to run needs an attempt that it has not used. Another program can have stored a text on
    # SQLite.
    least = job.attempt + (job.state in PENDING_STATES) if isinstance(job.attempt, int) else 1
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


def _seal(job: Job, values: dict[str, Any]) -> None:
    """Encrypt new args, and those of a job that gets another worker, if the worker does so."""
    if "args" not in values:
        before, after = encryption.of(job.worker), encryption.of(values["worker"])
        plain = job.args if before is None else before.plain(job.args)
        if after is None and plain is not job.args and values["worker"] in registry:
            problem = f"{values['worker']} cannot decrypt the args of job {job.id}: pass new args as well"
            raise InvalidJob("worker", problem)
        if after is None:
            return
        values["args"] = plain
    changed = {"args": values["args"], "worker": values.get("worker", job.worker)}
    if encryption.is_unreadable(changed["worker"], job.args) and not encryption.is_sealed(changed["args"]):
        problem = f"of job {job.id} are encrypted: import {changed['worker']}, which encrypts the new ones"
        raise InvalidJob("args", problem)
    encryption.seal_values(changed)
    values["args"] = changed["args"]


def _keep_redacted(job: Job, values: dict[str, Any]) -> None:
    """Let the new meta of a job list the redacted fields that its old one has listed."""
    if not values.keys() & {"meta", "worker"}:
        return
    meta = values.get("meta", job.meta)
    names = redaction.names(None, job.meta)
    if names and redaction.META_KEY not in meta:
        meta = {**meta, redaction.META_KEY: sorted(names)}
    marked = {"worker": values.get("worker", job.worker), "meta": meta}
    redaction.mark(marked)
    if marked["meta"] is not job.meta:
        values["meta"] = marked["meta"]


def _call(function: Callable[[Job], Changes], job: Job) -> Changes:
    # The function gets a copy, so that only what it returns can change the row or the session.
    copy = Job._from_row([encoding.copied(getattr(job, key)) for key in COLUMN_KEYS])
    changes = function(copy)
    if instance_state(copy).modified:
        raise InvalidJob("changes", "must be returned as a dict; an attribute was set instead")
    return changes


def _announce(tx: Transaction, moved: list[Job]) -> None:
    """Wake the nodes after the queue, the time or the state of some jobs has changed."""
    announce_available(tx, (job.queue for job in moved if job.state == JobState.AVAILABLE))
    if any(job.state in (JobState.SCHEDULED, JobState.RETRYABLE) for job in moved):
        announce_due(tx)
