"""Carries out what a command does to many jobs: the plan, the confirmation, the change and the report."""

from collections.abc import Mapping
from typing import Any

import click

from oban.amounts import counted
from oban.cli import output
from oban.cli.documents import DOCUMENTS
from oban.cli.instance import Instance
from oban.documents.actions import Action
from oban.documents.choice import Choice
from oban.documents.jobs import Changes, LeftAlone
from oban.fields import MAX_ATTEMPTS

#: How many jobs that were left alone are named.
_NAMED = 20


def run(
    action: Action,
    changes: Mapping[str, Any],
    *,
    instance: Instance,
    choice: Choice,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Show what would change, ask, change it, and say what was changed."""
    if dry_run or not (choice.only_ids or yes):
        plan = instance.operate(lambda operations: operations.plan(action, choice))
        if dry_run or plan.changed == 0:
            _report(action, plan, choice, as_json)
            return
        if plan.would_leave:
            click.echo(f"These are left alone: {_by_state(plan.would_leave)}.", err=True)
        question = (
            f"{action.verb.capitalize()} {counted(plan.changed, 'job')} ({_by_state(plan.would_change)})?"
        )
        output.confirm(question, yes=yes)
    done = instance.operate(lambda operations: operations.change(action, choice, changes))
    _report(action, done, choice, as_json)


def _report(action: Action, changes: Changes, choice: Choice, as_json: bool) -> None:
    if as_json:
        output.document(DOCUMENTS[f"jobs {action.verb}"], changes)
    else:
        _tell(action, changes)
    if changes.changed == 0:
        raise click.exceptions.Exit(1)


def _tell(action: Action, changes: Changes) -> None:
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
