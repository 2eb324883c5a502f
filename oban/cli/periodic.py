"""`oban periodic`: list, show, pause, resume and run the periodic entries of an instance."""

import json
from collections.abc import Iterator
from typing import Any

import click

from oban import redacted
from oban.amounts import duration
from oban.cli import output
from oban.cli.columns import Column, time_column
from oban.cli.documents import DOCUMENTS
from oban.cli.instance import Instance, of_instance
from oban.documents.jobs import job_document
from oban.error_texts import log_safe
from oban.models import Job
from oban.periodic import PeriodicInfo

_COLUMNS = (
    # Other commands take this name, so it is shortened last.
    Column("NAME"),
    Column("EXPRESSION", least=12),
    Column("TIMEZONE", rank=3, least=10),
    Column("WORKER", rank=2, least=10, tail=True),
    Column("QUEUE", rank=2, least=8),
    Column("STATE"),
    time_column("LAST (UTC)", rank=4),
    time_column("NEXT (UTC)", rank=1),
)


@click.group()
def periodic() -> None:
    """List, control and change the periodic jobs of an instance."""


@periodic.command("list")
@of_instance
@output.json_option
def list_(instance: Instance, as_json: bool) -> None:
    """List the periodic entries, with their last and their next time."""
    entries = [
        redacted.periodic(info) for info in instance.operate(lambda operations: operations.list_periodic())
    ]
    if as_json:
        output.document(DOCUMENTS["periodic list"], entries)
    elif entries:
        output.table(_COLUMNS, map(_cells, entries))
    else:
        click.echo(
            f"The instance {instance.name} has no periodic entries."
            " A node stores those of its code when it starts."
        )


def _cells(entry: PeriodicInfo) -> tuple[str, ...]:
    texts = (entry.name, entry.expression, entry.timezone, entry.worker, entry.queue)
    return (*texts, _state(entry), output.time(entry.last_tick), output.time(entry.next_at))


def _state(entry: PeriodicInfo) -> str:
    state = "gone" if entry.gone else "paused" if entry.paused else "active"
    return f"{state}, changed" if entry.overridden else state


@periodic.command()
@click.argument("entry")
@of_instance
@output.json_option
def show(entry: str, instance: Instance, as_json: bool) -> None:
    """Show all that is known about ENTRY.

    That includes what `oban periodic update` has changed.
    """
    info = redacted.periodic(instance.operate(lambda operations: operations.find_periodic(entry)))
    if as_json:
        output.document(DOCUMENTS["periodic show"], info)
    else:
        for name, value in _lines(info):
            click.echo(f"{name + ':':<16}{log_safe(value, 10_000)}")


def _lines(info: PeriodicInfo) -> Iterator[tuple[str, str]]:
    yield "Name", info.name
    yield "State", _state(info)
    yield "Source", "the code of a node" if info.source == "code" else "added at run time"
    yield "Expression", info.expression
    yield "Time zone", info.timezone
    yield "Last (UTC)", _last(info)
    yield "Next (UTC)", output.time(info.next_at)
    yield "Catch up", f"{info.catch_up}, within {duration(info.window)}"
    yield "Worker", info.worker
    yield "Queue", info.queue
    yield "Priority", str(info.priority)
    yield "Max attempts", "-" if info.max_attempts is None else str(info.max_attempts)
    yield "Args", _json(info.args)
    yield "Tags", ", ".join(info.tags) or "-"
    yield "Meta", _json(info.meta)
    yield "Changed", _json(info.override) if info.override else "-"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _last(info: PeriodicInfo) -> str:
    by_job = "" if info.last_job_id is None else f", job {info.last_job_id}"
    return f"{output.time(info.last_tick)}{by_job}"


@periodic.command()
@click.argument("entry")
@of_instance
@output.json_option
def pause(entry: str, instance: Instance, as_json: bool) -> None:
    """Let ENTRY insert no jobs until it is resumed."""
    info = instance.operate(lambda operations: operations.change_periodic("pause", entry))
    _report("pause", info, f"{log_safe(entry)} is paused.", as_json)


@periodic.command()
@click.argument("entry")
@of_instance
@output.json_option
def resume(entry: str, instance: Instance, as_json: bool) -> None:
    """Let ENTRY insert jobs again, from its next time on."""
    info = instance.operate(lambda operations: operations.change_periodic("resume", entry))
    _report("resume", info, f"{log_safe(entry)} is active.", as_json)


def _report(verb: str, info: PeriodicInfo, text: str, as_json: bool) -> None:
    if as_json:
        output.document(DOCUMENTS[f"periodic {verb}"], redacted.periodic(info))
    else:
        click.echo(text)


@periodic.command()
@click.argument("entry")
@of_instance
@output.json_option
def run(entry: str, instance: Instance, as_json: bool) -> None:
    """Insert a job of ENTRY now, also if it is paused."""
    job: Job = redacted.job(instance.operate(lambda operations: operations.run_periodic(entry)))
    if job.conflict:
        raise click.ClickException(
            f"no job of {log_safe(entry)} was inserted: it is unique, and job {job.id}, which is {job.state},"
            " is in the way"
        )
    if as_json:
        output.document(DOCUMENTS["periodic run"], job_document(job))
    else:
        click.echo(f"Job {job.id} of {log_safe(entry)} is in the queue {log_safe(job.queue)}.")
