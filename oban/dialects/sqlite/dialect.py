"""The `Dialect` of SQLite: one writer at a time, WAL, lists and documents as JSON text."""

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import URL, BindParameter, ColumnElement, Connection, FromClause, Insert, Select, Table
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeDecorator

from oban import encoding
from oban.dialects.base import HALF, MAX_ERRORS, UNREACHABLE, UNWRITABLE, ColumnType, Dialect, sql_literal
from oban.dialects.sqlite.documents import SQLiteDocuments, json_or_empty
from oban.types import UTCDateTime

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
# With six digits after the point, as SQLAlchemy stores a time, so that strings compare as times do.
_NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
# An UPDATE takes the write lock even if it matches no row.
_TAKE_LOCK = sa.text("UPDATE oban_jobs SET id = id WHERE 0")


class _IdList(TypeDecorator[list[int]]):
    """Ids as one parameter: a JSON list."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: list[int] | None, dialect: Any) -> str:
        return encoding.dumps(value)


class SQLite(Dialect):
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
    single_writer = True

    def now(self) -> ColumnElement[datetime]:
        return sa.literal_column(_NOW, UTCDateTime)

    def now_plus(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        return self._shifted("+%.3f seconds", seconds)

    def now_minus(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        return self._shifted("-%.3f seconds", seconds)

    def _shifted(self, modifier: str, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        return sa.func.strftime(
            sql_literal("%Y-%m-%d %H:%M:%f000"),
            sql_literal("now"),
            sa.func.printf(sql_literal(modifier), seconds),
            type_=UTCDateTime,
        )

    def insert(self, table: Table) -> Insert:
        return insert(table)

    def id_list(self, name: str = "ids") -> BindParameter[Any]:
        return sa.bindparam(name, type_=_IdList)

    def in_ids(self, column: Any, ids: BindParameter[Any]) -> ColumnElement[bool]:
        return column.in_(sa.select(sa.literal_column("value")).select_from(sa.func.json_each(ids)))  # type: ignore[no-any-return]

    def in_subquery(self, column: Any, query: Select[Any]) -> ColumnElement[bool]:
        return column.in_(query)  # type: ignore[no-any-return]

    def recordset(self, payload: str, columns: Mapping[str, ColumnType]) -> FromClause:
        each = sa.func.json_each(sa.bindparam(payload, type_=sa.Text)).table_valued("value", name="each")
        values = (
            sa.func.json_extract(each.c.value, sql_literal(f"$.{name}"), type_=type_).label(name)
            for name, type_ in columns.items()
        )
        return sa.select(*values).subquery("r")

    def second_element(self, strings: Any) -> ColumnElement[str]:
        second = sql_literal("$[1]")
        return sa.case(
            # json_type() and json_extract() fail the whole statement for text that is not JSON.
            (sa.func.json_valid(strings) == sa.literal_column("0"), sa.null()),
            (
                sa.func.json_type(strings, second) == sql_literal("text"),
                sa.func.json_extract(strings, second, type_=sa.Text),
            ),
            else_=sa.null(),
        )

    def string_list(self, *items: ColumnElement[str]) -> ColumnElement[Any]:
        return sa.func.json_array(*items, type_=sa.Text)

    def json_document(self, json: ColumnElement[str]) -> ColumnElement[Any]:
        return json

    def append_error(self, errors: Any, attempt: Any, error: Any) -> ColumnElement[Any]:
        at: ColumnElement[str] = sa.literal_column("strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')")
        entries = json_or_empty(errors, "array")
        middle = sql_literal(f"$[{HALF}]")
        length = sa.func.json_array_length(entries)
        shortened = sa.case(
            (length < sa.literal_column(str(MAX_ERRORS)), entries),
            (length == sa.literal_column(str(MAX_ERRORS)), sa.func.json_remove(entries, middle)),
            # Another implementation has made the list longer: it becomes shorter by one entry each time.
            else_=sa.func.json_remove(entries, middle, middle),
        )
        keys = (sql_literal(key) for key in ("attempt", "at", "error"))
        entry = sa.func.json_object(*chain.from_iterable(zip(keys, (attempt, at, error), strict=True)))
        return sa.func.json_insert(shortened, sql_literal("$[#]"), entry)

    def set_keys(self, document: Any, values: Mapping[str, Any]) -> ColumnElement[Any]:
        pairs = ((sql_literal(f"$.{key}"), sa.func.json(value)) for key, value in values.items())
        return sa.func.json_set(json_or_empty(document, "object"), *chain.from_iterable(pairs))

    def has_key(self, document: Any, key: str) -> ColumnElement[bool]:
        return sa.func.json_type(json_or_empty(document, "object"), sql_literal(f"$.{key}")).is_not(None)

    def without_keys(self, document: Any, *keys: str) -> ColumnElement[Any]:
        paths = (sql_literal(f"$.{key}") for key in keys)
        return sa.func.json_remove(json_or_empty(document, "object"), *paths)

    def unindexed_state(self, column: Any) -> ColumnElement[Any]:
        # SQLite would use the index on the state, and compare each executing row with all of the ids.
        return sa.cast(column, sa.Text)

    def hint_partial_index(self, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        # Without ANALYZE, which nobody runs, SQLite assumes that an equality matches few rows, and prefers
        # the five-column index on the state to the partial one.
        return sa.func.likely(condition)

    def version(self) -> ColumnElement[str]:
        # Since `begin_write`, nobody else can change a row that was read.
        return sql_literal("")

    def begin_write(self, connection: Connection) -> None:
        # Rows cannot be locked, only the whole database. This waits for other writers, while a transaction
        # that has read and wants to write later would fail at once.
        connection.execute(_TAKE_LOCK)

    def has_locked(self, connection: Connection) -> bool:
        # The driver begins a transaction with the first statement that writes. An application that begins
        # one earlier usually takes the lock as well.
        return bool(getattr(connection.connection.driver_connection, "in_transaction", False))

    def begin_migration(self, connection: Connection, prefix: str) -> None:
        driver: Any = connection.connection.driver_connection
        if not driver.in_transaction:
            # The driver does not begin a transaction for statements that change the schema.
            connection.exec_driver_sql("BEGIN IMMEDIATE")

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
        return url.database in (None, "", ":memory:") or "mode=memory" in str(url)

    def missing_file(self, url: URL) -> str | None:
        # A URI has parameters of its own, and may name a file that is not on a disk.
        if self.is_memory(url) or str(url.database).startswith("file:"):
            return None
        path = Path(str(url.database)).absolute()
        if not path.parent.is_dir():
            return f"the directory {path.parent} does not exist"
        return None if path.exists() else f"the file {path} does not exist"

    def prepare(self, connection: Connection) -> None:
        # In WAL mode, readers and the writer do not wait for each other. The file stays in this mode.
        with connection.begin():
            # An application's event handler may have begun a transaction. It would not let the mode change.
            connection.connection.rollback()
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")

    def is_missing_table(self, error: DBAPIError) -> bool:
        # There is no code for it: SQLITE_ERROR stands for every faulty statement.
        return "no such table: oban_" in str(error.orig)

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


def _code(error: DBAPIError) -> int:
    code: int = getattr(error.orig, "sqlite_errorcode", 0)
    return code & 0xFF
