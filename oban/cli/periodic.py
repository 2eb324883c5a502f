"""`oban periodic list`, `pause`, `resume` and `run`."""

import click

from oban.cli import output
from oban.cli.documents import DOCUMENTS
from oban.cli.instance import Instance, of_instance
from oban.cli.output import Column
from oban.periodic import PeriodicInfo

_COLUMNS = (
    Column("NAME"),
    Column("EXPRESSION"),
    Column("TIMEZONE", rank=3),
    Column("WORKER", rank=2),
    Column("QUEUE", rank=2),
    Column("STATE"),
    Column("LAST (UTC)", rank=4),
    Column("NEXT (UTC)", rank=1),
)


@click.group()
def periodic() -> None:
    """List and control the periodic jobs of an instance."""


@periodic.command("list")
@of_instance
@output.json_option
def list_(instance: Instance, as_json: bool) -> None:
    """List the periodic entries, with their last and their next time."""
    entries = instance.call(lambda oban: oban.list_periodic())
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
    state = "gone" if entry.gone else "paused" if entry.paused else "active"
    if entry.overridden:
        state += ", changed"
    texts = (entry.name, entry.expression, entry.timezone, entry.worker, entry.queue)
    return (*texts, state, output.time(entry.last_tick), output.time(entry.next_at))


@periodic.command()
@click.argument("entry")
@of_instance
def pause(entry: str, instance: Instance) -> None:
    """Let ENTRY insert no jobs until it is resumed."""
    instance.call(lambda oban: oban.pause_periodic(entry))
    click.echo(f"{entry} is paused.")


@periodic.command()
@click.argument("entry")
@of_instance
def resume(entry: str, instance: Instance) -> None:
    """Let ENTRY insert jobs again, from its next time on."""
    instance.call(lambda oban: oban.resume_periodic(entry))
    click.echo(f"{entry} is active.")


@periodic.command()
@click.argument("entry")
@of_instance
def run(entry: str, instance: Instance) -> None:
    """Insert a job of ENTRY now, also if it is paused."""
    job = instance.call(lambda oban: oban.run_periodic(entry))
    if job.conflict:
        raise click.ClickException(
            f"no job of {entry} was inserted: it is unique, and job {job.id}, which is {job.state},"
            " is in the way"
        )
    click.echo(f"Job {job.id} of {entry} is in the queue {job.queue}.")
