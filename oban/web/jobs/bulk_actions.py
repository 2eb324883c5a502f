"""What can be done to many jobs: cancel, retry, delete and update, by the library's own operations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from oban.client import Oban
from oban.errors import UniqueConflict
from oban.filters import Condition
from oban.models import Job
from oban.repository.management import CANCEL_STATES, DELETE_STATES
from oban.repository.retry import RETRY_STATES, RetryOutcome
from oban.types import JobState
from oban.web.access import Permission
from oban.web.jobs.bulk_changes import Changes


@dataclass(frozen=True, slots=True)
class BulkAction:
    """Something that can be done to many jobs.

    Attributes:
        name: Its name in addresses, which is also its verb.
        label: What its button says.
        done: What was done to a job, as a participle.
        permission: What the user needs to have.
        states: The states of jobs that it applies to.
        why: Why it does not apply to a job, or to several, in another state, by state.
        batch: How many jobs a transaction changes at most.
    """

    name: str
    label: str
    done: str
    permission: Permission
    states: Sequence[JobState]
    why: dict[str, tuple[str, str]]
    batch: int = 500


_ENDED = ("it has ended", "they have ended")
ACTIONS = {
    each.name: each
    for each in (
        BulkAction(
            *("cancel", "Cancel", "cancelled", "cancel_jobs", CANCEL_STATES),
            {"completed": _ENDED, "discarded": _ENDED, "cancelled": _ENDED},
        ),
        BulkAction(
            *("retry", "Retry", "retried", "retry_jobs", RETRY_STATES),
            {
                "available": ("it already waits to run", "they already wait to run"),
                "executing": ("it is running", "they are running"),
            },
        ),
        BulkAction(
            *("delete", "Delete", "deleted", "delete_jobs", DELETE_STATES),
            {"executing": ("it is running: cancel it first", "they are running: cancel them first")},
        ),
        BulkAction("update", "Update", "updated", "update_jobs", tuple(JobState), {}, batch=200),
    )
}


@dataclass(slots=True)
class Outcome:
    """What happened to some jobs: how many were changed, and how many had a duplicate in their way."""

    changed: int = 0
    conflicts: int = 0


async def apply(
    oban: Oban,
    action: BulkAction,
    ids: Sequence[int],
    condition: Condition,
    changes: Changes,
    session: AsyncSession,
) -> Outcome:
    """Change those of some jobs for which a condition still holds, in the transaction of the session."""
    statement = select(Job).where(Job.id.in_(ids), condition)
    if action.name == "cancel":
        return Outcome(await oban.cancel_many_jobs(statement, session))
    if action.name == "delete":
        return Outcome(await oban.delete_many_jobs(statement, session))
    if action.name == "retry":
        outcomes: list[RetryOutcome] = []
        changed = await oban.retry_many_jobs(statement, session, outcomes=outcomes)
        # The list is extended when the transaction is committed.
        await session.commit()
        return Outcome(changed, sum(each.outcome == "conflict" for each in outcomes))
    return await _update(oban, ids, condition, changes, session)


async def _update(
    oban: Oban, ids: Sequence[int], condition: Condition, changes: Changes, session: AsyncSession
) -> Outcome:
    statement = select(Job).where(Job.id.in_(ids), condition)
    try:
        async with session.begin_nested():
            changed: list[Any] = await oban.update_many_jobs(statement, changes.of, session)
    except UniqueConflict:
        if len(ids) == 1:
            return Outcome(conflicts=1)
        # The other jobs can be changed: find those that have a duplicate in their way.
        half = len(ids) // 2
        first = await _update(oban, ids[:half], condition, changes, session)
        second = await _update(oban, ids[half:], condition, changes, session)
        return Outcome(first.changed + second.changed, first.conflicts + second.conflicts)
    number = len(changed)
    # The session would keep every job that it has loaded.
    session.expunge_all()
    return Outcome(number)
