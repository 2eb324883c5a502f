"""The command line: `oban`, with its commands."""

from typing import Any

import click

import oban
from oban.cli.check import check
from oban.cli.completion import completion
from oban.cli.config import config
from oban.cli.jobs import jobs
from oban.cli.nodes import nodes
from oban.cli.periodic import periodic
from oban.cli.periodic_changes import add, delete, reset, update
from oban.cli.queues import queues
from oban.cli.schema import install, uninstall
from oban.cli.start import start
from oban.cli.stats import stats
from oban.cli.top.command import top
from oban.cli.why import why
from oban.errors import ObanError


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ObanError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(oban.__version__, prog_name="oban", message="%(prog)s %(version)s")
def main() -> None:
    """A SQLAlchemy-native job queue that lives in your application's own database."""


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"oban {oban.__version__}")


COMMANDS = (
    start,
    install,
    uninstall,
    check,
    config,
    jobs,
    periodic,
    queues,
    nodes,
    stats,
    top,
    completion,
    why,
)
for command in COMMANDS:
    main.add_command(command)
for command in (add, update, reset, delete):
    periodic.add_command(command)
