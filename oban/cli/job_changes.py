"""`oban jobs cancel`, `retry`, `delete` and `update`."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from oban import fields
from oban.cli import output
from oban.cli.durations import Duration
from oban.cli.instance import of_instance
from oban.cli.job_actions import run
from oban.cli.job_filters import json_object, targeted
from oban.documents.actions import CANCEL, DELETE, RETRY, UPDATE
from oban.errors import InvalidJob

F = TypeVar("F", bound=Callable[..., Any])


def _changing(function: F) -> F:
    """Add the arguments and options of a command that changes jobs."""
    decorated: Any = function
    for option in (
        output.json_option,
        of_instance,
        click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation."),
        click.option(
            "--dry-run", is_flag=True, help="Change nothing; show how many jobs would change, by state."
        ),
        targeted,
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def _timed(function: F) -> F:
    """Add the options that say when jobs run."""
    decorated = click.option(
        "--scheduled-at",
        metavar="TIME",
        help="When the jobs run, such as 2026-01-30T08:00+01:00; UTC without an offset.",
    )(function)
    return click.option(
        "--schedule-in",
        metavar="DURATION",
        type=Duration(seconds=True),
        help="How long from now the jobs run, such as 10m.",
    )(decorated)


_set_queue = click.option("--set-queue", metavar="NAME", help="The queue that the jobs move to.")
_set_priority = click.option(
    "--set-priority", metavar="NUMBER", type=click.IntRange(0, 9), help="Their new priority, 0 (first) to 9."
)


@click.command()
@_changing
def cancel(**options: Any) -> None:
    """Cancel jobs that have not ended.

    Pass their IDs, or filters that find them. A job that is executing is asked to stop.
    """
    run(CANCEL, {}, **options)


@click.command()
@_changing
def delete(**options: Any) -> None:
    """Delete jobs for good.

    Pass their IDs, or filters that find them. A job that is executing is left alone.
    """
    run(DELETE, {}, **options)


@click.command()
@_changing
@_timed
@_set_queue
@_set_priority
def retry(
    schedule_in: timedelta | None,
    scheduled_at: str | None,
    set_queue: str | None,
    set_priority: int | None,
    **options: Any,
) -> None:
    """Make jobs run again.

    Pass their IDs, or filters that find them. A job that has used its attempts gets one more. Jobs that are
    available or executing are left alone, and so is a unique job if another one with the same key is in its
    way.
    """
    changes: Any = {
        "schedule_in": schedule_in,
        "scheduled_at": _time(scheduled_at),
        "queue": set_queue,
        "priority": set_priority,
    }
    _check(fields.check_retry, changes)
    run(RETRY, changes, **options)


@click.command()
@_changing
@_timed
@_set_queue
@_set_priority
@click.option("--set-worker", metavar="NAME", help="Their new worker.")
@click.option("--set-tag", metavar="TAG", multiple=True, help="Their new tag, instead of all that they have.")
@click.option(
    "--set-max-attempts", metavar="NUMBER", type=int, help="How many attempts they have, 1 to 32767."
)
@click.option("--set-args", metavar="JSON", help="Their new args, a JSON object, instead of those they have.")
@click.option("--set-meta", metavar="JSON", help="Their new meta, a JSON object, instead of what they have.")
def update(
    schedule_in: timedelta | None,
    scheduled_at: str | None,
    set_queue: str | None,
    set_priority: int | None,
    set_worker: str | None,
    set_tag: tuple[str, ...],
    set_max_attempts: int | None,
    set_args: str | None,
    set_meta: str | None,
    **options: Any,
) -> None:
    """Change fields of jobs in any state.

    Pass their IDs, or filters that find them. Either all of them are changed or none. An attempt that is
    under way goes on with the values that it began with.
    """
    values = {
        "schedule_in": schedule_in,
        "scheduled_at": _time(scheduled_at),
        "queue": set_queue,
        "priority": set_priority,
        "worker": set_worker,
        "tags": list(set_tag) or None,
        "max_attempts": set_max_attempts,
        "args": None if set_args is None else json_object("--set-args", set_args),
        "meta": None if set_meta is None else json_object("--set-meta", set_meta),
    }
    changes: Any = {name: value for name, value in values.items() if value is not None}
    if not changes:
        raise click.UsageError("Nothing is to be changed: pass an option such as --set-priority 0.")
    _check(fields.check, changes)
    run(UPDATE, changes, **options)


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(
            f"--scheduled-at: {text!r} is not a time such as 2026-01-30T08:00 or 2026-01-30T08:00+01:00."
        ) from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _check(check: Callable[[Any], object], changes: Any) -> None:
    try:
        check(changes)
    except InvalidJob as error:
        raise click.UsageError(f"{error}.") from error
