"""Engines that Oban makes: for a URL, and with a pool of their own next to the application's engine."""

from functools import partial
from typing import Any

from sqlalchemy import URL, AsyncAdaptedQueuePool, Dialect, Engine, Pool, QueuePool, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from oban import compat, dialects, encoding
from oban.database import driver_logs, idle
from oban.database.loops import LoopPool

#: Idle connections of an engine that Oban makes for a URL (SQLAlchemy's default), and how many of them its
#: autocommit pool keeps.
IDLE_CONNECTIONS = 5
AUTOCOMMIT_CONNECTIONS = 2

#: The isolation level of SQLAlchemy's for transactions of a database that has only one.
DEFAULT_ISOLATION = "SERIALIZABLE"
#: Advice for an application whose engine goes through a pooler in transaction mode.
LOST_STATEMENT_ADVICE = (
    "pass the URL instead of an engine, with notifier='poll' or listen_url=…, or make the engine with"
    " connect_args={'statement_cache_size': 0, 'prepared_statement_cache_size': 0,"
    " 'prepared_statement_name_func': lambda: ''} (asyncpg) or connect_args={'prepare_threshold': None}"
    " (psycopg)"
)


def make_engine(url: str | URL, pooled: bool = False, **options: Any) -> AsyncEngine:
    """An engine for a URL, with `options` of `create_async_engine`; `pooled` as in `Database`."""
    parsed = dialects.parse_url(url, asynchronous=True)
    engine = create_async_engine(_driver_url(parsed), **_engine_options(parsed, pooled, options, LoopPool))
    # As the user wrote it, with the parameters that became arguments of the driver.
    engine.sync_engine.url = parsed
    _watch(engine.sync_engine, pooled)
    return engine


def make_sync_engine(url: str | URL, pooled: bool = False, **options: Any) -> Engine:
    """Like `make_engine`, for a driver without asyncio."""
    parsed = dialects.parse_url(url, asynchronous=False)
    engine = create_engine(_driver_url(parsed), **_engine_options(parsed, pooled, options))
    engine.url = parsed
    _watch(engine, pooled)
    return engine


def _watch(engine: Engine, pooled: bool) -> None:
    """Set up each new connection of an engine for a URL, and check it before its use."""
    statement = dialects.for_bind(engine).connection_sql(engine.url)
    # Behind a pooler, the server's sessions are not ours to set up.
    if statement and not pooled:
        event.listen(engine.pool, "connect", partial(_run_first, engine.dialect, statement))
    idle.watch(engine)


def _run_first(dialect: Dialect, statement: str, connection: DBAPIConnection, _: object) -> None:
    """Run a statement on a connection that nothing was sent on yet, without a transaction's round trips."""
    try:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(statement)
        cursor.close()
        connection.autocommit = False
    except BaseException:
        # SQLAlchemy leaves a connection open whose listener fails or is interrupted.
        dialect.do_terminate(connection)
        raise


def _driver_url(url: URL) -> URL:
    return dialects.by_name(url.get_backend_name()).driver_url(url)


def _engine_options(
    url: URL, pooled: bool, options: dict[str, Any], pool: type[Pool] = QueuePool
) -> dict[str, Any]:
    driver_logs.hide_values()
    defaults: dict[str, Any] = {
        "json_deserializer": encoding.loads,
        # In errors and logs, parameters are args of jobs.
        "hide_parameters": True,
        "logging_name": driver_logs.LOGGING_NAME,
    }
    if "poolclass" not in options:
        defaults["poolclass"] = pool
        defaults["pool_size"] = IDLE_CONNECTIONS - AUTOCOMMIT_CONNECTIONS
    required = dialects.by_name(url.get_backend_name()).engine_options(url, pooled)
    if "poolclass" in options:
        # The size is that of another pool.
        required = {key: value for key, value in required.items() if key not in ("pool_size", "max_overflow")}
    return {**defaults, **required, **options}


def with_own_pool(
    engine: AsyncEngine, connections: int, timeout: float, statement: str | None
) -> AsyncEngine:
    """An engine that connects as `engine` does and calls its listeners, but has a pool of its own.

    The pool has up to `connections` connections, and waits up to `timeout` seconds for one of them. It runs
    `statement` on each new one. The connection that was returned last is the next one in use: a ping precedes
    the use of one that has long been idle.
    """
    source = engine.sync_engine
    size: dict[str, Any] = {"pool_size": connections, "max_overflow": 0}
    dialect, pool = source.dialect, source.pool
    if (arguments := compat.pool_arguments(pool)) is not None:
        pool = AsyncAdaptedQueuePool(**arguments, **size, timeout=timeout, use_lifo=True, dialect=dialect)
    else:
        options = {**size, "pool_timeout": timeout, "pool_use_lifo": True}
        made = create_async_engine(source.url, **options).sync_engine
        dialect, pool = made.dialect, made.pool
    driver_logs.hide_values()
    own = compat.FollowingEngine(source, pool, dialect)
    if statement:
        event.listen(own.pool, "connect", partial(_run_once, statement))
    return AsyncEngine(own)


def _run_once(statement: str, connection: DBAPIConnection, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute(statement)
    cursor.close()
    connection.commit()


def has_level(engine: Engine, level: str | None) -> bool:
    """Whether transactions that ask for no isolation level are known to have this one; None means any."""
    requested = _requested_isolation(engine)
    # The dialect does not know its default before its first connection.
    default = getattr(engine.dialect, "default_isolation_level", None)
    return level is None or (default == level and requested in (None, level))


def autocommits(engine: Engine) -> bool:
    """Whether the application made the engine in AUTOCOMMIT mode."""
    return _requested_isolation(engine) == "AUTOCOMMIT"


def _requested_isolation(engine: Engine) -> str | None:
    return engine.get_execution_options().get("isolation_level") or compat.connect_isolation_level(engine)
