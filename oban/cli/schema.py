"""`oban install` and `oban uninstall`."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from sqlalchemy import URL

from oban import Oban
from oban.cli import output
from oban.cli.instance import Instance
from oban.cli.options import with_settings, with_target

if TYPE_CHECKING:
    from oban.cli.settings import Settings


@dataclass(frozen=True, slots=True)
class Installed:
    """What `oban install --json` prints."""

    #: Sentences about what was changed to adopt tables of another program; none otherwise.
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Uninstalled:
    """What `oban uninstall --json` prints."""

    #: Whether there were tables.
    dropped: bool


@click.command()
@with_target
@with_settings("app", "database_url", "prefix")
@output.json_option
def install(settings: "Settings", as_json: bool) -> None:
    """Create the tables, or update them to this version.

    Tables of oban-py 0.6 and 0.7 are updated, too, and keep all rows. TARGET is the same as --app.
    """
    database_url, prefix = _database(settings)
    from oban import migration  # Importing Alembic takes as long as the rest of a command.

    notes = migration.upgrade(database_url, prefix=prefix)
    if as_json:
        output.document(Installed, Installed(tuple(notes)))
        return
    for sentence in notes:
        click.echo(sentence)
    click.echo("The Oban tables are in place.")


@click.command()
@with_target
@with_settings("app", "database_url", "prefix")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@output.json_option
def uninstall(settings: "Settings", yes: bool, as_json: bool) -> None:
    """Drop the tables with all jobs. In a terminal, ask for confirmation first.

    TARGET is the same as --app.
    """
    database_url, prefix = _database(settings)
    if not yes and sys.stdin is not None and sys.stdin.isatty():
        click.confirm("Drop the Oban tables and every job in them?", abort=True, err=True)
    from oban import migration

    removed = migration.downgrade(database_url, prefix=prefix)
    if as_json:
        output.document(Uninstalled, Uninstalled(removed))
        return
    click.echo("The Oban tables were dropped." if removed else "No Oban tables are installed.")


def _database(settings: "Settings") -> tuple[str | URL, str | None]:
    """The URL of the instance's database, and the prefix of its tables."""
    instance = Instance.of(settings, remote=False)
    if instance.app is None:
        return instance.database_url or "", instance.options.get("prefix")
    return instance.call(_of_app)


async def _of_app(oban: Oban) -> tuple[URL, str | None]:
    return oban.engine.url, oban.options.prefix
