"""What can be done to many jobs: the plan of a change, and the change itself, as `Changes`."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from oban.client import Oban
from oban.documents.choice import Choice
from oban.documents.jobs import Changes, LeftAlone
from oban.models import Job
from oban.repository.management import CANCEL_STATES, DELETE_STATES
from oban.repository.retry import RETRY_STATES, RetryOutcome
from oban.types import STATES, JobState

#: Of how many jobs a statement reads the states.
_BATCH = 1000
Verb = Literal["cancel", "retry", "delete", "update"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What can be done to jobs.

    Attributes:
        verb: Its name.
        done: The participle, for sentences.
        states: The states that it applies to; jobs in others are left alone.
        advice: The end of a sentence about a job that was left alone.
    """

    verb: Verb
    done: str
    states: Sequence[JobState]
    advice: str = ""


CANCEL = Action(verb="cancel", done="cancelled", states=CANCEL_STATES)
RETRY = Action(verb="retry", done="retried", states=RETRY_STATES)
DELETE = Action(verb="delete", done="deleted", states=DELETE_STATES, advice="; cancel it first")
UPDATE = Action(verb="update", done="updated", states=tuple(JobState))


async def plan(oban: Oban, action: Action, choice: Choice, session: AsyncSession | None = None) -> Changes:
    """What an action would do, as far as the states of the jobs decide it."""
    counts: Counter[str] = Counter()
    for by_state in (await oban.count_jobs(choice.statement(), session)).values():
        counts.update({str(state): number for state, number in by_state.items()})
    applies = {state.value for state in action.states}
    found = {state: counts[state] for state in STATES if counts[state]}
    would_change = {state: number for state, number in found.items() if state in applies}
    left_alone = []
    if choice.only_ids:
        async with _transaction(oban, session) as joined:
            states = await _states(joined, choice.ids)
        left_alone = [
            _left(id_, states.get(id_)) for id_ in choice.ids if str(states.get(id_)) not in applies
        ]
    return Changes(
        dry_run=True,
        changed=sum(would_change.values()),
        would_change=would_change,
        would_leave={state: number for state, number in found.items() if state not in applies},
        left_alone=left_alone,
    )


async def change(
    oban: Oban,
    action: Action,
    choice: Choice,
    changes: Mapping[str, Any],
    session: AsyncSession | None = None,
) -> Changes:
    """Do it.

    Args:
        oban: The client.
        action: What to do.
        choice: The jobs.
        changes: The new values of fields, which only `RETRY` and `UPDATE` have.
        session: The caller's session (default: a transaction of its own).
    """
    match action.verb:
        case "cancel":
            if choice.only_ids:
                return await _by_ids(oban, choice, oban.cancel_many_jobs, session)
            number = await oban.cancel_many_jobs(choice.statement(), session, everything=choice.everything)
        case "delete":
            if choice.only_ids:
                return await _by_ids(oban, choice, oban.delete_many_jobs, session)
            number = await oban.delete_many_jobs(choice.statement(), session, everything=choice.everything)
        case "retry":
            return await _retry(oban, choice, changes, session)
        case "update":
            jobs: Any = list(choice.ids) if choice.only_ids else choice.statement()
            fields: Any = dict(changes)
            number = len(await oban.update_many_jobs(jobs, fields, session, everything=choice.everything))
    return Changes(dry_run=False, changed=number)


async def _by_ids(
    oban: Oban, choice: Choice, call: Callable[..., Awaitable[int]], session: AsyncSession | None
) -> Changes:
    """Cancel or delete jobs by their ids in one transaction, and find out which were left alone."""
    async with _transaction(oban, session) as joined:
        before = await _states(joined, choice.ids)
        changed = await call(list(choice.ids), joined)
        after = await _states(joined, choice.ids)
    left_alone = []
    for id_ in sorted(choice.ids):
        state = after.get(id_)
        was_cancelled = state == JobState.CANCELLED and before.get(id_) != JobState.CANCELLED
        was_deleted = id_ in before and id_ not in after
        if not (was_cancelled or was_deleted):
            left_alone.append(_left(id_, state))
    return Changes(dry_run=False, changed=changed, left_alone=left_alone)


async def _states(session: AsyncSession, ids: Sequence[int]) -> dict[int, JobState]:
    """The states of jobs, by their ids."""
    found: dict[int, JobState] = {}
    for start in range(0, len(ids), _BATCH):
        part = Job.id.in_(ids[start : start + _BATCH])
        rows = await session.execute(select(Job.id, Job.state).where(part))
        found.update((row.id, row.state) for row in rows)
    return found


@asynccontextmanager
async def _transaction(oban: Oban, session: AsyncSession | None) -> AsyncIterator[AsyncSession]:
    """The session of the caller, or a transaction of its own."""
    if session is not None:
        yield session
        return
    async with AsyncSession(oban.engine) as own, own.begin():
        yield own


async def _retry(
    oban: Oban, choice: Choice, changes: Mapping[str, Any], session: AsyncSession | None
) -> Changes:
    outcomes: list[RetryOutcome] = []
    jobs: Any = list(choice.ids) if choice.only_ids else choice.statement()
    options: Any = dict(changes)
    number = await oban.retry_many_jobs(
        jobs, session, everything=choice.everything, outcomes=outcomes, **options
    )
    named = [
        outcome
        for outcome in outcomes
        if outcome.outcome == "conflict" or (choice.only_ids and outcome.outcome != "changed")
    ]
    unchanged = [outcome.id for outcome in named if outcome.outcome == "unchanged"]
    states = {id_: job.state for id_ in unchanged if (job := await oban.get_job(id_, session)) is not None}
    left_alone = [_left_by_retry(outcome, states) for outcome in named]
    return Changes(dry_run=False, changed=number, left_alone=left_alone)


def _left(id_: int, state: JobState | None) -> LeftAlone:
    if state is None:
        return LeftAlone(id=id_, reason="missing")
    return LeftAlone(id=id_, reason="state", state=state.value)


def _left_by_retry(outcome: RetryOutcome, states: Mapping[int, JobState]) -> LeftAlone:
    if outcome.outcome == "conflict":
        return LeftAlone(id=outcome.id, reason="conflict", other_id=outcome.other_id)
    state = states.get(outcome.id)
    if state in RETRY_STATES:
        return LeftAlone(id=outcome.id, reason="attempts")
    return _left(outcome.id, state)
