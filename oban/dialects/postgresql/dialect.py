"""The `Dialect` of PostgreSQL: its drivers, transactions, limits and errors, advisory locks and NOTIFY."""

import math
import re
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import URL, Connection
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, InternalError, OperationalError

from oban import ddl, encoding
from oban.dialects.base import UNREACHABLE, UNWRITABLE, Dialect, InsertTrigger
from oban.dialects.postgresql import parameters, sockets
from oban.dialects.postgresql.documents import PostgreSQLDocuments
from oban.dialects.postgresql.expressions import PostgreSQLExpressions

# The schema in which a statement finds `oban_jobs`. It need not be the first one of the search_path, and the
# trigger names its channels after it.
_SCHEMA = (
    "coalesce((SELECT CAST(n.nspname AS text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.oid = to_regclass('oban_jobs')), CAST(current_schema() AS text))"
)
_MUTED = "lower(current_setting('oban.notify', true)) IN ('off', 'false', 'no', '0') IS TRUE"
_TRIGGER = sa.text(
    "SELECT CAST(t.tgenabled AS text) AS mode, p.prosrc AS source,"  # noqa: S608
    f" current_setting('session_replication_role') = 'replica' AS replica, {_MUTED} AS muted"
    " FROM pg_class c LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgname = :trigger"
    " LEFT JOIN pg_proc p ON p.oid = t.tgfoid WHERE c.relname = 'oban_jobs'"
    " AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema)"
).bindparams(trigger=ddl.TRIGGER)
# The trigger obeys the same setting.
_NOTIFY = sa.text(
    f"SELECT pg_notify(coalesce(CAST(:prefix AS text), {_SCHEMA}) || '.oban_' || :channel, payload)"  # noqa: S608
    " FROM unnest(CAST(:payloads AS text[])) AS payload"
    f" WHERE NOT ({_MUTED})"
).bindparams(sa.bindparam("payloads", type_=ARRAY(sa.Text)))

# SQLSTATE codes and classes (the first two characters): appendix A of the PostgreSQL manual.
_UNDEFINED_TABLE = {"42P01", "3F000"}
_UNDEFINED_COLUMN = "42703"
_TRANSIENT = {"40001", "40P01"}
# lock_timeout expired: another transaction keeps the row locked. Worth repeating later, but not at once.
_LOCKED = "55P03"
_READ_ONLY = "25006"
_BAD_VALUE_CLASSES = {"22", "54"}
_LOST_STATEMENT = {"26000", "42P05"}
# 57 includes query_canceled: neither statement_timeout nor an administrator means a faulty statement.
_CONNECTION_CLASSES = {"08", "53", "57", "58", "28", "3D"}
_TOO_MANY_CONNECTIONS = "53300"
#: What the server says then, for drivers that get no code for a refused connection, and what poolers say.
_FULL = re.compile(
    r"too many (clients|connections)|connection slots are reserved|no more connections allowed"
    r"|max(imum)? client(s reached| connections)",
    re.IGNORECASE,
)

#: How long a statement of the runner waits for a lock, in milliseconds. An outcome whose row stays locked
#: for longer is stored alone, and repeated from time to time, so that it delays no other outcome.
LOCK_TIMEOUT = 1000
#: A payload of NOTIFY must be shorter than this, in bytes.
MAX_PAYLOAD = 8000
#: Arguments of each driver's `connect` that turn prepared statements off.
_UNPREPARED: dict[str, dict[str, Any]] = {
    # The first is asyncpg's own cache, the others are SQLAlchemy's.
    "asyncpg": {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: "",
    },
    "psycopg": {"prepare_threshold": None},
    "psycopg2": {},
    "pg8000": {},
}


class PostgreSQL(PostgreSQLExpressions, Dialect):
    name = "postgresql"
    documents = PostgreSQLDocuments()
    async_drivers = ("asyncpg", "psycopg")
    sync_drivers = ("psycopg", "psycopg2", "pg8000")
    sync_driver = None
    interruptible = True
    has_schemas = True
    insert_notifies = True
    writes_in_cte = True
    listens = True
    isolation = "READ COMMITTED"
    begin_statement = "BEGIN ISOLATION LEVEL READ COMMITTED"
    is_remote = True
    single_writer, row_address, has_range_index = False, "ctid", True

    def driver_autocommits(self, connection: Connection) -> bool:
        return bool(getattr(connection.connection.dbapi_connection, "autocommit", False))

    def driver_in_transaction(self, driver: Any) -> bool:
        if (info := getattr(driver, "info", None)) is not None:
            # psycopg and psycopg2; 0 is idle.
            return bool(info.transaction_status != 0)
        # asyncpg has a method, pg8000 an attribute.
        if (ask := getattr(driver, "is_in_transaction", None)) is not None:
            return bool(ask())
        return bool(getattr(driver, "_in_transaction", False))

    def begin_migration(self, connection: Connection, prefix: str) -> None:
        lock = sa.text("SELECT pg_advisory_xact_lock(hashtext('oban migration ' || :prefix))")
        connection.execute(lock, {"prefix": prefix})

    def notify(
        self, connection: Connection, prefix: str | None, channel: str, payloads: Iterable[dict[str, Any]]
    ) -> None:
        encoded = (encoding.dumps(payload) for payload in payloads)
        # A longer payload would fail the transaction. Without it, the receivers find the change by polling.
        if short := [payload for payload in encoded if len(payload.encode()) < MAX_PAYLOAD]:
            connection.execute(_NOTIFY, {"prefix": prefix, "channel": channel, "payloads": short})

    def insert_trigger(self, connection: Connection, schema: str | None) -> InsertTrigger | None:
        row = connection.execute(_TRIGGER, {"schema": schema}).one_or_none()
        return None if row is None else InsertTrigger(*row)

    def check_url(self, url: URL) -> URL:
        return parameters.normalized(url, url.get_driver_name())

    def driver_url(self, url: URL) -> URL:
        return parameters.arguments(url, url.get_driver_name())[0]

    def engine_options(self, url: URL, pooled: bool = False) -> dict[str, Any]:
        driver = url.get_driver_name()
        arguments = parameters.arguments(url, driver)[1]
        # In another server session, a statement prepared earlier is unknown, or its name belongs to another
        # client's statement. Unnamed statements are parsed at each execution.
        if pooled:
            arguments |= _UNPREPARED[driver]
        options: dict[str, Any] = {"connect_args": arguments} if arguments else {}
        return options | ({parameters.PRE_PING: True} if parameters.pre_ping(url) else {})

    def connection_sql(self, url: URL) -> str | None:
        # Its statements are short, but many rows in a table can make them look long enough to be compiled. A
        # parameter of the connection would be refused by PgBouncer, and SET by a server without the setting.
        if any("jit=" in str(value) for value in url.query.values()):
            return None
        return "SELECT set_config('jit', 'off', false) WHERE current_setting('jit', true) = 'on'"

    def session_limits_sql(self, seconds: float) -> str | None:
        # The locks of a client that is frozen or cut off would otherwise last until the server gives up the
        # connection, after hours. Limits of the server that are shorter stay in force, and so does `jit` if
        # the application, the role or the database has set it.
        limit = math.ceil(seconds * 1000)
        lock = min(LOCK_TIMEOUT, limit)
        return (
            "SELECT set_config(name, value, false) FROM pg_settings JOIN (VALUES ('jit', 'off'),"  # noqa: S608
            f" ('statement_timeout', '{limit}'), ('idle_in_transaction_session_timeout', '{limit}'),"
            f" ('lock_timeout', '{lock}')) AS limits (name, value) USING (name)"
            " WHERE CASE name WHEN 'jit' THEN source IN ('default', 'configuration file')"
            " ELSE CAST(setting AS bigint) NOT BETWEEN 1 AND CAST(value AS bigint) END"
        )

    def transaction_limits_sql(self, seconds: float) -> str | None:
        limit = math.ceil(seconds * 1000)
        return (
            f"SELECT set_config('statement_timeout', '{limit}', true),"
            f" set_config('idle_in_transaction_session_timeout', '{limit}', true),"
            f" set_config('lock_timeout', '{min(LOCK_TIMEOUT, limit)}', true)"
        )

    def table_schema(self, connection: Connection) -> str | None:
        schema: str | None = connection.scalar(sa.text(f"SELECT {_SCHEMA}"))
        return schema

    def is_missing_table(self, error: DBAPIError) -> bool:
        return _sqlstate(error) in _UNDEFINED_TABLE

    def is_missing_column(self, error: DBAPIError) -> bool:
        return _sqlstate(error) == _UNDEFINED_COLUMN

    def is_lost_statement(self, error: Exception) -> bool:
        return _sqlstate(error) in _LOST_STATEMENT

    def is_stale_plan(self, error: DBAPIError) -> bool:
        # asyncpg: "cached statement plan is invalid"; the server: "cached plan must not change result type".
        original = str(error.orig)
        return "cached" in original and "plan" in original

    def is_transient(self, error: DBAPIError) -> bool:
        return _sqlstate(error) in _TRANSIENT or self.is_stale_plan(error)

    def is_connection_error(self, error: BaseException) -> bool:
        # The server's last message may be another one, such as a transaction timeout.
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            return True
        if (state := _sqlstate(error)) is not None:
            return state[:2] in _CONNECTION_CLASSES or state == _READ_ONLY
        # The driver raised it, not the server. To a driver, a lost connection can look busy. A value that the
        # driver refuses is a DataError.
        return isinstance(error, (OperationalError, InterfaceError, InternalError, *UNREACHABLE))

    def is_lost(self, driver_connection: Any) -> bool | None:
        return sockets.is_lost(driver_connection)

    def cut(self, driver_connection: Any) -> None:
        sockets.cut(driver_connection)

    def refuses_connection(self, error: BaseException) -> bool:
        # The server ends the connection itself, because of a role that may not connect or a setting in the
        # URL, say. The driver may refuse before: certificates that are missing, a malformed host name, a port
        # above 65535.
        malformed = isinstance(error, (UnicodeError, OverflowError))
        return malformed or self.is_connection_error(error) or _is_fatal(error)

    def is_full(self, error: BaseException) -> bool:
        if _sqlstate(error) == _TOO_MANY_CONNECTIONS:
            return True
        original = getattr(error, "orig", None) or error
        return self.is_connection_error(error) and _FULL.search(str(original)) is not None

    def is_locked(self, error: BaseException) -> bool:
        return isinstance(error, DBAPIError) and _sqlstate(error) == _LOCKED

    def is_retryable(self, error: BaseException) -> bool:
        return self.is_locked(error) or super().is_retryable(error)

    def is_bad_value(self, error: BaseException) -> bool:
        if isinstance(error, DBAPIError):
            state = _sqlstate(error)
            return isinstance(error, DataError) if state is None else state[:2] in _BAD_VALUE_CLASSES
        return isinstance(error, UNWRITABLE)


def _sqlstate(error: BaseException) -> str | None:
    # While SQLAlchemy sets up a connection, it does not wrap asyncpg's errors.
    original = getattr(error, "orig", None) or error
    # asyncpg and psycopg have `sqlstate`, psycopg2 has `pgcode`, pg8000 the fields of the server's message.
    if (state := getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)) is not None:
        return str(state)
    fields = original.args[0] if original.args else None
    return fields.get("C") if isinstance(fields, dict) else None


def _is_fatal(error: BaseException) -> bool:
    """Whether the server ended the connection with this error, or asyncpg's client code raised it."""
    original = getattr(error, "orig", None) or error
    for each in (original, original.__cause__):
        fields = each.args[0] if each is not None and each.args else None
        severity = fields.get("V") if isinstance(fields, dict) else getattr(each, "severity_en", None)
        # Older releases of SQLAlchemy do not wrap errors of asyncpg's that it raises without the server.
        own = any(kind.__module__.startswith("asyncpg.") for kind in type(each).__mro__)
        if severity in ("FATAL", "PANIC") or (own and severity is None):
            return True
    return False
