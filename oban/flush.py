"""Checks and completes jobs when a session inserts or updates them.

SQLAlchemy inserts rows with one statement as long as they have the same columns, so these functions let all
jobs of a flush have the same.
"""

from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, event
from sqlalchemy.orm import InstanceState

from oban import clock, compat, ddl, encoding, fields
from oban.initial_state import state_at
from oban.types import JobState

#: The times that a job gets by running or by ending, none of which most new jobs have.
_RUN_TIMES = ("attempted_at", "cancelled_at", "completed_at", "discarded_at")
_has_run_times_by_flush: WeakKeyDictionary[object, bool] = WeakKeyDictionary()


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
    if _has_run_times(state):
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
    # A session with `twophase` can insert jobs: `session.add` passes no function of Oban's.
    ddl.mute_two_phase(connection)


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


def _check_again(values: dict[str, Any]) -> None:
    """Check lists and dicts again, which can have been changed in place."""
    for field in ("args", "meta"):
        if (document := values.get(field)) and encoding.encode_document(document) is None:
            values[field] = fields.CHECKS[field](document)
    if values.get("tags"):
        values["tags"] = fields.tags(values["tags"])


def _has_run_times(state: InstanceState[Any]) -> bool:
    """Return whether a job of the flush that inserts this one has one of these times."""
    session = state.session
    flush = None if session is None else compat.current_flush(session)
    if session is None or flush is None:
        return True
    has_run_times = _has_run_times_by_flush.get(flush)
    if has_run_times is None:
        job_class = state.mapper.base_mapper.class_
        jobs = [new.__dict__ for new in session.new if isinstance(new, job_class)]
        has_run_times = any(values.get(field) is not None for values in jobs for field in _RUN_TIMES)
        _has_run_times_by_flush[flush] = has_run_times
    return has_run_times
