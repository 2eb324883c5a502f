"""The schema: made, changed and removed by the Alembic revisions in `migrations/`.

`upgrade` and `downgrade` do from Python what `alembic upgrade head` does in a checkout. Oban keeps
its own version table, `oban_alembic_version`, apart from that of the application.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.config import Config
from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import AlterColumnOp, MigrationScript, ModifyTableOps, OpContainer
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Identity,
    MetaData,
    NullPool,
    create_engine,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from oban import dialects
from oban.config import check_prefix
from oban.ddl import VERSION_TABLE
from oban.errors import ConfigError, ObanError, SchemaMismatch
from oban.migration import adoption
from oban.models import metadata

__all__ = [
    "VERSION_TABLE",
    "downgrade",
    "include_object",
    "metadata",
    "process_revision_directives",
    "upgrade",
]

_NOTHING = "No Oban tables are installed."
Target = str | URL | Engine | Connection | Operations


def upgrade(target: Target, *, prefix: str | None = None, revision: str = "head") -> list[str]:
    """Make or update the tables, up to a revision.

    `target` is a database URL (sync or async driver), an engine, a connection whose transaction
    the caller commits (`await async_connection.run_sync(migration.upgrade)`), or Alembic's `op`,
    inside of a revision of the application. `prefix` is a schema, created if need be.

    Tables that are there already, made by `metadata.create_all` or by oban-py 0.6 to 0.7, are
    brought up to date with their rows; what was done to them is returned, in sentences.

    In Alembic's offline mode, `op` prints the script. Of `"0001:0003"`, the first part says where it
    begins; without it, it begins where an earlier call in the same script ended, else from nothing.

    Raises `ConfigError` for a URL or prefix that cannot be used, `SchemaMismatch` for tables of other
    shapes or of a newer version, and, given a URL, `DatabaseUnavailable` and `ObanError` with the
    driver's words for what the database refuses, such as a missing right. Else it is the driver's error.
    """
    start, _, end = revision.rpartition(":")
    return _run(target, prefix, _Way(start, end, ScriptDirectory._upgrade_revs, else_from="base"))


def downgrade(target: Target, *, prefix: str | None = None, revision: str = "base") -> bool:
    """Take the schema back to a revision; to `base`, the default, removes the tables and all jobs.

    False if nothing was installed. Tables that no revision made are left alone: `SchemaMismatch`.
    Raises what `upgrade` does. In Alembic's offline mode, `"0003:base"` says where it begins, too.
    """
    start, _, end = revision.rpartition(":")
    return _run(target, prefix, _Way(start, end, ScriptDirectory._downgrade_revs)) != [_NOTHING]


@dataclass(frozen=True)
class _Way:
    """From where to where. Only a printed script needs to be told from where."""

    start: str
    end: str
    revisions: Callable[..., list[Any]]
    else_from: str | None = None

    def options(self, script: ScriptDirectory) -> dict[str, Any]:
        def steps(current: Any, _: Any) -> list[Any]:
            return self.revisions(script, self.end, current)

        return {"fn": steps, "destination_rev": self.end, "script": script}


def _run(target: Target, prefix: str | None, way: _Way) -> list[str]:
    check_prefix(prefix)
    said: list[str] = []

    def within(connection: Connection) -> None:
        if not connection.in_transaction():
            # Else Alembic would begin one, and commit it.
            connection.begin()
        options = _options(prefix, connection.dialect.name) | way.options(_script()) | {"said": said}
        # Not through an Alembic environment: that is global, and the application may be in its own.
        context = MigrationContext.configure(connection, opts=options)
        dialects.by_name(connection.dialect.name).begin_migration(connection, prefix or "")
        if way.end == "base" and not context.get_current_heads() and adoption.is_absent(connection, prefix):
            said.append(_NOTHING)
        else:
            _migrate(context, prefix)

    if isinstance(target, Connection):
        within(target)
    elif isinstance(target, Engine):
        with target.begin() as connection:
            within(connection)
    elif isinstance(target, (str, URL)):
        url = dialects.parse_url(target)
        try:
            with_connection(url, within)
        except (DBAPIError, OSError) as error:
            if (unavailable := dialects.unavailable(url, error)) or isinstance(error, OSError):
                raise unavailable or error from error
            raise ObanError(f"the database refused to change the tables: {_told(error)}") from error
    else:
        connection = target.get_bind()
        if isinstance(connection, Connection):
            within(connection)
        else:
            _print(target.get_context(), prefix, way)
    return said


def _print(around: MigrationContext, prefix: str | None, way: _Way) -> None:
    """Add the statements to the script that Alembic is printing."""
    reached: dict[str | None, str] = around.opts.setdefault("oban_reached", {})
    start = way.start or reached.get(prefix) or way.else_from
    script = _script()
    if start is None:
        raise ConfigError(
            "Alembic's offline mode cannot ask the database where it is:"
            f' say from where to go down, such as revision="{script.get_current_head()}:{way.end}"'
        )
    options = _options(prefix, around.dialect.name) | way.options(script)
    options |= {"as_sql": True, "literal_binds": True, "output_buffer": around.output_buffer}
    # The script has its own BEGIN and COMMIT around this.
    options |= {"starting_rev": start, "transactional_ddl": False}
    _migrate(MigrationContext.configure(dialect=around.dialect, opts=options), prefix)
    end = script.get_revision(way.end)
    reached[prefix] = "base" if end is None else end.revision


def _told(error: DBAPIError) -> str:
    """What the driver said. After its first line come parts of the statement."""
    cause = dialects.driver_error(error)
    # With asyncpg, the cause is SQLAlchemy's own, made of the driver's.
    cause = cause.__cause__ or cause
    return (str(cause).strip() or type(cause).__name__).splitlines()[0]


def _script() -> ScriptDirectory:
    return ScriptDirectory(str(_location()))


def _location() -> Path:
    package = Path(__file__).parents[1]
    installed = package / "_migrations"
    return installed if installed.exists() else package.parent / "migrations"


def with_connection(url: URL, action: Callable[[Connection], None]) -> None:
    """Run `action` in one transaction on a connection of its own, with a sync or an async driver."""
    dialect = dialects.by_name(url.get_backend_name())
    if dialect.sync_driver is not None:
        url = url.set(drivername=f"{dialect.name}+{dialect.sync_driver}")
    # A pooler may be in between, and a migration has no use for prepared statements.
    connecting = dialect.engine_options(url, pooled=True).get("connect_args", {})
    options = {"poolclass": NullPool, "connect_args": connecting}
    if url.get_driver_name() == "psycopg" or url.get_driver_name() not in dialect.async_drivers:
        with create_engine(url, **options).begin() as connection:
            action(connection)
        return

    async def run() -> None:
        engine = create_async_engine(url, **options)
        async with engine.begin() as connection:
            await connection.run_sync(action)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(run())
    else:
        _in_thread(lambda: asyncio.run(run()))


def _in_thread(action: Callable[[], None]) -> None:
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


# -- hooks for the Alembic environment of an application --------------------------------------------

_TABLES = {table.name for table in metadata.tables.values()}


def include_object(object: Any, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
    """Keep the tables of Oban out of what autogenerate would drop: for `context.configure`.

    False for a table of Oban, and for its version table, that the `target_metadata` does not have.
    Together with one of the application: `lambda *given: include_object(*given) and mine(*given)`.
    """
    ours = type_ == "table" and (name in _TABLES or name == VERSION_TABLE)
    return not (ours and reflected and compare_to is None)


def process_revision_directives(context: MigrationContext, revision: Any, directives: list[Any]) -> None:
    """Let an autogenerated revision call `upgrade` for Oban's tables: for `context.configure`.

    Where the `target_metadata` has `oban_jobs`, and the database an older revision of it or none,
    whatever was found about Oban's tables becomes one call, before all else (`downgrade`: after it).
    Only this makes what metadata cannot say, such as the trigger. Call a hook of the application
    after this one.
    """
    asked = context.opts.get("revision_context")
    if asked and not asked.command_args.get("autogenerate"):
        # With `revision_environment`, Alembic comes here for an empty revision, too.
        return
    targets = context.opts.get("target_metadata")
    for target in targets if isinstance(targets, (list, tuple)) else [targets]:
        for table in target.tables.values() if target is not None else ():
            if table.name == "oban_jobs":
                for directive in directives:
                    _replace(context, table.schema, directive)


def _is_of_oban(operation: Any, prefix: str | None) -> bool:
    return getattr(operation, "table_name", None) in _TABLES and getattr(operation, "schema", None) == prefix


def _overlook_identity(context: MigrationContext, _: Any, directives: list[MigrationScript]) -> None:
    """Where the database has none, the key of jobs counts up by itself: Alembic would add it for ever."""
    if not context.dialect.supports_identity_columns:
        for directive in directives:
            _without_identity(directive.upgrade_ops_list[-1])
            _without_identity(directive.downgrade_ops_list[-1])


def _without_identity(operations: OpContainer) -> None:
    for operation in operations.ops:
        if isinstance(operation, ModifyTableOps) and operation.table_name == "oban_jobs":
            operation.ops[:] = [
                part
                for part in operation.ops
                # In what goes down, it is the existing one.
                if not isinstance(part, AlterColumnOp)
                or Identity not in (type(part.modify_server_default), type(part.existing_server_default))
            ]
    operations.ops[:] = [
        operation
        for operation in operations.ops
        if not (isinstance(operation, ModifyTableOps) and operation.is_empty())
    ]


def _replace(context: MigrationContext, prefix: str | None, directive: MigrationScript) -> None:
    # The last ones: with several databases, each adds its own.
    both = (directive.upgrade_ops_list[-1], directive.downgrade_ops_list[-1])
    _overlook_identity(context, None, [directive])
    script = _script()
    options = {"version_table": VERSION_TABLE, "version_table_schema": prefix}
    current = MigrationContext.configure(context.connection, opts=options).get_current_revision() or "base"
    head = script.get_current_head() or "base"
    known = {"base", *(known.revision for known in script.walk_revisions())} - {head}
    if current not in known:
        return
    for operations in both:
        operations.ops[:] = [operation for operation in operations.ops if not _is_of_oban(operation, prefix)]
    call = _UpgradeOban(prefix, current, head)
    both[0].ops.insert(0, call)
    both[1].ops.append(call.reverse())


@dataclass
class _UpgradeOban(MigrateOperation):
    prefix: str | None
    start: str
    end: str
    call: str = "upgrade"

    def reverse(self) -> "_UpgradeOban":
        return _UpgradeOban(self.prefix, self.end, self.start, "downgrade")

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return (f"{self.call}_oban", self.prefix, self.start, self.end)


@renderers.dispatch_for(_UpgradeOban)
def _render(context: AutogenContext, operation: _UpgradeOban) -> str:
    context.imports.add("import oban.migration")
    prefix = f", prefix={operation.prefix!r}" if operation.prefix else ""
    return f'oban.migration.{operation.call}(op{prefix}, revision="{operation.start}:{operation.end}")'


# -- the Alembic environment, called by migrations/env.py ------------------------------------------


def run_environment(context: Any) -> None:
    """Run the revisions that an Alembic command asks for; `context` is `alembic.context`."""
    config: Config = context.config
    arguments: dict[str, str] = context.get_x_argument(as_dictionary=True)
    prefix = arguments.get("prefix")
    check_prefix(prefix)
    url = dialects.parse_url(
        arguments.get("url")
        or os.environ.get("OBAN_DATABASE_URL")
        or config.get_main_option("sqlalchemy.url")
        or ""
    )
    if context.is_offline_mode():
        options = _options(prefix, url.get_backend_name())
        context.configure(url=url, literal_binds=True, dialect_opts={"paramstyle": "named"}, **options)
        _migrate(context.get_context(), prefix)
    else:
        with_connection(url, lambda connection: _online(context, connection, prefix))


def _online(context: EnvironmentContext, connection: Connection, prefix: str | None) -> None:
    context.configure(connection=connection, **_options(prefix, connection.dialect.name))
    _migrate(context.get_context(), prefix)


def _migrate(context: MigrationContext, prefix: str | None) -> None:
    with context.begin_transaction():
        if context.connection and not context.as_sql and context.opts.get("destination_rev") is not None:
            dialects.by_name(context.dialect.name).begin_migration(context.connection, prefix or "")
            known = {revision.revision for revision in _script().walk_revisions()}
            if newer := set(context.get_current_heads()) - known:
                raise SchemaMismatch(
                    f"the tables were made by a newer version of Oban ({', '.join(newer)}); update this one"
                )
        if prefix and context.opts.get("destination_rev") not in (None, "base"):
            context.execute(f'CREATE SCHEMA IF NOT EXISTS "{prefix}"')
        # The revisions get their operations from here, not from the global `alembic.op`.
        context.run_migrations(schema=prefix, op=Operations(context))
        if _is_empty(context):
            # Nothing is installed any more: leave no empty version table behind.
            dot = f'"{prefix}".' if prefix else ""
            context.execute(f"DROP TABLE IF EXISTS {dot}{VERSION_TABLE}")


def _is_empty(context: MigrationContext) -> bool:
    if context.as_sql:
        return context.opts.get("destination_rev") == "base"
    return not context.get_current_heads()


def _options(prefix: str | None, database: str) -> dict[str, Any]:
    if prefix and not dialects.by_name(database).has_schemas:
        raise ConfigError(f"{database} has no schemas: leave out the prefix {prefix!r}")
    target = metadata
    if prefix:
        target = MetaData()
        for table in metadata.tables.values():
            table.to_metadata(target, schema=prefix)

    def ours(name: str | None, kind: str, parents: Any) -> bool:
        if kind == "schema":
            return name == prefix
        return kind != "table" or name in _TABLES

    return {
        "target_metadata": target,
        "process_revision_directives": _overlook_identity,
        "version_table": VERSION_TABLE,
        "version_table_schema": prefix,
        "include_schemas": bool(prefix),
        "include_name": ours,
    }
