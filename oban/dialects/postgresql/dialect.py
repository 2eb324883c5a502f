"""PostgreSQL 14 and newer: SKIP LOCKED, jsonb, arrays, the server's clock, NOTIFY."""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    BindParameter,
    Boolean,
    ColumnElement,
    Connection,
    FromClause,
    Insert,
    Select,
    Table,
    Text,
    any_,
    bindparam,
    case,
    cast,
    column,
    func,
    literal_column,
    select,
    text,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, array, insert
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.orm import Session

from oban import encoding
from oban.dialects.base import HALF, MAX_ERRORS, UNREACHABLE, UNWRITABLE, ColumnType, Dialect, sql_literal
from oban.types import JSONDocument, TextList, UTCDateTime

_NATIVE: dict[Any, Any] = {JSONDocument: JSONB, TextList: ARRAY(Text)}
_NOTIFY = text(
    "SELECT pg_notify(coalesce(CAST(:prefix AS text), current_schema()) || '.oban_' || :channel, payload)"
    " FROM unnest(CAST(:payloads AS text[])) AS payload"
).bindparams(bindparam("payloads", type_=ARRAY(Text)))

# Error classes and codes of appendix A of the PostgreSQL manual.
_UNDEFINED_TABLE = {"42P01", "3F000"}
_TRANSIENT = {"40001", "40P01"}
# Somebody keeps a row locked: not worth a try at once, but one later.
_LOCKED = "55P03"
#: How long a statement of the runner waits for a lock, in milliseconds. An outcome whose row somebody keeps
#: locked for longer is then tried by itself, from time to time, and stops no other.
LOCK_TIMEOUT = 1000
_READ_ONLY = "25006"
_BAD_VALUE_CLASSES = {"22", "54"}
_LOST_STATEMENT = {"26000", "42P05"}
# Of 57, query_canceled too: by statement_timeout or by hand, the statement is not at fault.
_CONNECTION_CLASSES = {"08", "53", "57", "58", "28", "3D"}


#: Bytes that a payload of NOTIFY must stay below.
MAX_PAYLOAD = 8000
_UNPREPARED: dict[str, dict[str, Any]] = {
    # The first is the driver's own cache, the others are SQLAlchemy's.
    "asyncpg": {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: "",
    },
    "psycopg": {"prepare_threshold": None},
    "psycopg2": {},
    "pg8000": {},
}
_EMPTY_LIST: ColumnElement[Any] = literal_column("CAST('[]' AS jsonb)")
_EMPTY_OBJECT: ColumnElement[Any] = literal_column("CAST('{}' AS jsonb)")
#: A place in the list is left for one error more.
_ENDS = f"$[0 to {HALF - 1}, last - {HALF - 2} to last]"


def _object(document: Any) -> ColumnElement[Any]:
    return case((func.jsonb_typeof(document) == sql_literal("object"), document), else_=_EMPTY_OBJECT)


class PostgreSQL(Dialect):
    name = "postgresql"
    async_drivers = ("asyncpg", "psycopg")
    sync_drivers = ("psycopg", "psycopg2", "pg8000")
    sync_driver = None
    interruptible = True
    has_schemas = True
    insert_notifies = True
    writes_in_cte = True
    listens = True
    isolation = "READ COMMITTED"
    single_writer = False

    def now(self) -> ColumnElement[datetime]:
        # Of the statement, not the transaction: a long transaction of the caller must not stamp
        # jobs with the past. Stable within a statement, so that an index can serve it.
        return literal_column("timezone('UTC', statement_timestamp())", UTCDateTime)

    def now_plus(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        return self.now() + func.make_interval(*(literal_column("0"),) * 6, seconds)

    def now_minus(self, seconds: ColumnElement[float]) -> ColumnElement[datetime]:
        return self.now() - func.make_interval(*(literal_column("0"),) * 6, seconds)

    def insert(self, table: Table) -> Insert:
        return insert(table)

    def in_ids(self, column: Any, ids: BindParameter[Any]) -> ColumnElement[bool]:
        return column == any_(ids)  # type: ignore[no-any-return]

    def in_subquery(self, column: Any, query: Select[Any]) -> ColumnElement[bool]:
        # As an array, the query runs once, whatever the planner thinks of its LIMIT, and the rows
        # are then found by primary key. Joined instead, a generic plan may scan the whole table.
        ids = func.array(query.scalar_subquery(), type_=ARRAY(BigInteger))
        return column == any_(ids)  # type: ignore[no-any-return]

    def index_limit(self, limit: ColumnElement[int]) -> ColumnElement[int]:
        # With a limit that it knows, and without statistics, as after a bulk load, or with those of an idle
        # hour, the planner expects fewer rows than that where there are many, finds all of them with a
        # bitmap, and sorts them. Of a query's it knows nothing, and goes for a tenth of what it expects.
        return select(limit).scalar_subquery()

    def recordset(self, payload: str, columns: Mapping[str, ColumnType]) -> FromClause:
        typed = [column(name, _NATIVE.get(type_, type_)) for name, type_ in columns.items()]
        records = func.jsonb_to_recordset(cast(bindparam(payload, type_=Text), JSONB))
        return records.table_valued(*typed).render_derived(name="r", with_types=True)

    def second_element(self, texts: Any) -> ColumnElement[str]:
        return type_coerce(texts, ARRAY(Text))[2]

    def string_list(self, *items: ColumnElement[str]) -> ColumnElement[Any]:
        return array(items, type_=Text)

    def json_document(self, json: ColumnElement[str]) -> ColumnElement[Any]:
        return cast(json, JSONB)

    def append_error(self, errors: Any, attempt: Any, error: Any) -> ColumnElement[Any]:
        at = func.to_char(self.now(), sql_literal('YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
        keys = (sql_literal(key) for key in ("attempt", "at", "error"))
        pairs = [item for pair in zip(keys, (attempt, at, error), strict=True) for item in pair]
        entry = func.jsonb_build_object(*pairs)
        kept = case(
            (func.jsonb_typeof(errors) != sql_literal("array"), _EMPTY_LIST),
            (func.jsonb_array_length(errors) < literal_column(str(MAX_ERRORS)), errors),
            else_=func.jsonb_path_query_array(errors, sql_literal(_ENDS)),
        )
        return kept.op("||")(entry)

    def set_keys(self, document: Any, values: Mapping[str, Any]) -> ColumnElement[Any]:
        pairs = [
            item
            for key, value in values.items()
            for item in (sql_literal(key), cast(cast(value, Text), JSONB))
        ]
        return _object(document).op("||")(func.jsonb_build_object(*pairs))

    def has_key(self, document: Any, key: str) -> ColumnElement[bool]:
        return func.jsonb_exists(_object(document), sql_literal(key), type_=Boolean)

    def without_keys(self, document: Any, *keys: str) -> ColumnElement[Any]:
        return _object(document).op("-")(array([sql_literal(key) for key in keys]))

    def unindexed_state(self, column: Any) -> ColumnElement[Any]:
        # Right after ANALYZE, with no executing rows, the planner takes the five-column index for
        # "state = 'executing'" to be the cheapest way in, and scans it once per id.
        return cast(column, Text)

    def version(self) -> ColumnElement[str]:
        return literal_column("CAST(xmin AS text)", Text)

    def begin_write(self, session: Session) -> None:
        """Rows are locked one by one."""

    def begin_migration(self, connection: Connection, prefix: str) -> None:
        lock = text("SELECT pg_advisory_xact_lock(hashtext('oban migration ' || :prefix))")
        connection.execute(lock, {"prefix": prefix})

    def notify(
        self, session: Session, prefix: str | None, channel: str, payloads: Iterable[dict[str, Any]]
    ) -> None:
        texts = [encoding.dumps(payload) for payload in payloads]
        # A longer one would fail the transaction. What it is about is found by looking.
        if texts := [text for text in texts if len(text.encode()) < MAX_PAYLOAD]:
            session.execute(_NOTIFY, {"prefix": prefix, "channel": channel, "payloads": texts})

    def engine_options(self, url: URL, pooled: bool = False) -> dict[str, Any]:
        # The pooler gives each transaction to any of its servers: a statement that was prepared in an
        # earlier one is not there, or another client's has its name. Unnamed, it is parsed each time.
        return {"connect_args": _UNPREPARED[url.get_driver_name()]} if pooled else {}

    def prepare(self, connection: Connection) -> None:
        """Nothing: a server is set up by whoever runs it."""

    def session_limits_sql(self, seconds: float) -> str | None:
        # A client that is cut off, or frozen, cannot end what it began: its locks would stay until the
        # server gives the connection up, after hours. Shorter limits of the server's own stay.
        limit = math.ceil(seconds * 1000)
        lock = min(LOCK_TIMEOUT, limit)
        return (
            "SELECT set_config(name, CAST(given AS text), false) FROM pg_settings JOIN (VALUES"  # noqa: S608
            f" ('statement_timeout', {limit}), ('idle_in_transaction_session_timeout', {limit}),"
            f" ('lock_timeout', {lock})) AS limits (name, given) USING (name)"
            " WHERE CAST(setting AS bigint) NOT BETWEEN 1 AND given"
        )

    def current_schema(self, connection: Connection) -> str | None:
        return connection.scalar(select(func.current_schema()))

    def is_missing_table(self, error: DBAPIError) -> bool:
        return _sqlstate(error) in _UNDEFINED_TABLE

    def is_lost_statement(self, error: Exception) -> bool:
        # At the set-up of a connection, asyncpg raises its own errors.
        state = _sqlstate(error) if isinstance(error, DBAPIError) else getattr(error, "sqlstate", None)
        return state in _LOST_STATEMENT

    def is_transient(self, error: DBAPIError) -> bool:
        return _sqlstate(error) in _TRANSIENT

    def is_connection_error(self, error: BaseException) -> bool:
        if isinstance(error, DBAPIError):
            state = _sqlstate(error)
            # Whatever was said last, a timeout of the transaction, say, the connection has ended.
            if error.connection_invalidated:
                return True
            if state is None:
                # Raised by the driver, not the server: a lost connection, also one that the driver takes to
                # be in the middle of something else, or a value that it refuses.
                return isinstance(error, (OperationalError, InterfaceError, InternalError))
            return _unusable(state)
        if (state := getattr(error, "sqlstate", None)) is not None:
            return _unusable(state)
        return isinstance(error, UNREACHABLE)

    def is_retryable(self, error: BaseException) -> bool:
        locked = isinstance(error, DBAPIError) and _sqlstate(error) == _LOCKED
        return locked or super().is_retryable(error)

    def is_bad_value(self, error: BaseException) -> bool:
        if isinstance(error, DBAPIError):
            state = _sqlstate(error)
            return isinstance(error, DataError) if state is None else state[:2] in _BAD_VALUE_CLASSES
        return isinstance(error, UNWRITABLE)


def _unusable(sqlstate: str) -> bool:
    return sqlstate[:2] in _CONNECTION_CLASSES or sqlstate == _READ_ONLY


def _sqlstate(error: DBAPIError) -> str | None:
    original = error.orig
    # asyncpg and psycopg, psycopg2, and pg8000, which has the fields of the server's message.
    if (state := getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)) is not None:
        return str(state)
    fields = original.args[0] if original is not None and original.args else None
    return fields.get("C") if isinstance(fields, dict) else None
