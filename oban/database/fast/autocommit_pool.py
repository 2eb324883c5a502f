"""Connections that are kept beside a pool, for statements that are transactions by themselves."""

import threading
from contextlib import suppress
from typing import NamedTuple

from sqlalchemy import Connection, Engine, Executable, Pool
from sqlalchemy.engine.interfaces import DBAPIConnection

from oban.database.fast.compiled import Prepared


class Era(NamedTuple):
    """What changes when the kept connections are of no more use.

    When one is lost, the others most likely are, too. An engine that was disposed of has another pool. And a
    connection does not know listeners, nor that statements are logged, if that is newer than itself.
    """

    lost: int
    pool: Pool
    is_heard: bool
    is_logged: bool


class Kept(NamedTuple):
    """A connection that commits by itself; `driven` is the driver's, `era` what it was made for."""

    connection: Connection
    driven: DBAPIConnection
    era: Era
    #: What was run before on those of the engine; None if SQLAlchemy has to run it each time.
    prepared: dict[Executable, Prepared | None]

    @property
    def is_watched(self) -> bool:
        """Whether somebody is to be told of each statement."""
        return self.era.is_heard or self.era.is_logged


class Keeper:
    """Keeps up to `most` connections of an engine of our own, ready for the next statement.

    Out of the pool, to another isolation level, back to the first and into the pool again: that takes
    as long as PostgreSQL needs to insert a job. A kept connection has left the pool for good, and comes
    to its end here.
    """

    def __init__(self, engine: Engine, most: int) -> None:
        self._engine = engine
        self._most = most
        self._lock = threading.Lock()
        self._idle: list[Kept] = []
        #: How many there are, idle or not.
        self._number = 0
        self._lost = 0
        self._prepared: dict[Executable, Prepared | None] = {}

    def _era(self) -> Era:
        engine = self._engine
        is_heard = engine._has_events or engine.dialect._has_events
        return Era(self._lost, engine.pool, is_heard, engine._should_log_info())

    @property
    def keeps(self) -> bool:
        """Whether it keeps any: the engine is one of our own."""
        return self._most > 0

    def take(self) -> Kept | None:
        """One that is idle, if there is any; it has to be given to `put`."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                # The one used last: the others are for when more are needed at once.
                kept = self._idle.pop()
            if kept.era == self._era():
                return kept
            self._end(kept)

    def keep(self, connection: Connection) -> bool:
        """Whether one from the pool, which commits by itself, is kept from now on: if there are too few."""
        with self._lock:
            if self._number >= self._most:
                return False
            self._number += 1
        driven = connection.connection.dbapi_connection
        assert driven is not None  # noqa: S101 - it has just been used
        connection.detach()
        self.put(Kept(connection, driven, self._era(), self._prepared))
        return True

    def put(self, kept: Kept, *, failed: bool = False) -> None:
        """Have one back after use. If a statement failed, it comes to its end, whatever state it is in."""
        if failed or kept.connection.invalidated or kept.era != self._era():
            self._end(kept)
        else:
            with self._lock:
                self._idle.append(kept)

    def _end(self, kept: Kept) -> None:
        with self._lock:
            self._number -= 1
        # Closed by SQLAlchemy, one that has left its pool stays open with some drivers, or after a failure.
        kept.connection.invalidate()
        # Of a connection that is lost, some drivers say so again: what matters was raised before.
        with suppress(Exception):
            self._engine.dialect.do_terminate(kept.driven)

    def forget(self) -> None:
        """Use none again that is kept now: a connection was lost."""
        self._lost += 1

    def close(self) -> None:
        """Close those that are idle."""
        self.forget()
        self.take()
