"""Options that several commands share."""

import click

database_url = click.option(
    "--database-url",
    envvar="OBAN_DATABASE_URL",
    required=True,
    metavar="URL",
    help="Such as postgresql+asyncpg://user@host/name or sqlite+aiosqlite:///file.db"
    " (default: the environment variable OBAN_DATABASE_URL).",
)
prefix = click.option("--prefix", metavar="SCHEMA", help="The schema of the tables (PostgreSQL only).")
