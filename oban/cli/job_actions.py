"""Carries out what a command does to many jobs: the plan, the confirmation, the change and the report."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import click
from sqlalchemy.ext.asyncio import AsyncSession

from oban.amounts import counted
from oban.cli import output
from oban.cli.documents import DOCUMENTS
from oban.cli.instance import Instance
from oban.cli.job_documents import Changes, LeftAlone
from oban.cli.job_filters import Choice
from oban.client import Oban
from oban.fields import MAX_ATTEMPTS
from oban.repository.management import CANCEL_STATES, DELETE_STATES
from oban.repository.retry import RETRY_STATES, RetryOutcome
from oban.types import STATES, JobState

#: How many jobs that were left alone are named.
_NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a command does to jobs."""

    verb: str
    done: str
    #: The states that it applies to; it leaves jobs in others alone.
    states: Sequence[JobState]
    #: What the advice about jobs that were left alone is.
    advice: str = ""


CANCEL = Action(verb="cancel", done="cancelled", states=CANCEL_STATES)
RETRY = Action(verb="retry", done="retried", states=RETRY_STATES)
DELETE = Action(verb="delete", done="deleted", states=DELETE_STATES, advice="; cancel it first")
UPDATE = Action(verb="update", done="updated", states=tuple(JobState))


def run(
    action: Action,
    change: Callable[[Oban, Choice], Awaitable[Changes]],
    *,
    instance: Instance,
    choice: Choice,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Show what would change, ask, change it, and say what was changed."""
    if dry_run or not (choice.only_ids or yes):
        plan = instance.call(lambda oban: _plan(oban, action, choice))
        if dry_run or plan.changed == 0:
            _report(action, plan, choice, as_json)
            return
        if plan.would_leave:
            click.echo(f"These are left alone: {_by_state(plan.would_leave)}.", err=True)
        question = (
            f"{action.verb.capitalize()} {counted(plan.changed, 'job')} ({_by_state(plan.would_change)})?"
        )
        output.confirm(question, yes=yes)
    _report(action, instance.call(lambda oban: change(oban, choice)), choice, as_json)


async def _plan(oban: Oban, action: Action, choice: Choice) -> Changes:
    """What an action would do, as far as the states of the jobs decide it."""
    counts: Counter[str] = Counter()
    for by_state in (await oban.count_jobs(choice.statement())).values():
        counts.update({str(state): number for state, number in by_state.items()})
    applies = {state.value for state in action.states}
    found = {state: counts[state] for state in STATES if counts[state]}
    would_change = {state: number for state, number in found.items() if state in applies}
    left_alone = []
    if choice.only_ids:
        states = {job.id: job.state for job in await oban.list_jobs(choice.statement())}
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


async def each(oban: Oban, choice: Choice, change: Callable[..., Awaitable[bool]]) -> Changes:
    """Change jobs by their ids in one transaction, in the order of ids, as statements lock them."""
    changed, left_alone = 0, []
    async with AsyncSession(oban.engine) as session, session.begin():
        for id_ in sorted(choice.ids):
            if await change(id_, session):
                changed += 1
            else:
                job = await oban.get_job(id_, session)
                left_alone.append(_left(id_, None if job is None else job.state))
    return Changes(dry_run=False, changed=changed, left_alone=left_alone)


def _left(id_: int, state: JobState | None) -> LeftAlone:
    if state is None:
        return LeftAlone(id=id_, reason="missing")
    return LeftAlone(id=id_, reason="state", state=state.value)


def left_by_retry(outcome: RetryOutcome, states: Mapping[int, JobState]) -> LeftAlone:
    if outcome.outcome == "conflict":
        return LeftAlone(id=outcome.id, reason="conflict", other_id=outcome.other_id)
    state = states.get(outcome.id)
    if state in RETRY_STATES:
        return LeftAlone(id=outcome.id, reason="attempts")
    return _left(outcome.id, state)


def _report(action: Action, changes: Changes, choice: Choice, as_json: bool) -> None:
    if as_json:
        output.document(DOCUMENTS[f"jobs {action.verb}"], changes)
    else:
        _tell(action, changes, choice)
    if changes.changed == 0:
        raise click.exceptions.Exit(1)


def _tell(action: Action, changes: Changes, choice: Choice) -> None:
    if changes.dry_run:
        by_state = f": {_by_state(changes.would_change)}" if changes.would_change else ""
        click.echo(f"{counted(changes.changed, 'job')} would be {action.done}{by_state}.")
        if changes.would_leave:
            click.echo(
                f"{counted(sum(changes.would_leave.values()), 'job')} would be left alone:"
                f" {_by_state(changes.would_leave)}."
            )
    elif changes.changed:
        was = "was" if changes.changed == 1 else "were"
        click.echo(f"{counted(changes.changed, 'job')} {was} {action.done}.")
    else:
        click.echo(f"No job was {action.done}.", err=True)
    for left in changes.left_alone[:_NAMED]:
        click.echo(_why(action, left), err=True)
    if (more := len(changes.left_alone) - _NAMED) > 0:
        click.echo(f"{more:,} more were left alone.", err=True)


def _why(action: Action, left: LeftAlone) -> str:
    match left.reason:
        case "missing":
            return f"There is no job {left.id}."
        case "conflict":
            return f"Job {left.id} is left alone: it is unique, and job {left.other_id} is in its way."
        case "attempts":
            most = f"{MAX_ATTEMPTS:,} attempts, the most that there can be"
            return f"Job {left.id} is left alone: it has used {most}."
    return f"Job {left.id} is left alone: it is {left.state}{action.advice}."


def _by_state(counts: Mapping[str, int] | None) -> str:
    return ", ".join(f"{number:,} {state}" for state, number in (counts or {}).items())
