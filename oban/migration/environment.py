"""The Alembic environment of `migrations/env.py`, for Alembic's commands in a checkout."""

import os
from typing import Any

from sqlalchemy import Connection, MetaData

from oban import dialects
from oban.config import check_prefix
from oban.migration import revisions
from oban.migration.autogenerate import TABLES, ignore_identity
from oban.migration.commands import with_connection
from oban.models import metadata


def run_environment(context: Any) -> None:
    """Run the revisions that an Alembic command asks for.

    Args:
        context: `alembic.context`. The URL comes from `-x url=…`, else the environment variable
            OBAN_DATABASE_URL, else `sqlalchemy.url` in `alembic.ini`; the prefix from `-x prefix=…`.

    Raises:
        ConfigError: The URL or the prefix cannot be used.
        SchemaMismatch: There are tables of another shape, or of a newer version of Oban.
    """
    arguments: dict[str, str] = context.get_x_argument(as_dictionary=True)
    prefix = arguments.get("prefix")
    check_prefix(prefix)
    configured = os.environ.get("OBAN_DATABASE_URL") or context.config.get_main_option("sqlalchemy.url")
    url = dialects.parse_url(arguments.get("url") or configured or "")
    options = revisions.options(prefix, url.get_backend_name()) | _comparison_options(prefix)

    def run(connection: Connection | None = None, **offline: Any) -> None:
        context.configure(connection=connection, **offline, **options)
        revisions.run(context.get_context(), prefix)

    if context.is_offline_mode():
        run(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"})
    else:
        with_connection(url, run)


def _comparison_options(prefix: str | None) -> dict[str, Any]:
    """What `alembic check` and `--autogenerate` compare: Oban's tables in one schema, and nothing else."""
    target = metadata
    if prefix:
        target = MetaData()
        for table in metadata.tables.values():
            table.to_metadata(target, schema=prefix)

    def include_name(name: str | None, kind: str, parents: Any) -> bool:
        if kind == "schema":
            return name == prefix
        return kind != "table" or name in TABLES

    return {
        "target_metadata": target,
        "process_revision_directives": ignore_identity,
        "include_schemas": bool(prefix),
        "include_name": include_name,
    }
