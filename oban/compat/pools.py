"""Private names of SQLAlchemy's connection pools."""

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


def enable_pre_ping(pool: Pool) -> None:
    """Let a pool test connections before their use. Without the name, a lost one fails the next job on it."""
    if hasattr(pool, "_pre_ping"):
        pool._pre_ping = True


def shared_driver_connection(pool: Pool) -> Any:
    """Return the driver's connection that a pool gives to everybody, or to this thread.

    Without the names, None: a transaction that was begun past SQLAlchemy is then not detected.
    """
    record: Any = pool.__dict__.get("connection")
    if record is None:
        reference = getattr(getattr(pool, "_conn", None), "current", None)
        record = reference() if callable(reference) else None
    return getattr(record, "driver_connection", None)


def renew_queue(pool: Pool) -> list[ConnectionPoolEntry]:
    """Let tasks of another event loop wait for a pool; returns its idle connections.

    Without these names, none are returned. The pool then fails on another loop if tasks had to wait for it.
    """
    try:
        private: Any = pool
        adapted = private._pool
        queue = adapted._queue
        entries = []
        while not queue.empty():
            entries.append(queue.get_nowait())
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
