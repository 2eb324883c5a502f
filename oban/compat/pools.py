"""Private names of SQLAlchemy's connection pools."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Pool
from sqlalchemy.pool import ConnectionPoolEntry

#: The attribute that marks a listener of Oban's own.
_OWN = "is_oban_listener"


def pool_arguments(pool: Pool) -> dict[str, Any] | None:
    """Return the arguments for another pool that makes and treats connections as this one does.

    The creator knows how to connect whichever way the application chose: a URL, connect_args, a function, a
    new token for each connection. Without the names, None: the caller then connects with the URL.
    """
    try:
        private: Any = pool
        return {
            "creator": private._creator,
            "recycle": private._recycle,
            "pre_ping": private._pre_ping,
            "reset_on_return": private._reset_on_return,
            "_dispatch": private.dispatch,
        }
    except AttributeError:
        return None


def tests_connections(pool: Pool) -> bool:
    """Return whether a pool tests connections before their use, by a ping or a listener of Oban's own.

    Without the names, False: connections may be tested twice.
    """
    listeners = getattr(getattr(pool, "dispatch", None), "checkout", ())
    return getattr(pool, "_pre_ping", False) or any(hasattr(each, _OWN) for each in listeners)


def open_idle(pool: Pool, opened: Callable[[ConnectionPoolEntry], object]) -> bool:
    """Open one more connection of a queue pool, and leave it idle there; raises what connecting raises.

    `opened` is called with its entry. Returns False if the pool is full. Without the names, False as well:
    the jobs then open connections.
    """
    try:
        private: Any = pool
        create, count, discount = private._create_connection, private._inc_overflow, private._dec_overflow
        put = private._do_return_conn
    except AttributeError:
        return False
    if not count():
        return False
    try:
        entry = create()
    except BaseException:
        discount()
        raise
    opened(entry)
    put(entry)
    return True


def close_idle(pool: Pool) -> bool:
    """Close an idle connection of a queue pool. Returns whether there was one; False without the names."""
    try:
        private: Any = pool
        queue, discount = private._pool, private._dec_overflow
    except AttributeError:
        return False
    while queue.qsize():
        entry = queue.get(False)
        discount()
        # A connection that was invalidated has left its entry behind.
        if entry.dbapi_connection is not None:
            entry.invalidate()
            return True
    return False


def shared_driver_connection(pool: Pool) -> Any:
    """Return the driver's connection that a pool gives to everybody, or to this thread.

    Without the names, None: a transaction that was begun past SQLAlchemy is then not detected.
    """
    record: Any = pool.__dict__.get("connection")
    if record is None:
        reference = getattr(getattr(pool, "_conn", None), "current", None)
        record = reference() if callable(reference) else None
    return getattr(record, "driver_connection", None)


def renew_queue(pool: Pool, loop: object = None) -> list[ConnectionPoolEntry]:
    """Let tasks of another event loop wait for a pool; returns its idle connections.

    Tasks of `loop` that wait for a connection already go on waiting.

    Without these names, none are returned. The pool then fails on another loop if tasks had to wait for it.
    """
    try:
        private: Any = pool
        adapted = private._pool
        queue = adapted._queue
        entries = []
        while not queue.empty():
            entries.append(queue.get_nowait())
        # A new queue would never wake tasks that wait already. asyncio notes the loop of the first such task.
        if loop is None or getattr(queue, "_loop", None) not in (None, loop):
            # The loop that uses it next creates a new one.
            adapted.__dict__.pop("_queue", None)
        for entry in entries:
            adapted.put_nowait(entry)
        return entries
    except AttributeError:
        return []


def cares_for_connections(pool: Pool) -> bool:
    """Return whether a pool tests connections, recycles them, or calls listeners; True without the names."""
    try:
        private: Any = pool
        return bool(private._pre_ping or private._recycle > -1) or pool_listens(
            pool, "checkout", "checkin", "reset"
        )
    except AttributeError:
        return True


def pool_listens(pool: Pool, *events: str) -> bool:
    """Return whether an event of a pool has a listener of the application; True without the names."""
    dispatch = getattr(pool, "dispatch", None)
    for event in events:
        listeners = getattr(dispatch, event, True)
        if listeners is True or any(not hasattr(each, _OWN) for each in listeners or ()):
            return True
    return False


def mark_own(listener: Any) -> None:
    """Mark a listener of Oban's own, which `pool_listens` ignores: it does not set connections up."""
    setattr(listener, _OWN, True)
