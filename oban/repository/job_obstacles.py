"""What can be in the way of a job besides its `Facts`, each read by a statement that few jobs need."""

from typing import NamedTuple

from sqlalchemy import select

from oban import dialects, guard
from oban.database.transaction import Transaction
from oban.dialects.diagnostics import OpenTransaction
from oban.guard import Candidate
from oban.models import Job
from oban.repository.management import CANCEL_STATES
from oban.unique import Unique


class Conflict(NamedTuple):
    """A unique job that is in the way of another one."""

    job_id: int
    state: str
    #: Whether it is out of the way once it is cancelled.
    ends_by_cancel: bool


def conflict(tx: Transaction, job: Job) -> Conflict | None:
    """The job that keeps a unique job from being retried, if there is one."""
    # Another program may have stored a rule that Oban cannot read: its job is retried like any other.
    if not isinstance(job.unique_key, str) or (rule := Unique.from_rule(job.unique_rule)) is None:
        return None
    (other_id,) = guard.find_conflicts(tx, tx.dialect, [Candidate(job.unique_key, rule, job.id)])
    if other_id is None:
        return None
    state = tx.execute(select(Job.state).where(Job.id == other_id)).scalar()
    if state is None:
        return None
    return Conflict(other_id, state.value, state in CANCEL_STATES and "cancelled" not in rule.states)


def locker(tx: Transaction, job_id: int) -> OpenTransaction | None:
    """The transaction that has locked a job, so that no node can fetch it; None if none is known."""
    return dialects.diagnostics(tx.dialect).locker(tx.connection(), tx.schema(), job_id)


def other_schemas(tx: Transaction) -> list[str]:
    """The other schemas that have tables of Oban."""
    found = dialects.diagnostics(tx.dialect).schemas(tx.connection())
    return [schema for schema in found if schema != tx.schema()] if found else []
