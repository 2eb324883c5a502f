"""Engines that are made here: for a URL, and beside an engine of the application."""

from functools import partial
from typing import Any

from sqlalchemy import URL, AsyncAdaptedQueuePool, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from oban import dialects, encoding

#: Connections of an engine that is made here for a URL, idle ones at most: SQLAlchemy's default. Some of
#: them are kept beside its pool.
IDLE = 5
KEPT = 2


def make_engine(url: str | URL, pooled: bool = False, **options: Any) -> AsyncEngine:
    """An engine for a URL, with `options` of `create_async_engine`; `pooled` as in `Database`."""
    parsed = dialects.parse_async_url(url)
    return create_async_engine(parsed, **_options(parsed, pooled, options))


def make_sync_engine(url: str | URL, pooled: bool = False, **options: Any) -> Engine:
    """As `make_engine`, of a driver without asyncio."""
    parsed = dialects.parse_sync_url(url)
    return create_engine(parsed, **_options(parsed, pooled, options))


def _options(url: URL, pooled: bool, given: dict[str, Any]) -> dict[str, Any]:
    options = dialects.by_name(url.get_backend_name()).engine_options(url, pooled)
    usual: dict[str, Any] = {"json_deserializer": encoding.loads}
    if "poolclass" not in given:
        usual["pool_size"] = IDLE - KEPT
    return {**usual, **options, **given}


def engine_beside(
    engine: AsyncEngine, connections: int, timeout: float, statement: str | None
) -> AsyncEngine:
    """An engine that connects just as another one does, with its events, but through its own pool.

    Of `connections` at most, for which `timeout` seconds are waited; `statement` is run on each new one.
    """
    source = engine.sync_engine.pool
    pool = AsyncAdaptedQueuePool(
        # The pool knows how to connect whatever way the application chose: a URL, connect_args, a
        # creator, a token made anew for each connection. No public name leads to it.
        source._creator,
        pool_size=connections,
        max_overflow=0,
        recycle=source._recycle,
        pre_ping=source._pre_ping,
        reset_on_return=source._reset_on_return,
        timeout=timeout,
        dialect=engine.dialect,
        _dispatch=source.dispatch,
    )
    options = engine.sync_engine.get_execution_options()
    twin = Engine(pool, engine.dialect, engine.url, execution_options=options)
    # Of connections, too: one that begins transactions its own way, say.
    twin.dispatch._update(engine.sync_engine.dispatch, only_propagate=False)
    twin._has_events = engine.sync_engine._has_events
    if statement:
        event.listen(pool, "connect", partial(_run_once, statement))
    return AsyncEngine(twin)


def keeps(engine: AsyncEngine) -> bool:
    """Whether connections of an engine may stay out of its pool, which does nothing when it gives one out."""
    pool = engine.sync_engine.pool
    listened = pool.dispatch.checkout or pool.dispatch.checkin or pool.dispatch.reset
    return not (pool._pre_ping or pool._recycle > -1 or listened)


def _run_once(statement: str, connection: DBAPIConnection, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute(statement)
    cursor.close()
    connection.commit()


def usual_isolation(engine: Engine) -> str | None:
    """The level of a transaction that asks for none; None if that is not known, or no level at all."""
    asked = _asked_isolation(engine)
    # Not there before the first connection.
    found = getattr(engine.dialect, "default_isolation_level", None)
    return found if asked is None or asked == found else None


def autocommits(engine: Engine) -> bool:
    """Whether the engine was made so that each statement is a transaction by itself."""
    return _asked_isolation(engine) == "AUTOCOMMIT"


def _asked_isolation(engine: Engine) -> str | None:
    # Where the engine was made with a level, only this says so for AUTOCOMMIT.
    asked = engine.get_execution_options().get("isolation_level")
    return asked or engine.dialect._on_connect_isolation_level
