"""Get, cancel and delete jobs, with the states that a call applies to."""

from sqlalchemy import delete, select

from oban.database.transaction import Transaction
from oban.models import Job
from oban.repository.announce import announce_cancelled
from oban.repository.attempts import add_cancelled, delete_attempts
from oban.repository.selection import MAX_ID, Selection, load_jobs, lock
from oban.repository.write import write_same
from oban.types import PENDING_STATES, JobState

#: The states that cancel and delete apply to.
CANCEL_STATES = (*PENDING_STATES, JobState.EXECUTING)
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
    write_same(tx, selection, rows, state=dialect.state("cancelled"), cancelled_at=dialect.now())
    executing = [row.id for row in rows if row.state == JobState.EXECUTING]
    add_cancelled(tx, executing)
    announce_cancelled(tx, executing)
    return len(rows)


def delete_jobs(tx: Transaction, selection: Selection) -> int:
    """Delete the selected jobs that are not executing, and their attempts; returns the number deleted."""
    dialect = tx.dialect
    ids = [row.id for row in lock(tx, selection, states=DELETE_STATES)]
    if ids:
        statement = delete(Job).where(dialect.in_ids(Job.id, dialect.id_list()))
        # "fetch" makes instances in the caller's session deleted ones.
        tx.orm_execute(statement, {"ids": ids}, synchronize_session="fetch")
        delete_attempts(tx, ids)
    return len(ids)
