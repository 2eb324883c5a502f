"""Changes a stored unique job to what the new job has in some fields, instead of inserting that one."""

import functools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Executable, Float, Text, bindparam, case, cast, literal_column, update

from oban import fields
from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.dialects.expressions import sql_literal
from oban.models import Job
from oban.repository.announce import announce_available, announce_due
from oban.repository.insert_batch import Record, encode_document
from oban.repository.insert_statements import COLUMNS, DOCUMENTS
from oban.types import PENDING_STATES, JobState, KeyText, StateType, UTCDateTime
from oban.unique import Replacement

_jobs: Any = Job.__table__


def replace(
    tx: Transaction,
    job: Job,
    record: Record,
    max_attempts: int | None,
    job_id: int,
    state: str,
    replacement: Replacement,
) -> Sequence[Any] | None:
    """Change a stored job to what a new one has in the fields that are replaced in its state.

    The key of the stored job stays: the new job has the same, so their compared values are equal. A stored
    job that was updated meanwhile, and has another key by now, is not changed.

    Args:
        tx: A transaction.
        job: The new job.
        record: Its record for an insert.
        max_attempts: What jobs that do not set it have; None for the default.
        job_id: The id of the stored job.
        state: The state in which it was seen.
        replacement: The fields to replace, by state.

    Returns:
        The new row; an empty one if the job does not have that state or that key any more; None if nothing
        is replaced.
    """
    state = JobState(state).value
    if not (changed := replacement.get(state)):
        return None
    parameters: dict[str, Any] = {"job_id": job_id, "key": record["unique_key"]}
    when = "now"
    for field in changed:
        if field == "scheduled_at":
            when = next((timing for timing in ("delay", "scheduled_at") if timing in record), "now")
            if when == "delay":
                parameters["new_delay"] = record["delay"]
            elif when == "scheduled_at":
                parameters["new_scheduled_at"] = job.scheduled_at
        else:
            parameters[f"new_{field}"] = _value(job, field, max_attempts)
    row = next(iter(tx.rows(_statement(tx.dialect, state, changed, when), parameters)), None)
    if row is None:
        return ()
    if not {"queue", "scheduled_at"}.isdisjoint(changed):
        if row.state == JobState.AVAILABLE:
            announce_available(tx, [row.queue])
        elif row.state in (JobState.SCHEDULED, JobState.RETRYABLE):
            announce_due(tx)
    return row


def _value(job: Job, field: str, max_attempts: int | None) -> Any:
    value = job.__dict__[field]
    if field in DOCUMENTS:
        return encode_document(field, value)
    if field == "tags":
        return fields.tags(value)
    if field == "max_attempts" and max_attempts is not None and not job._sets_max_attempts:
        return max_attempts
    return value


@functools.cache
def _statement(dialect: Dialect, state: str, changed: tuple[str, ...], when: str) -> Executable:
    """Change fields of a job that is in a state; `when` names the parameter that has the new time."""
    values: dict[str, Any] = {}
    for field in changed:
        if field == "scheduled_at":
            at = _time(dialect, when)
            values[field] = at
            if state in (JobState.AVAILABLE, JobState.SCHEDULED):
                new_state = case(
                    (at > dialect.now(), sql_literal("scheduled")), else_=sql_literal("available")
                )
                values["state"] = cast(new_state, StateType)
        elif field in DOCUMENTS:
            values[field] = dialect.json_document(bindparam(f"new_{field}", type_=Text))
        else:
            values[field] = bindparam(f"new_{field}", type_=COLUMNS[field])
    if "max_attempts" in values:
        # A job that waits to run needs an attempt that it has not used.
        least = _jobs.c.attempt + literal_column("1" if state in PENDING_STATES else "0")
        most = values["max_attempts"]
        values["max_attempts"] = case((most < least, least), else_=most)
    return (
        update(_jobs)
        .where(
            _jobs.c.id == bindparam("job_id", type_=BigInteger),
            dialect.unindexed_state(_jobs.c.state) == sql_literal(state),
            # Not `=`, for which the planner may read all jobs of the key.
            _jobs.c.unique_key.is_not_distinct_from(bindparam("key", type_=KeyText)),
        )
        .values(values)
        .returning(*_jobs.c)
    )


def _time(dialect: Dialect, when: str) -> Any:
    if when == "delay":
        return dialect.now_plus(bindparam("new_delay", type_=Float))
    if when == "scheduled_at":
        return bindparam("new_scheduled_at", type_=UTCDateTime)
    return dialect.now()
