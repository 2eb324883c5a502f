"""The database of a test run: it gets its tables once, and each test a connection that is rolled back.

A database in memory exists once for each connection. Its tables are created in a template, of which each
connection begins with a copy.
"""

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import cached_property
from pathlib import PurePath
from typing import Any

from sqlalchemy import URL, Connection, Engine, MetaData, NullPool, StaticPool, create_engine, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from oban import dialects, migration
from oban.database.engines import make_engine, make_sync_engine
from oban.errors import ConfigError, DatabaseUnavailable
from oban.migration.commands import with_connection
from oban.testing.rollback import rolled_back


class PreparedDatabase:
    """The database of a URL, whose tables are created before the first connection."""

    def __init__(self, url: str | URL) -> None:
        self._url = dialects.parse_url(url)
        #: What was created already, or the error that prevented it, by schema and metadata.
        self._prepared: dict[tuple[str | None, MetaData | None], Exception | None] = {}

    def connect(
        self, metadata: MetaData | None = None, prefix: str | None = None
    ) -> AbstractContextManager[Connection]:
        """A connection for one test, rolled back at its end, to a database with Oban's tables.

        Args:
            metadata: The application's tables, which are created as well.
            prefix: The schema of Oban's tables.
        """
        self._prepare(metadata, prefix)
        return rolled_back(self._engine)

    def connect_async(
        self, metadata: MetaData | None = None, prefix: str | None = None
    ) -> AbstractAsyncContextManager[AsyncConnection]:
        """Like `connect`, for asyncio."""
        self._prepare(metadata, prefix)
        return rolled_back(self._async_engine)

    def dispose(self) -> None:
        """Close what is still open."""
        if "_engine" in self.__dict__:
            self._engine.dispose()

    # A connection belongs to the event loop of one test, unless there is none.
    @cached_property
    def _async_engine(self) -> AsyncEngine:
        return make_engine(_with_driver(self._url, asynchronous=True), poolclass=NullPool)

    @cached_property
    def _engine(self) -> Engine:
        return make_sync_engine(_with_driver(self._url, asynchronous=False))

    def _prepare(self, metadata: MetaData | None, prefix: str | None) -> None:
        key = (prefix, metadata)
        if key not in self._prepared:
            try:
                self._create(metadata, prefix)
            except Exception as error:
                # Each test fails in the same way, and none waits for an unreachable server again.
                self._prepared[key] = error
            else:
                self._prepared[key] = None
        if (failure := self._prepared[key]) is not None:
            raise failure

    def _create(self, metadata: MetaData | None, prefix: str | None) -> None:
        # In one transaction, whose lock makes other test runs on the same database wait.
        _run(self._url, lambda connection: _create_tables(connection, metadata, prefix))


class MemoryDatabase(PreparedDatabase):
    """A database in memory of SQLite: a new one for each connection."""

    @cached_property
    def _template(self) -> sqlite3.Connection:
        # aiosqlite copies it in a thread.
        self._holder = create_engine(
            "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        connection: sqlite3.Connection = self._holder.raw_connection().driver_connection  # type: ignore[assignment]
        return connection

    def dispose(self) -> None:
        if "_template" in self.__dict__:
            self._holder.dispose()

    @cached_property
    def _async_engine(self) -> AsyncEngine:
        return make_engine("sqlite+aiosqlite://", poolclass=NullPool, connect_args=self._arguments)

    @cached_property
    def _engine(self) -> Engine:
        return make_sync_engine("sqlite://", poolclass=NullPool, connect_args=self._arguments)

    @property
    def _arguments(self) -> dict[str, Any]:
        arguments = dialects.by_name("sqlite").engine_options(URL.create("sqlite"))["connect_args"]
        empty: Callable[..., sqlite3.Connection] = arguments["factory"]

        def copy(*args: Any, **options: Any) -> sqlite3.Connection:
            connection = empty(*args, **options)
            self._template.backup(connection)
            return connection

        return {**arguments, "factory": copy}

    def _create(self, metadata: MetaData | None, prefix: str | None) -> None:
        self._template  # noqa: B018
        with self._holder.begin() as connection:
            _create_tables(connection, metadata, prefix)


def open_database(url: str | URL) -> PreparedDatabase:
    """The database of a URL; nothing is connected yet."""
    parsed = dialects.parse_url(url)
    is_memory = dialects.by_name(parsed.get_backend_name()).is_memory(parsed)
    return MemoryDatabase(parsed) if is_memory else PreparedDatabase(parsed)


def for_worker(url: str, worker: str) -> str:
    """The URL of the database of a process of pytest-xdist: it is named after both, and created if missing.

    A database in memory belongs to its process anyway.

    Raises:
        ConfigError: The database does not exist, and the role cannot create it.
        DatabaseUnavailable: The server cannot be reached.
    """
    parsed = dialects.parse_url(url)
    dialect = dialects.by_name(parsed.get_backend_name())
    if dialect.is_memory(parsed):
        return url
    if dialect.is_remote:
        own = parsed.set(database=f"{parsed.database}_{worker}")
        _create_database(parsed, own, worker)
    else:
        # A URI of SQLite has parameters.
        name, mark, parameters = str(parsed.database).partition("?")
        path = PurePath(name)
        own = parsed.set(database=f"{path.with_stem(f'{path.stem}_{worker}')}{mark}{parameters}")
    # As the user wrote it, who may have named no driver.
    return own.set(drivername=url.strip().partition(":")[0]).render_as_string(hide_password=False)


def _create_database(base: URL, own: URL, worker: str) -> None:
    if _exists(own):
        return
    try:
        _run(
            base, lambda connection: _execute_create_database(connection, str(own.database)), autocommit=True
        )
    except DBAPIError as error:
        # Another test run can have created it meanwhile.
        if not _exists(own):
            reason = " ".join(str(dialects.driver_error(error)).split())
            raise ConfigError(
                f"the process {worker} of pytest-xdist needs the database {own.database}, which does not"
                f" exist and cannot be created ({reason}); create it, or grant the role the right to do so"
                f" (ALTER ROLE {base.username} CREATEDB)"
            ) from error


def _execute_create_database(connection: Connection, name: str) -> None:
    quoted = connection.dialect.identifier_preparer.quote_identifier(name)
    connection.exec_driver_sql(f"CREATE DATABASE {quoted}")


def _exists(url: URL) -> bool:
    try:
        _run(url, lambda connection: None)
    except DatabaseUnavailable:
        return False
    return True


def _run(url: URL, action: Callable[[Connection], None], *, autocommit: bool = False) -> None:
    try:
        with_connection(url, action, autocommit=autocommit)
    except Exception as error:
        dialects.check_connecting(url, error)
        raise


def _create_tables(connection: Connection, metadata: MetaData | None, prefix: str | None) -> None:
    migration.upgrade(connection, prefix=prefix)
    if metadata is not None:
        metadata.create_all(connection)
        _check_columns(connection, metadata)


def _check_columns(connection: Connection, metadata: MetaData) -> None:
    """Raise an error if a table is older than its metadata, as `create_all` does not change tables."""
    missing = sorted(set(_missing_columns(connection, metadata)))
    if missing:
        shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise ConfigError(
            f"the tables in the test database {connection.engine.url.database} are older than the models,"
            f" and lack {shown}; drop these tables, or the database, and the next run creates them again"
        )


def _missing_columns(connection: Connection, metadata: MetaData) -> Iterable[str]:
    inspector = inspect(connection)
    for schema in {table.schema for table in metadata.tables.values()}:
        found = inspector.get_multi_columns(schema=schema)
        for table in metadata.tables.values():
            if table.schema == schema:
                existing = {column["name"] for column in found.get((schema, table.name), ())}
                names = {column.name for column in table.columns}
                yield from (f"{table.fullname}.{name}" for name in names - existing)


def _with_driver(url: URL, *, asynchronous: bool) -> URL:
    """The URL with its own driver if that is of the right kind, or else with an installed one that is."""
    dialect = dialects.by_name(url.get_backend_name())
    usable = dialect.async_drivers if asynchronous else dialect.sync_drivers
    if url.get_driver_name() not in usable:
        candidates = [url.set(drivername=f"{dialect.name}+{driver}") for driver in usable]
        # If none is installed, the error is about the preferred one.
        url = next(filter(_has_driver, candidates), candidates[0])
    return dialects.parse_url(url, asynchronous=asynchronous)


def _has_driver(url: URL) -> bool:
    try:
        url.get_dialect().import_dbapi()
    except ImportError:
        return False
    return True
