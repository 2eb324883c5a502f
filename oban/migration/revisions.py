"""Where the revisions are, and how they are run in an Alembic `MigrationContext`."""

from pathlib import Path
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from oban import dialects
from oban.ddl import VERSION_TABLE
from oban.errors import ConfigError, SchemaMismatch
from oban.migration import place, repair


def script() -> ScriptDirectory:
    """The revisions: in a wheel at `oban/_migrations`, in a checkout at `migrations/`."""
    package = Path(__file__).parents[1]
    installed = package / "_migrations"
    return ScriptDirectory(str(installed if installed.exists() else package.parent / "migrations"))


def options(prefix: str | None, database: str) -> dict[str, Any]:
    """Alembic's options for Oban's own version table. Raises `ConfigError` for a prefix without schemas."""
    if prefix and not dialects.by_name(database).has_schemas:
        raise ConfigError(f"{database} has no schemas: leave out the prefix {prefix!r}")
    return {"version_table": VERSION_TABLE, "version_table_schema": prefix}


def run(context: MigrationContext, prefix: str | None) -> None:
    """Run the revisions that a context was configured for. Concurrent migrations wait for each other.

    Raises `SchemaMismatch` for the tables of a newer version of Oban.
    """
    # Not set by Alembic commands that only look, such as `alembic check`.
    destination = context.opts.get("destination_rev")
    with context.begin_transaction():
        if context.connection and not context.as_sql and destination is not None:
            dialects.for_bind(context.connection).begin_migration(context.connection, prefix or "")
            known = {revision.revision for revision in script().walk_revisions()}
            if newer := set(context.get_current_heads()) - known:
                raise SchemaMismatch(
                    f"the tables were made by a newer version of Oban ({', '.join(newer)}); update this one"
                )
            current = set(context.get_current_heads())
            # Each revision creates something. Whoever finds the newest one needs no privilege.
            creates = current != {script().get_current_head()} if destination == "head" else not current
            if creates and destination != "base":
                place.prepare(context.connection, prefix)
        if context.as_sql and prefix and destination != "base":
            place.prepare_in_script(context, prefix)
        # Revisions get their operations as an argument: the global `alembic.op` can be the application's.
        context.run_migrations(schema=prefix, op=Operations(context))
        if context.connection and not context.as_sql and destination is not None:
            heads = set(context.get_current_heads())
            if heads == {script().get_current_head()}:
                repair.restore_trigger(context, prefix)
        if destination == "base" if context.as_sql else not context.get_current_heads():
            # Nothing is installed any more, so the empty version table goes as well.
            dot = f'"{prefix}".' if prefix else ""
            context.execute(f"DROP TABLE IF EXISTS {dot}{VERSION_TABLE}")
