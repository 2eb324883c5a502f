"""`oban jobs list`, `show` and `wait`."""

import json
from datetime import timedelta
from typing import Any

import click
from rich.text import Text

from oban import error_texts, redacted
from oban.cli import output
from oban.cli.columns import Column, time_column
from oban.cli.documents import DOCUMENTS
from oban.cli.durations import Duration
from oban.cli.instance import Instance, of_instance
from oban.cli.job_changes import cancel, delete, retry, update
from oban.cli.job_details import show_job
from oban.cli.job_filters import ID, filtered
from oban.documents.choice import ORDERS, Choice, Sort
from oban.documents.jobs import job_details, job_document, json_able, text
from oban.models import Job
from oban.types import ENDED_STATES, JobState

_COLUMNS = (
    Column("ID", right=True),
    Column("STATE"),
    Column("QUEUE", rank=4, least=8),
    Column("WORKER", least=10, tail=True),
    Column("ATTEMPT", rank=5, right=True),
    time_column("WHEN (UTC)", rank=3),
    Column("ERROR", rank=2, least=10),
    Column("ARGS", rank=1, least=10),
)
#: The columns of texts that can be long are cut at this many characters.
_LONGEST = 40
#: The exit code of `oban jobs wait` after its timeout.
TIMED_OUT = 3


@click.group()
def jobs() -> None:
    """List, show and change jobs, and wait for them."""


@jobs.command("list")
@filtered
@click.option(
    "--limit",
    metavar="NUMBER",
    type=click.IntRange(1, 100_000),
    default=20,
    show_default=True,
    help="How many jobs are listed at most.",
)
@click.option(
    "--sort",
    type=click.Choice(list(ORDERS)),
    default="newest",
    show_default=True,
    help="The order of the list: by id, or by the time at which jobs are due.",
)
@of_instance
@output.json_option
def list_(instance: Instance, choice: Choice, limit: int, sort: Sort, as_json: bool) -> None:
    """List jobs, the newest first.

    WHEN is the time that belongs to the state: when the job is due, began or ended.
    """
    found = instance.operate(lambda operations: operations.list_jobs(choice, sort, limit + 1))
    shown = [redacted.job(job) for job in found[:limit]]
    if as_json:
        output.document(DOCUMENTS["jobs list"], [job_document(job) for job in shown])
    elif shown:
        rows = [_cells(job) for job in shown]
        # A column without any text takes room from others.
        kept = [index for index in range(len(_COLUMNS)) if any(row[index] for row in rows)]
        output.table([_COLUMNS[index] for index in kept], [[row[index] for index in kept] for row in rows])
    else:
        click.echo("No job matches." if choice.conditions else "There are no jobs.")
    if len(found) > limit:
        click.echo("There are more jobs: raise --limit, or add filters.", err=True)


@jobs.command()
@click.argument("job_id", metavar="ID", type=ID)
@of_instance
@output.json_option
def show(job_id: int, instance: Instance, as_json: bool) -> None:
    """Show everything about a job.

    That includes its attempts, its last error, and the log of its last attempt.
    """
    job, attempts = instance.operate(lambda operations: operations.show_job(job_id))
    if job is None:
        raise _missing(job_id)
    redacted.job(job, attempts)
    if as_json:
        output.document(DOCUMENTS["jobs show"], job_details(job, attempts))
    else:
        show_job(job, attempts)


@jobs.command()
@click.argument("job_id", metavar="ID", type=ID)
@click.option(
    "--timeout",
    metavar="DURATION",
    type=Duration(seconds=True),
    help="How long to wait at most, such as 30s or 5m (default: no limit).",
)
@of_instance
@output.json_option
def wait(job_id: int, timeout: timedelta | None, instance: Instance, as_json: bool) -> None:
    """Wait until the job ID has ended.

    The exit code is 0 if the job is completed; 1 if it is cancelled or discarded, or does not exist; and 3 if
    it has not ended within the timeout.
    """
    job, has_ended = instance.operate(lambda operations: operations.wait(job_id, timeout))
    if job is None:
        raise _missing(job_id)
    redacted.job(job)
    if as_json:
        output.document(DOCUMENTS["jobs wait"], job_document(job))
    elif has_ended:
        _tell_end(job)
    if not has_ended:
        waited = "" if timeout is None else f" after {_seconds(timeout)}"
        click.echo(f"Job {job_id} is still {_state(job)}{waited}.", err=True)
        raise click.exceptions.Exit(TIMED_OUT)
    if job.state != JobState.COMPLETED:
        raise click.exceptions.Exit(1)


for command in (cancel, retry, delete, update):
    jobs.add_command(command)


def _cells(job: Job) -> tuple[str | Text, ...]:
    return (
        str(job.id),
        output.state(_state(job)),
        text(job.queue),
        text(job.worker),
        f"{job.attempt}/{job.max_attempts}",
        output.time(_when(job)),
        _short(error_texts.last_error(job.errors)),
        _short(_one_line(job.args)),
    )


def _state(job: Job) -> str:
    return "unknown" if job.state is None else job.state.value


def _when(job: Job) -> Any:
    """When the job reached its state, or is due."""
    if job.state == JobState.EXECUTING:
        return job.attempted_at
    return getattr(job, f"{job.state.value}_at") if job.state in ENDED_STATES else job.scheduled_at


def _short(value: str) -> str:
    shown = output.printable(value[:_LONGEST])
    return shown if len(value) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def _one_line(args: Any) -> str:
    return json.dumps(json_able(args), ensure_ascii=False) if args != {} else ""


def _tell_end(job: Job) -> None:
    click.echo(f"Job {job.id} is {_state(job)}.")
    if job.state == JobState.COMPLETED and isinstance(job.meta, dict) and job.recorded is not None:
        click.echo(f"It recorded {output.printable(_one_line(job.recorded))}")
    elif job.state != JobState.COMPLETED and (error := error_texts.last_error(job.errors)):
        click.echo(f"Its last error is {output.printable(error)}")


def _seconds(timeout: timedelta) -> str:
    number = timeout.total_seconds()
    return f"{number:g} second{'' if number == 1 else 's'}"


def _missing(job_id: int) -> click.ClickException:
    return click.ClickException(f"there is no job {job_id}")
