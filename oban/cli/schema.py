"""`oban install` and `oban uninstall`, and the options that all commands share."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def database_url(*, required: bool = True) -> Callable[[F], F]:
    """The option `--database-url`."""
    return click.option(
        "--database-url",
        envvar="OBAN_DATABASE_URL",
        required=required,
        metavar="URL",
        help="Such as postgresql+asyncpg://user@host/name or sqlite+aiosqlite:///file.db"
        " (default: the environment variable OBAN_DATABASE_URL).",
    )


prefix = click.option("--prefix", metavar="SCHEMA", help="The schema of the tables (PostgreSQL only).")


@click.command()
@database_url()
@prefix
def install(database_url: str, prefix: str | None) -> None:
    """Create the tables, or update them to this version.

    Tables of oban-py 0.6 and 0.7 are updated, too, and keep all rows.
    """
    from oban import migration  # Importing Alembic takes as long as the rest of a command.

    for sentence in migration.upgrade(database_url, prefix=prefix):
        click.echo(sentence)
    click.echo("The Oban tables are in place.")


@click.command()
@database_url()
@prefix
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def uninstall(database_url: str, prefix: str | None, yes: bool) -> None:
    """Drop the tables with all jobs. In a terminal, ask for confirmation first."""
    if not yes and sys.stdin is not None and sys.stdin.isatty():
        click.confirm("Drop the Oban tables and every job in them?", abort=True)
    from oban import migration

    removed = migration.downgrade(database_url, prefix=prefix)
    click.echo("The Oban tables were dropped." if removed else "No Oban tables are installed.")
