"""Checks and completes jobs when a session inserts or updates them, and judges new unique jobs.

SQLAlchemy inserts rows with one statement as long as they have the same columns, so these functions let all
jobs of a flush have the same.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, event
from sqlalchemy.orm import InstanceState, Session, attributes

from oban import clock, compat, ddl, encoding, encryption, fields, insert_guard
from oban.errors import InvalidJob
from oban.initial_state import state_at
from oban.insert_guard import COMPARED, Conflict, NewJob, UniqueConflict
from oban.types import JobState
from oban.unique import Unique, of_job

#: The times that a job gets by running or by ending, none of which most new jobs have.
_RUN_TIMES = ("attempted_at", "cancelled_at", "completed_at", "discarded_at")


class _Flush(NamedTuple):
    """What the new jobs of a flush have in common, and its unique jobs."""

    has_run_times: bool
    unique: dict[InstanceState[Any], tuple[NewJob, Conflict | None]]


#: The key of each connection's `_Flush` in the notes about a flush.
_FLUSHES = "oban_flushes"


def attach(job_class: type[Any]) -> None:
    """Listen to the inserts and updates of a class of jobs and of its subclasses."""
    for name, listener in (
        ("before_insert", _prepare_insert),
        ("refresh_flush", _show_due_time),
        ("after_insert", _expire_due_time),
        ("before_update", _prepare_update),
    ):
        event.listen(job_class, name, listener, raw=True, propagate=True)


def _prepare_insert(_: Any, connection: Connection, state: InstanceState[Any]) -> None:
    """Check what can have changed in place, and give the row the same columns as the others of the flush."""
    values = state.dict
    _check_again(values)
    if encryption.is_used:
        encryption.seal_values(values)
    flush = _flush_of(state, connection)
    if flush.has_run_times:
        for field in _RUN_TIMES:
            values.setdefault(field, None)
    if clock.moved():
        _set_times(values)
    if (at := values.get("scheduled_at")) is not None:
        # The state can have been assigned after the time.
        if values.get("state") == JobState.AVAILABLE:
            values["state"] = state_at(at)
    elif values.get("inserted_at") is None:
        values["scheduled_at"] = None
    else:
        # The row gets another time than `inserted_at`, which the INSERT returns if it does not send one.
        values.pop("scheduled_at", None)
    if flush.unique:
        _set_unique(values, flush.unique.get(state))
    values.setdefault("unique_key", None)
    values.setdefault("unique_rule", None)


def _set_unique(values: dict[str, Any], judged: tuple[NewJob, Conflict | None] | None) -> None:
    """Set the columns of a unique job, or raise `UniqueConflict` if another job is in its way."""
    if judged is None:
        return
    job, conflict = judged
    if conflict is not None:
        raise UniqueConflict(conflict.job_id)
    values["unique_key"], values["unique_rule"] = job.key, job.unique.rule()


def _set_times(values: dict[str, Any]) -> None:
    """Set the times that the server would fill in by its own clock, while a test has moved the clock."""
    now = clock.now()
    for field in ("inserted_at", "scheduled_at"):
        if values.get(field) is None:
            values[field] = now


def _show_due_time(state: InstanceState[Any], _: Any, __: Any) -> None:
    """Set the time of a job that is due at once: an INSERT does not return a column that it sends.

    This event comes when the INSERT has returned values, before any listener for `after_insert`.
    """
    values = state.dict
    # A listener of the application can have set `inserted_at`.
    is_returned = "inserted_at" in values and "inserted_at" not in state.committed_state
    if is_returned and "scheduled_at" in values and values["scheduled_at"] is None:
        values["scheduled_at"] = values["inserted_at"]


def _expire_due_time(_: Any, __: Any, state: InstanceState[Any]) -> None:
    """Let the next access load the time of a job that is due at once, if the INSERT has not returned it."""
    values = state.dict
    if "scheduled_at" in values and values["scheduled_at"] is None:
        del values["scheduled_at"]
        state.expired_attributes.add("scheduled_at")


def _prepare_update(_: Any, __: Any, state: InstanceState[Any]) -> None:
    _check_again(state.dict)
    if "args" in state.committed_state:
        _refuse_plain(state)
    if encryption.is_used and not state.committed_state.keys().isdisjoint(("args", "worker")):
        _seal_changed(state)


def _refuse_plain(state: InstanceState[Any]) -> None:
    """Raise `InvalidJob` for plain args instead of encrypted ones, if their worker is not known here."""
    worker, args = state.dict.get("worker"), state.dict.get("args")
    if encryption.is_unreadable(worker, state.committed_state["args"]) and not encryption.is_sealed(args):
        raise InvalidJob("args", f"are encrypted: import {worker}, which encrypts the new ones")


def _seal_changed(state: InstanceState[Any]) -> None:
    """Seal the args of a job that are about to be written, or whose worker is now one that encrypts them."""
    values = {key: state.dict.get(key) for key in ("args", "worker")}
    encryption.seal_values(values, state.committed_state.get("args"))
    if values["args"] is not state.dict.get("args"):
        # Through the attribute, because the UPDATE only has columns that were assigned.
        state.manager["args"].impl.set(state, state.dict, values["args"], None)


def _check_again(values: dict[str, Any]) -> None:
    """Check lists and dicts again, which can have been changed in place."""
    for field in ("args", "meta"):
        if (document := values.get(field)) and encoding.encode_document(document) is None:
            values[field] = fields.CHECKS[field](document)
    if values.get("tags"):
        values["tags"] = fields.tags(values["tags"])


def _flush_of(state: InstanceState[Any], connection: Connection) -> _Flush:
    """Return the flush that inserts a job. The first job of a flush lets all of them be read and judged."""
    session = state.session
    if session is None:
        return _begin([state], connection, has_run_times=True)
    if (notes := compat.current_flush(session)) is None:
        return _read(session, state, connection)._replace(has_run_times=True)
    # A session can insert its jobs on several connections.
    flushes: dict[Connection, _Flush] = notes.setdefault(_FLUSHES, {})
    if (flush := flushes.get(connection)) is None:
        flush = flushes[connection] = _read(session, state, connection)
    return flush


def _read(session: Session, state: InstanceState[Any], connection: Connection) -> _Flush:
    mapper = state.mapper.base_mapper
    jobs = [new for new in session.new if isinstance(new, mapper.class_)]
    if (choose := session.connection_callable) is not None:
        jobs = [job for job in jobs if choose(mapper, job) is connection]
    has_run_times = any(job.__dict__.get(field) is not None for job in jobs for field in _RUN_TIMES)
    return _begin(map(attributes.instance_state, jobs), connection, has_run_times)


def _begin(states: Iterable[InstanceState[Any]], connection: Connection, has_run_times: bool) -> _Flush:
    # A session with `twophase` can insert jobs: `session.add` passes no function of Oban's.
    ddl.mute_two_phase(connection)
    return _Flush(has_run_times, _judge(states, connection))


def _judge(
    states: Iterable[InstanceState[Any]], connection: Connection
) -> dict[InstanceState[Any], tuple[NewJob, Conflict | None]]:
    """Judge the unique ones of new jobs with two statements."""
    unique = {state: job for state in states if (job := _unique_job(state)) is not None}
    if not unique:
        return {}
    conflicts = insert_guard.judge(connection, [*unique.values()])
    return dict(zip(unique, zip(unique.values(), conflicts, strict=True), strict=True))


def _unique_job(state: InstanceState[Any]) -> NewJob | None:
    """The key and the rule of a unique job; None for other jobs, and where the application has set a key."""
    values = state.dict
    rule = _rule(values)
    if rule is None:
        return None
    _check_again(values)
    key = rule.key({**COMPARED, **values})
    # A key that was not assigned comes from the job's row, or from a flush that was rolled back.
    is_assigned = "unique_key" in state.committed_state
    return None if is_assigned and values.get("unique_key") != key else NewJob(key, rule, values)


def _rule(values: dict[str, Any]) -> Unique | None:
    if (rule := values.get("unique_rule")) and "_unique" not in values:
        # A copy that `session.merge` has made has columns only.
        return Unique.from_rule(rule)
    return of_job(values)[0]
