"""Judges the unique jobs that a session or an INSERT statement is about to insert."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Executable, Result
from sqlalchemy.exc import DontWrapMixin

from oban import clock, dialects, errors, guard
from oban.guard import Candidate
from oban.initial_state import state_at
from oban.types import JobState
from oban.unique import Unique

#: The columns that can be compared, with what the database fills in.
COMPARED: Mapping[str, Any] = {"worker": None, "queue": "default", "args": {}, "meta": {}}


class UniqueConflict(errors.UniqueConflict, DontWrapMixin):
    """A `UniqueConflict` that reaches the caller as it is, without a `StatementError` around it."""


class _NoTransaction(errors.InvalidTarget, DontWrapMixin):
    """An `InvalidTarget` that reaches the caller as it is."""


class Conflict(NamedTuple):
    """The job that is in the way of a new one: its id, or None for an earlier one of the same list."""

    job_id: int | None


class NewJob(NamedTuple):
    """A unique job that is about to be inserted, with the values that decide which later one it blocks."""

    key: str
    unique: Unique
    values: Mapping[str, Any]

    def blocks(self, rule: Unique) -> bool:
        """Whether it is in the way of a later job with the same key and this rule."""
        due = _time(self.values.get("scheduled_at"))
        state = self.values.get("state") or (state_at(due) if due else JobState.AVAILABLE)
        at = _time(self.values.get(rule.timestamp))
        # The database fills in the current time.
        return rule.counts(state, 0.0 if at is None else (clock.now() - at).total_seconds())


class _Executor:
    """Runs the statements of the guard on a connection, with the schema of the statement that needs them."""

    def __init__(self, connection: Connection, schemas: Mapping[str | None, str | None] | None) -> None:
        self._connection = connection
        self._options = {"schema_translate_map": schemas} if schemas else None

    def execute(self, statement: Executable, parameters: Any = None, /) -> "Result[*tuple[Any, ...]]":
        return self._connection.execute(statement, parameters, execution_options=self._options)


def judge(
    connection: Connection,
    jobs: Sequence[NewJob],
    schemas: Mapping[str | None, str | None] | None = None,
) -> list[Conflict | None]:
    """Claim the keys of new jobs until the end of the transaction; the conflict of each job, or None.

    Stored jobs and earlier ones of the list can be in the way. `schemas` is a `schema_translate_map`, if it
    is not the connection's own. Raises `InvalidTarget` in AUTOCOMMIT mode.
    """
    dialect = dialects.for_bind(connection).for_current_clock()
    if dialect.driver_autocommits(connection) and not dialect.in_transaction(connection):
        raise _NoTransaction(
            "a unique job cannot be inserted in AUTOCOMMIT mode, where nothing keeps a duplicate out until it"
            " is stored; use a connection with transactions, or enqueue the job without session="
        )
    executor = _Executor(connection, schemas)
    guard.claim(executor, dialect, (job.key for job in jobs))
    found = guard.find_conflicts(executor, dialect, [Candidate(job.key, job.unique) for job in jobs])
    conflicts = [None if id_ is None else Conflict(id_) for id_ in found]
    earlier: dict[str, list[NewJob]] = {}
    for n, job in enumerate(jobs):
        if conflicts[n] is None:
            if any(other.blocks(job.unique) for other in earlier.get(job.key, ())):
                conflicts[n] = Conflict(None)
            earlier.setdefault(job.key, []).append(job)
    return conflicts


def _time(value: object) -> datetime | None:
    return value.replace(tzinfo=value.tzinfo or UTC) if isinstance(value, datetime) else None
