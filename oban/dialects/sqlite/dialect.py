"""The `Dialect` of SQLite: its drivers, files and errors, one writer at a time, and WAL."""

import re
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError

from oban import compat
from oban.dialects.base import UNREACHABLE, UNWRITABLE, Dialect, Executor
from oban.dialects.sqlite import files
from oban.dialects.sqlite.documents import SQLiteDocuments
from oban.dialects.sqlite.expressions import SQLiteExpressions
from oban.errors import ConfigError

#: How many seconds a connection waits for another writer.
BUSY_TIMEOUT = 30.0


class TolerantConnection(sqlite3.Connection):
    """Reads text that is not UTF-8, which SQLite stores like any other, instead of failing for its row."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.text_factory = partial(str, encoding="utf-8", errors="replace")


_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNUSABLE = _LOCKED | {
    *(sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN)
}
# SQLite has no codes for these: SQLITE_ERROR stands for every faulty statement.
_NO_TABLE = "no such table: oban_"
_NO_COLUMN = re.compile("no such column|has no column named")
# An UPDATE takes the write lock even if it matches no row.
_TAKE_LOCK = sa.text("UPDATE oban_jobs SET id = id WHERE 0")
# Take the write lock where there is no table yet.
_CHANGE_NOTHING = ("CREATE TABLE IF NOT EXISTS oban_lock (id INTEGER)", "DROP TABLE oban_lock")
_READS = re.compile(r"\s*(SELECT|VALUES|PRAGMA|EXPLAIN|SAVEPOINT|RELEASE|ROLLBACK|COMMIT)\b", re.IGNORECASE)
_WRITES = re.compile(
    r"\b(INSERT|UPDATE|DELETE|REPLACE|CREATE|DROP|ALTER|REINDEX|IMMEDIATE|EXCLUSIVE)\b", re.IGNORECASE
)


class SQLite(SQLiteExpressions, Dialect):
    name = "sqlite"
    documents = SQLiteDocuments()
    async_drivers = ("aiosqlite",)
    sync_drivers = ("pysqlite",)
    sync_driver = "pysqlite"
    # A statement that is abandoned keeps its lock on the database until it is garbage-collected.
    interruptible = False
    has_schemas = False
    insert_notifies = False
    writes_in_cte = False
    listens = False
    isolation = None
    begin_statement = "BEGIN"
    is_remote = False
    single_writer, row_address, has_range_index = True, "rowid", False

    def begin_write(self, connection: Executor) -> None:
        # Rows cannot be locked, only the whole database. This waits for other writers, while a transaction
        # that has read and wants to write later would fail at once.
        connection.execute(_TAKE_LOCK)

    def takes_lock(self, statement: str) -> bool:
        return not _READS.match(statement) and _WRITES.search(statement) is not None

    def total_changes(self, connection: Connection) -> int:
        return getattr(connection.connection.driver_connection, "total_changes", 0)

    def driver_autocommits(self, connection: Connection) -> bool:
        # Since Python 3.12. Without it, or with its default, the isolation level decides.
        if isinstance(autocommit := compat.sqlite_autocommit(connection), bool):
            return autocommit
        return connection.connection.dbapi_connection.isolation_level is None  # type: ignore[union-attr]

    def driver_in_transaction(self, driver: Any) -> bool:
        return bool(getattr(driver, "in_transaction", False))

    def begins_early(self, driver: Any) -> bool:
        return hasattr(sqlite3, "LEGACY_TRANSACTION_CONTROL") and compat.driver_autocommit(driver) is False

    def begin_migration(self, connection: Connection, prefix: str) -> None:
        if not self.in_transaction(connection):
            # The driver does not begin a transaction for statements that change the schema.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            # The driver or the application has begun one, which has not locked anything yet. Other
            # migrations wait for the first change.
            for statement in _CHANGE_NOTHING:
                connection.exec_driver_sql(statement)

    def check_url(self, url: URL) -> URL:
        if url.host or url.username or url.port:
            raise ConfigError(
                "the database URL cannot be read; one of SQLite has three slashes before a path, as in"
                " sqlite:///file.db, and a fourth one if the path is absolute"
            )
        return url

    def engine_options(self, url: URL, pooled: bool = False) -> dict[str, Any]:
        options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT, "factory": TolerantConnection}}
        if self.is_memory(url):
            # The database lives as long as its connection, so there is one, which all tasks share in turn.
            is_async = url.get_driver_name() in self.async_drivers
            options |= {"poolclass": sa.AsyncAdaptedQueuePool if is_async else sa.QueuePool}
            options |= {"pool_size": 1, "max_overflow": 0}
            options["connect_args"]["check_same_thread"] = False
        return options

    def is_memory(self, url: URL) -> bool:
        return files.parse(url).path is None

    def holds_memory(self, connection: Connection) -> bool | None:
        # The engine can open another database than its URL says, with creator= or connect_args.
        databases = connection.exec_driver_sql("PRAGMA database_list")
        (name,) = (path or "" for _, schema, path in databases if schema == "main")
        # A database of the memdb VFS has a name, but no file.
        return not Path(name).is_file()

    def missing_file(self, url: URL) -> str | None:
        path = files.parse(url).path
        if path is None:
            return None
        if not path.parent.is_dir():
            return f"the directory {path.parent} does not exist"
        return None if path.exists() else f"the file {path} does not exist"

    def same_file(self, url: URL, other: URL) -> bool:
        path, other_path = files.parse(url).path, files.parse(other).path
        return None not in (path, other_path) and path.resolve() == other_path.resolve()  # type: ignore[union-attr]

    def refusal(self, url: URL) -> str | None:
        return files.parse(url).refusal

    def refused_as(self, error: DBAPIError, url: URL) -> str | None:
        return files.parse(url).refusal if _code(error) == sqlite3.SQLITE_READONLY else None

    def prepare(self, connection: Connection) -> bool:
        # In WAL mode, readers and the writer do not wait for each other. The file stays in this mode.
        with connection.begin():
            # A transaction would not let the mode change. The application's event handler may have begun one.
            connection.connection.rollback()
            # With autocommit=False, the driver has begun another one, and expects one afterwards.
            begun = self.in_transaction(connection)
            if begun:
                connection.exec_driver_sql("COMMIT")
            try:
                # Other modes are not stored in the file: the application has set them.
                if _journal_mode(connection) != "delete":
                    return False
                timeout = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
                # The caller waits instead, so that it can stop.
                connection.exec_driver_sql("PRAGMA busy_timeout = 0")
                try:
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                finally:
                    connection.exec_driver_sql(f"PRAGMA busy_timeout = {timeout}")
            finally:
                if begun:
                    connection.exec_driver_sql("BEGIN")
        return True

    def mode(self, connection: Connection) -> str | None:
        mode = _journal_mode(connection)
        if mode == "wal":
            return None
        return f"the file's journal mode is {mode}, in which readers and the writer wait for each other"

    def is_missing_table(self, error: DBAPIError) -> bool:
        return _NO_TABLE in str(error.orig)

    def is_missing_column(self, error: DBAPIError) -> bool:
        return _NO_COLUMN.search(str(error.orig)) is not None

    def is_transient(self, error: DBAPIError) -> bool:
        return _code(error) in _LOCKED

    def is_connection_error(self, error: BaseException) -> bool:
        if isinstance(error, DBAPIError):
            return _code(error) in _UNUSABLE
        return isinstance(error, UNREACHABLE)

    def is_bad_value(self, error: BaseException) -> bool:
        if isinstance(error, DBAPIError):
            # The driver's own errors have no code.
            return _code(error) in (0, sqlite3.SQLITE_TOOBIG)
        return isinstance(error, UNWRITABLE)


def _journal_mode(connection: Connection) -> str:
    mode: str = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    return mode


def _code(error: DBAPIError) -> int:
    code: int = getattr(error.orig, "sqlite_errorcode", 0)
    return code & 0xFF
