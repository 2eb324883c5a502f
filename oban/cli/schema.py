"""`oban install` and `oban uninstall`."""

import sys

import click

from oban.cli import options


@click.command()
@options.database_url
@options.prefix
def install(database_url: str, prefix: str | None) -> None:
    """Make the tables, or update them to this version.

    Tables that oban-py 0.6 to 0.7 made are brought up to date, too, with every row.
    """
    from oban import migration  # Alembic takes as long to import as the rest of a command does.

    for sentence in migration.upgrade(database_url, prefix=prefix):
        click.echo(sentence)
    click.echo("The Oban tables are in place.")


@click.command()
@options.database_url
@options.prefix
@click.option("--yes", is_flag=True, help="Do not ask.")
def uninstall(database_url: str, prefix: str | None, yes: bool) -> None:
    """Remove the tables, with all jobs. Asks first in a terminal."""
    if not yes and sys.stdin is not None and sys.stdin.isatty():
        click.confirm("Remove the Oban tables and every job in them?", abort=True)
    from oban import migration

    removed = migration.downgrade(database_url, prefix=prefix)
    click.echo("The Oban tables are gone." if removed else "No Oban tables are installed.")
