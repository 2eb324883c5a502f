"""SQLite 3.35 and newer: one writer at a time, WAL, lists and documents as JSON text."""

import sqlite3
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import (
    URL,
    AsyncAdaptedQueuePool,
    BindParameter,
    ColumnElement,
    Connection,
    FromClause,
    Insert,
    QueuePool,
    Select,
    Table,
    Text,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    null,
    select,
    text,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from oban.dialects.base import (
    HALF,
    MAX_ERRORS,
    NOTICES,
    UNREACHABLE,
    UNWRITABLE,
    ColumnType,
    Dialect,
    sql_literal,
)
from oban.types import UTCDateTime

#: How long a connection waits for another writer, in seconds.
BUSY_TIMEOUT = 30.0


class TolerantConnection(sqlite3.Connection):
    """Reads text that is not UTF-8, which SQLite keeps like any other, instead of refusing its row."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.text_factory = partial(str, encoding="utf-8", errors="replace")


# Microseconds are written as SQLAlchemy writes them, so that texts compare as times do.
_NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


class SQLite(Dialect):
    name = "sqlite"
    async_drivers = ("aiosqlite",)
    sync_drivers = ("pysqlite",)
    sync_driver = "pysqlite"
    # A statement abandoned half-way keeps its lock on the database until it is collected.
    interruptible = False
    has_schemas = False
    insert_notifies = False
    writes_in_cte = False
    listens = False
    isolation = None
    single_writer = True

    def now(self) -> ColumnElement[datetime]:
        return literal_column(_NOW, UTCDateTime)

    def now_plus(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        return self._moved("+%.3f seconds", seconds)

    def now_minus(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        return self._moved("-%.3f seconds", seconds)

    def _moved(self, by: str, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        modifier = func.printf(sql_literal(by), seconds)
        return func.strftime(
            sql_literal("%Y-%m-%d %H:%M:%f000"), sql_literal("now"), modifier, type_=UTCDateTime
        )

    def insert(self, table: Table) -> Insert:
        return insert(table)

    def in_ids(self, column: Any, ids: BindParameter[Any]) -> ColumnElement[bool]:
        return column.in_(select(literal_column("value")).select_from(func.json_each(ids)))  # type: ignore[no-any-return]

    def in_subquery(self, column: Any, query: Select[Any]) -> ColumnElement[bool]:
        return column.in_(query)  # type: ignore[no-any-return]

    def recordset(self, payload: str, columns: Mapping[str, ColumnType]) -> FromClause:
        each = func.json_each(bindparam(payload, type_=Text)).table_valued("value", name="each")
        return select(
            *(
                func.json_extract(each.c.value, sql_literal(f"$.{name}"), type_=type_).label(name)
                for name, type_ in columns.items()
            )
        ).subquery("r")

    def second_element(self, texts: Any) -> ColumnElement[str]:
        # Of a text that is no JSON, json_extract() would make the whole statement fail.
        second = sql_literal("$[1]")
        return case(
            (func.json_valid(texts) == literal_column("0"), null()),
            (
                func.json_type(texts, second) == sql_literal("text"),
                func.json_extract(texts, second, type_=Text),
            ),
            else_=null(),
        )

    def string_list(self, *items: ColumnElement[str]) -> ColumnElement[Any]:
        return func.json_array(*items, type_=Text)

    def json_document(self, json: ColumnElement[str]) -> ColumnElement[Any]:
        return json

    def append_error(self, errors: Any, attempt: Any, error: Any) -> ColumnElement[Any]:
        at: ColumnElement[str] = literal_column("strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')")
        keys = (sql_literal(key) for key in ("attempt", "at", "error"))
        pairs = [item for pair in zip(keys, (attempt, at, error), strict=True) for item in pair]
        listed = _if_a(errors, "array", "[]")
        middle = sql_literal(f"$[{HALF}]")
        length = func.json_array_length(listed)
        kept = case(
            (length < literal_column(str(MAX_ERRORS)), listed),
            (length == literal_column(str(MAX_ERRORS)), func.json_remove(listed, middle)),
            # Of a list that others have made so long, one more each time.
            else_=func.json_remove(listed, middle, middle),
        )
        return func.json_insert(kept, sql_literal("$[#]"), func.json_object(*pairs))

    def set_keys(self, document: Any, values: Mapping[str, Any]) -> ColumnElement[Any]:
        pairs = [
            item for key, value in values.items() for item in (sql_literal(f"$.{key}"), func.json(value))
        ]
        return func.json_set(_object(document), *pairs)

    def has_key(self, document: Any, key: str) -> ColumnElement[bool]:
        return func.json_type(_object(document), sql_literal(f"$.{key}")).is_not(None)

    def without_keys(self, document: Any, *keys: str) -> ColumnElement[Any]:
        return func.json_remove(_object(document), *(sql_literal(f"$.{key}") for key in keys))

    def unindexed_state(self, column: Any) -> ColumnElement[Any]:
        # By the index on the state it would find all executing rows, and look for each of them through
        # the whole list of ids.
        return cast(column, Text)

    def hint_partial_index(self, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        # Without ANALYZE, and nobody runs that, SQLite takes an equality for so rare that it goes by the
        # index on the state, whatever that then finds.
        return func.likely(condition)

    def version(self) -> ColumnElement[str]:
        # What was read in a transaction that may write is changed by nobody else.
        return sql_literal("")

    def begin_write(self, session: Session) -> None:
        # Rows cannot be locked: a statement that may write takes the lock of the whole database,
        # before anything is read. It waits for other writers; going from reading to writing later
        # would fail instead of waiting.
        session.execute(_TAKE_LOCK)

    def has_locked(self, connection: Connection) -> bool:
        # The drivers begin a transaction with the first statement that writes; an application that has it
        # begin earlier mostly wants the lock, too.
        return bool(getattr(connection.connection.driver_connection, "in_transaction", False))

    def begin_migration(self, connection: Connection, prefix: str) -> None:
        driver: Any = connection.connection.driver_connection
        if not driver.in_transaction:
            # By itself, the driver begins none for statements that change the schema.
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    def notify(
        self, session: Session, prefix: str | None, channel: str, payloads: Iterable[dict[str, Any]]
    ) -> None:
        if NOTICES not in session.info:
            session.info[NOTICES] = []
        session.info[NOTICES].extend((channel, payload) for payload in payloads)

    def engine_options(self, url: URL, pooled: bool = False) -> dict[str, Any]:
        options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT, "factory": TolerantConnection}}
        if self.is_memory(url):
            # The database lives as long as its connection: one, for which everybody waits.
            is_async = url.get_driver_name() in self.async_drivers
            options |= {"poolclass": AsyncAdaptedQueuePool if is_async else QueuePool}
            options |= {"pool_size": 1, "max_overflow": 0}
            options["connect_args"]["check_same_thread"] = False
        return options

    def is_memory(self, url: URL) -> bool:
        return url.database in (None, "", ":memory:") or "mode=memory" in str(url)

    def prepare(self, connection: Connection) -> None:
        # Kept in the file from then on. Readers and the writer do not wait for each other.
        with connection.begin():
            # An application's event may have begun a transaction, in which the mode cannot be changed.
            connection.connection.rollback()
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")

    def current_schema(self, connection: Connection) -> str | None:
        return None

    def is_missing_table(self, error: DBAPIError) -> bool:
        # SQLite has no code of its own for it: SQLITE_ERROR stands for every faulty statement.
        return "no such table: oban_" in str(error.orig)

    def is_transient(self, error: DBAPIError) -> bool:
        return _code(error) in (5, 6)  # SQLITE_BUSY, SQLITE_LOCKED

    def is_connection_error(self, error: BaseException) -> bool:
        if isinstance(error, DBAPIError):
            # SQLITE_BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN: none is the statement's fault.
            return _code(error) in (5, 6, 8, 10, 13, 14)
        return isinstance(error, UNREACHABLE)

    def is_bad_value(self, error: BaseException) -> bool:
        if isinstance(error, DBAPIError):
            # SQLITE_TOOBIG; what the driver refuses has no code.
            return _code(error) in (0, 18)
        return isinstance(error, UNWRITABLE)


def _if_a(document: Any, kind: str, default: str) -> ColumnElement[Any]:
    """A JSON text if it holds what it should. CASE decides in order: JSON functions refuse other texts."""
    return case(
        (func.json_valid(document) == literal_column("0"), sql_literal(default)),
        (func.json_type(document) == sql_literal(kind), document),
        else_=sql_literal(default),
    )


def _object(document: Any) -> ColumnElement[Any]:
    return _if_a(document, "object", "{}")


_TAKE_LOCK = text("UPDATE oban_jobs SET id = id WHERE 0")


def _code(error: DBAPIError) -> int:
    code: int = getattr(error.orig, "sqlite_errorcode", 0)
    return code & 0xFF
