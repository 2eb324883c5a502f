"""The schema: made, changed and removed by the Alembic revisions in `migrations/`.

`upgrade` and `downgrade` do from Python what `alembic upgrade head` does in a checkout. Oban keeps
its own version table, `oban_alembic_version`, apart from that of the application.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    MetaData,
    NullPool,
    Table,
    create_engine,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from oban import dialects
from oban.config import check_prefix
from oban.errors import ConfigError
from oban.models import metadata
from oban.types import STATES, StateType

VERSION_TABLE = "oban_alembic_version"


def upgrade(
    target: str | URL | Engine | Connection, *, prefix: str | None = None, revision: str = "head"
) -> None:
    """Make or update the tables, up to a revision.

    `target` is a database URL (sync or async driver), an engine, or a connection whose transaction
    the caller commits (`await async_connection.run_sync(migration.upgrade)`). `prefix` is a schema,
    created if need be. Raises `ConfigError` for a URL or prefix that cannot be used, and
    `DatabaseUnavailable`.
    """
    _run(target, prefix, lambda config: command.upgrade(config, revision))


def downgrade(
    target: str | URL | Engine | Connection, *, prefix: str | None = None, revision: str = "base"
) -> None:
    """Take the schema back to a revision; to `base`, the default, removes the tables and all jobs."""
    _run(target, prefix, lambda config: command.downgrade(config, revision))


def _run(
    target: str | URL | Engine | Connection, prefix: str | None, action: Callable[[Config], None]
) -> None:
    config = Config()
    installed = Path(__file__).parent / "_migrations"
    location = installed if installed.exists() else Path(__file__).parent.parent / "migrations"
    config.set_main_option("script_location", str(location).replace("%", "%%"))
    config.attributes["prefix"] = prefix

    def within(connection: Connection) -> None:
        config.attributes["connection"] = connection
        action(config)

    if isinstance(target, Connection):
        within(target)
    elif isinstance(target, Engine):
        with target.begin() as connection:
            within(connection)
    else:
        url = dialects.parse_url(target)
        try:
            with_connection(url, within)
        except (DBAPIError, OSError) as error:
            raise dialects.unavailable(url, error) or error from error


def with_connection(url: URL, action: Callable[[Connection], None]) -> None:
    """Run `action` in one transaction on a connection of its own, with a sync or an async driver."""
    dialect = dialects.named(url.get_backend_name())
    if dialect.sync_driver is not None:
        url = url.set(drivername=f"{dialect.name}+{dialect.sync_driver}")
    options = {"poolclass": NullPool}
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


# -- the Alembic environment, called by migrations/env.py ------------------------------------------


def run_environment(context: Any) -> None:
    """Run the revisions that an Alembic command asks for; `context` is `alembic.context`."""
    config: Config = context.config
    arguments: dict[str, str] = context.get_x_argument(as_dictionary=True)
    prefix = config.attributes.get("prefix") or arguments.get("prefix")
    check_prefix(prefix)
    connection: Connection | None = config.attributes.get("connection")
    if connection is not None:
        _online(context, connection, prefix)
        return
    url = dialects.parse_url(
        arguments.get("url")
        or os.environ.get("OBAN_DATABASE_URL")
        or config.get_main_option("sqlalchemy.url")
        or ""
    )
    if context.is_offline_mode():
        _configure(context, prefix, url.get_backend_name(), url=url, literal_binds=True)
        with context.begin_transaction():
            if prefix:
                context.execute(f'CREATE SCHEMA IF NOT EXISTS "{prefix}"')
            context.run_migrations(schema=prefix)
    else:
        with_connection(url, lambda connection: _online(context, connection, prefix))


def _online(context: EnvironmentContext, connection: Connection, prefix: str | None) -> None:
    if prefix and connection.dialect.name == "postgresql":
        connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{prefix}"'))
    _configure(context, prefix, connection.dialect.name, connection=connection)
    with context.begin_transaction():
        context.run_migrations(schema=prefix)
    if not context.get_context().get_current_heads():
        # Nothing is installed any more: leave no empty version table behind.
        Table(VERSION_TABLE, MetaData(), schema=prefix).drop(connection, checkfirst=True)


def _configure(context: EnvironmentContext, prefix: str | None, database: str, **options: Any) -> None:
    if prefix and not dialects.named(database).has_schemas:
        raise ConfigError(f"{database} has no schemas: leave out the prefix {prefix!r}")
    target = metadata
    if prefix:
        target = MetaData()
        for table in metadata.tables.values():
            table.to_metadata(target, schema=prefix)

    def ours(name: str | None, kind: str, parents: Any) -> bool:
        if kind == "schema":
            return name == prefix
        return kind != "table" or name in {table.name for table in metadata.tables.values()}

    def differs(_: Any, found: Any, __: Any, reflected: Any, ours: Any) -> bool | None:
        # Reflected, the enum carries the schema it lives in, which the models leave open.
        return reflected.enums != STATES if isinstance(ours, StateType) and prefix else None

    context.configure(
        compare_type=differs,
        target_metadata=target,
        version_table=VERSION_TABLE,
        version_table_schema=prefix,
        include_schemas=bool(prefix),
        include_name=ours,
        dialect_opts={"paramstyle": "named"},
        **options,
    )
