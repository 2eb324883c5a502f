"""Finds connections that the server, or the network, has ended while they were idle.

A lost connection is replaced before its use, so that no call fails because of it. For a connection that was
used a moment ago, this costs nothing. Later, the driver is asked what it knows without a round trip. After
`PING_AFTER` seconds the server has to answer, as a proxy or a firewall may have dropped the connection.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from sqlalchemy import Dialect, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

from oban import clock, compat, dialects

#: Seconds since its last use after which the driver is asked about a connection, and then the server.
ASK_AFTER = 0.001
PING_AFTER = 5.0
#: Seconds that the server can take to answer.
PING_LIMIT = 5.0
_USED_AT = "oban_used_at"


def watch(engine: Engine) -> None:
    """Check each connection of an engine's pool, and of pools that are made after it, before its use.

    Does nothing for a pool that tests its connections already.
    """
    if dialects.for_bind(engine).is_remote and not compat.tests_connections(engine.pool):
        listener = partial(_check_out, engine.dialect)
        compat.mark_own(listener)
        event.listen(engine.pool, "checkout", listener)


def note_use(entry: ConnectionPoolEntry) -> None:
    """Note that a connection works at this moment, such as one that has just been opened ahead of its use."""
    entry.info[_USED_AT] = clock.monotonic()


def _check_out(
    dialect: Dialect, dbapi_connection: DBAPIConnection, entry: ConnectionPoolEntry, _: object
) -> None:
    now = clock.monotonic()
    idle = now - entry.info.get(_USED_AT, now)
    entry.info[_USED_AT] = now
    if not is_usable(dialect, dbapi_connection, idle):
        # SQLAlchemy connects again. If nothing answers, it closes the other idle connections, too.
        raise InvalidatePoolError if idle >= PING_AFTER else DisconnectionError


def is_usable(dialect: Dialect, dbapi_connection: DBAPIConnection, idle: float) -> bool:
    """Whether a connection that was last used `idle` seconds ago still leads to the server."""
    if idle < ASK_AFTER:
        return True
    ours = dialects.by_name(dialect.name)
    driver = dialect.get_driver_connection(dbapi_connection)
    lost = ours.is_lost(driver)
    if lost or (lost is False and idle < PING_AFTER):
        return not lost
    try:
        with _limited(partial(ours.cut, driver)):
            return dialect.do_ping(dbapi_connection)
    # Whatever the driver raises, a new connection takes the place of this one.
    except Exception:
        return False


@contextmanager
def _limited(cut: Callable[[], None]) -> Iterator[None]:
    """Call `cut` if what happens within takes longer than `PING_LIMIT`."""

    def end() -> None:
        # The driver may have closed the connection just now.
        with suppress(Exception):
            cut()

    # Not a timeout of asyncio: psycopg goes on to wait when it is cancelled.
    timer = threading.Timer(PING_LIMIT, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
