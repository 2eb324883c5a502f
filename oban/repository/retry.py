"""Retry jobs."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from sqlalchemy import Row, case, select

from oban import fields
from oban.database.transaction import Transaction
from oban.initial_state import state_at
from oban.models import Job
from oban.repository.announce import announce_available, announce_due
from oban.repository.selection import MAX_ID, Selection, lock
from oban.repository.unique_changes import ChangedJob, find_conflicts, new_key
from oban.repository.write import write_each, write_same
from oban.types import JobState
from oban.unique import Unique

RETRY_STATES = tuple(set(JobState) - {JobState.AVAILABLE, JobState.EXECUTING})


class RetryOutcome(NamedTuple):
    """What a retry did with one of the jobs that the call named."""

    id: int
    #: "changed"; "unchanged", as its state or its number of attempts does not allow a retry; "missing", as
    #: there is no such job; or "conflict", as another job with the same key is in the way.
    outcome: Literal["changed", "unchanged", "missing", "conflict"]
    #: The job that is in the way, for a conflict.
    other_id: int | None = None


def retry_jobs(
    tx: Transaction,
    selection: Selection,
    changes: Mapping[str, Any] | None = None,
    outcomes: list[RetryOutcome] | None = None,
) -> int:
    """Make the selected jobs that are neither available nor executing available; returns the number changed.

    `max_attempts` is raised where no attempt is left, and a recorded value is removed. A job that has used as
    many attempts as the column can store is left unchanged, and so is a unique job with another one in its
    way.

    Args:
        tx: A transaction.
        selection: The jobs.
        changes: A queue, a priority and a time, all checked. With a future time, the jobs become scheduled.
        outcomes: A list that is extended, after the commit if the transaction is Oban's own, by the outcome
            of each selected job, in the order of the call or of the ids.
    """
    dialect = tx.dialect
    columns = (Job.queue, Job.attempt, Job.unique_key, dialect.now().label("now"))
    locked = lock(tx, selection, *columns, states=RETRY_STATES, claims_keys=True)
    # SQLite stores values of any type in a column, if another program writes them.
    rows: Sequence[Row[Any]] = [
        row for row in locked if isinstance(row.attempt, (int, float)) and row.attempt < fields.MAX_ATTEMPTS
    ]
    values = {"scheduled_at": dialect.now(), **(changes or {})}
    state, conflicts = JobState.AVAILABLE, {}
    if rows:
        now = rows[0].now
        if "schedule_in" in values:
            values["scheduled_at"] = now + timedelta(seconds=values.pop("schedule_in"))
        if isinstance(values["scheduled_at"], datetime):
            state = state_at(values["scheduled_at"], now)
        conflicts = _judge(tx, selection, rows, values, state)
        rows = [row for row in rows if row.id not in conflicts]
    if outcomes is not None:
        found = _outcomes(tx, selection, {row.id for row in rows}, conflicts)
        tx.after_commit(lambda: outcomes.extend(found))
    if not rows:
        return 0
    is_recorded = dialect.has_key(Job.meta, "recorded")
    write_same(
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
        announce_due(tx, max(0.0, (values["scheduled_at"] - rows[0].now).total_seconds()))
    return len(rows)


def _judge(
    tx: Transaction,
    selection: Selection,
    rows: Sequence[Row[Any]],
    values: Mapping[str, Any],
    state: JobState,
) -> dict[int, int]:
    """Return the jobs that cannot be retried, each with the job in its way; write the new keys of others."""
    ids = [row.id for row in rows if isinstance(row.unique_key, str)]
    if not ids:
        return {}
    now = rows[0].now
    scheduled_at = values["scheduled_at"] if isinstance(values["scheduled_at"], datetime) else now
    changed_jobs, new_keys = [], {}
    for job in _load_unique(tx, selection, ids):
        # Another program may have stored a rule that Oban cannot read: its job is retried like any other.
        if (rule := Unique.from_rule(job.unique_rule)) is None:
            continue
        if key := new_key(rule, job, values):
            new_keys[job.id] = {"unique_key": key}
        changed_jobs.append(
            ChangedJob(job.id, key or job.unique_key, rule, state.value, job.inserted_at, scheduled_at)
        )
    conflicts = find_conflicts(tx, changed_jobs, now, selection.claimed)
    write_each(tx, {id_: changed for id_, changed in new_keys.items() if id_ not in conflicts})
    return conflicts


def _load_unique(tx: Transaction, selection: Selection, ids: list[int]) -> list[Row[Any]]:
    """What the keys and the rules of locked jobs need, in the order of the call."""
    dialect, table = tx.dialect, Job.__table__
    columns = ("id", "unique_key", "unique_rule", "worker", "queue", "args", "meta", "inserted_at")
    statement = select(*(table.c[name] for name in columns)).where(
        dialect.in_ids(table.c.id, dialect.id_list())
    )
    by_id = {row.id: row for row in tx.execute(statement, {"ids": ids})}
    return [by_id[id_] for id_ in selection.found if id_ in by_id]


def _outcomes(
    tx: Transaction, selection: Selection, changed: set[int], conflicts: Mapping[int, int]
) -> list[RetryOutcome]:
    rest = [id_ for id_ in selection.found if id_ not in changed and id_ not in conflicts]
    existing: set[int] = set()
    if ids := [id_ for id_ in rest if 0 < id_ <= MAX_ID]:
        dialect, table = tx.dialect, Job.__table__
        statement = select(table.c.id).where(dialect.in_ids(table.c.id, dialect.id_list()))
        existing = set(tx.execute(statement, {"ids": ids}).scalars())

    def outcome(id_: int) -> RetryOutcome:
        if id_ in changed:
            return RetryOutcome(id_, "changed")
        if id_ in conflicts:
            return RetryOutcome(id_, "conflict", conflicts[id_])
        return RetryOutcome(id_, "unchanged" if id_ in existing else "missing")

    return [outcome(id_) for id_ in selection.found]
