"""A pool of connections in AUTOCOMMIT mode, for statements that commit on their own."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from sqlalchemy import Connection, CursorResult, Engine, Executable, Pool, Row
from sqlalchemy.engine.interfaces import DBAPIConnection

from oban import clock, compat, dialects
from oban.database import idle, inherited
from oban.database.fast.compiled import CompiledStatement


class Generation(NamedTuple):
    """The circumstances that a connection was made in. A connection of an older generation is closed.

    The generation changes when a connection is lost, because all of them probably are; when the engine is
    disposed of and gets a new pool; and when listeners or logging are added, which an older connection would
    not notice.
    """

    lost: int
    pool: Pool
    has_listeners: bool
    logs_statements: bool


class AutocommitConnection:
    """A connection on which each statement commits on its own."""

    __slots__ = ("_compiled", "_dbapi_connection", "connection", "generation", "owner", "process", "used_at")

    def __init__(
        self, connection: Connection, generation: Generation, compiled: "dict[Executable, Any] | None"
    ) -> None:
        self.connection = connection
        self.generation = generation
        self.process = inherited.process
        self.used_at = clock.monotonic()
        #: The result of `Owners.current()` when it was added to the pool.
        self.owner: object = None
        #: The driver's connection, once this one belongs to the pool below.
        self._dbapi_connection: DBAPIConnection | None = None
        watched = generation.has_listeners or generation.logs_statements
        self._compiled = None if watched else compiled

    def rows(
        self,
        statement: Executable,
        parameters: dict[str, Any],
        execute: Callable[[Executable, dict[str, Any]], Any],
    ) -> Sequence[Row[Any]]:
        """All rows of a statement, which `execute` runs until its compiled form is known."""
        if self._compiled is None or self._dbapi_connection is None:
            return execute(statement, parameters).all()  # type: ignore[no-any-return]
        compiled = self._compiled.get(statement)
        if compiled is not None:
            return compiled.rows(self.connection, self._dbapi_connection, parameters)  # type: ignore[no-any-return]
        result: CursorResult[Any] = execute(statement, parameters)
        if statement not in self._compiled:
            self._compiled[statement] = CompiledStatement.capture(result, parameters)
        return result.all()


class Owners:
    """The owners of connections in the pool: with asyncio, the event loops they work on; else None."""

    def current(self) -> object:
        """The owner of connections that are made here and now."""
        return None

    def has_ended(self, owner: object) -> bool:
        """Whether an owner will never use its connections again."""
        return False

    def drop(self, connection: DBAPIConnection | None) -> None:
        """Close an idle connection without its owner."""


class AutocommitPool:
    """Keeps up to `size` connections in AUTOCOMMIT mode, ready for the next statement.

    Checking a connection out of SQLAlchemy's pool, switching its isolation level there and back, and
    checking it in take as long as the INSERT of a job. Kept connections are detached from SQLAlchemy's pool,
    so this class closes them. With a size of 0 it keeps none, and is no more than `engine.connect()`.
    """

    def __init__(self, engine: Engine, size: int, owners: Owners, *, reuse_compiled: bool = True) -> None:
        self._engine = engine
        self._dialect = dialects.for_bind(engine)
        self._size = size
        self._is_remote = self._dialect.is_remote
        self._lock = threading.Lock()
        self._owners = owners
        #: By their owners.
        self._idle: dict[object, list[AutocommitConnection]] = {}
        #: The number of connections that belong to the pool, idle or in use.
        self._count = 0
        self._lost = 0
        #: By statement; None if SQLAlchemy has to execute it every time.
        self._compiled: dict[Executable, CompiledStatement | None] | None = {} if reuse_compiled else None

    def renew(self) -> None:
        """Begin with no connections in a forked child. Those of the parent are left alone."""
        self._lock = threading.Lock()
        if inherited.can_close(self._engine):
            self.close()
        inherited.leave_alone(self._idle)
        self._idle, self._count = {}, 0

    def acquire(self) -> AutocommitConnection:
        """An idle connection, or a new one; give it back with `release`."""
        owner = self._owners.current()
        while True:
            with self._lock:
                if not (ready := self._idle.get(owner)):
                    break
                # The one used last, so that idle ones stay idle unless more are needed at once.
                pooled = ready.pop()
            try:
                if pooled.generation == self._generation() and self._is_usable(pooled):
                    return pooled
            except BaseException:
                # Interrupted while the server was asked.
                self._close(pooled)
                raise
            self._close(pooled)
        connection = dialects.connect(self._engine)
        # A listener of `engine_connect` may have begun a transaction, which the caller commits then. If the
        # driver is in this mode already, SQLAlchemy would leave the mode when the connection is closed.
        if not (connection.in_transaction() or self._dialect.driver_autocommits(connection)):
            try:
                connection.execution_options(isolation_level="AUTOCOMMIT")
            except BaseException:
                # Interrupted, so that nobody else would close it.
                connection.invalidate()
                connection.close()
                raise
        # With autocommit=False, sqlite3 is in a transaction all the same, which SQLAlchemy's commit ends.
        driver = connection.connection.driver_connection
        begun = getattr(driver, "in_transaction", False) is True
        return AutocommitConnection(connection, self._generation(), None if begun else self._compiled)

    def _is_usable(self, pooled: AutocommitConnection) -> bool:
        if not self._is_remote:
            return True
        idle_for = clock.monotonic() - pooled.used_at
        if idle.is_usable(self._engine.dialect, pooled._dbapi_connection, idle_for):  # type: ignore[arg-type]
            return True
        if idle_for >= idle.PING_AFTER:
            # Each of the others would have to be waited for.
            self.invalidate_all()
        return False

    def release(self, pooled: AutocommitConnection, *, failed: bool) -> None:
        """Take a connection back after its use. One on which a statement failed is closed."""
        connection = pooled.connection
        if pooled.process != inherited.process:
            inherited.leave_alone(pooled)
            return
        stale = failed or connection.invalidated or pooled.generation != self._generation()
        if pooled._dbapi_connection is not None:
            if stale:
                self._close(pooled)
            else:
                # On release: a connection is not idle while a statement runs.
                pooled.used_at = clock.monotonic()
                with self._lock:
                    self._idle.setdefault(pooled.owner, []).append(pooled)
        elif stale or not self._keep(pooled):
            if failed and self._size:
                # With psycopg, it would fail again and again if its prepared statements went stale.
                connection.invalidate()
            connection.close()

    def _keep(self, pooled: AutocommitConnection) -> bool:
        # These listeners set up each use of a connection, but the pool would not call them.
        engine = self._engine
        listens = compat.pool_listens(engine.pool, "checkout", "checkin", "reset")
        if listens or compat.listens(engine, "engine_connect"):
            return False
        owner = self._owners.current()
        if owner not in self._idle:
            self._drop_idle(self._owners.has_ended)
        with self._lock:
            if self._count >= self._size:
                return False
            self._count += 1
        pooled._dbapi_connection = pooled.connection.connection.dbapi_connection
        pooled.connection.detach()
        pooled.owner = owner
        with self._lock:
            self._idle.setdefault(owner, []).append(pooled)
        return True

    def _drop_idle(self, is_meant: Callable[[object], bool]) -> None:
        """Drop idle connections of owners other than the current one."""
        with self._lock:
            owners = [owner for owner in self._idle if is_meant(owner)]
            dropped = [pooled for owner in owners for pooled in self._idle.pop(owner)]
            self._count -= len(dropped)
        for pooled in dropped:
            self._owners.drop(pooled._dbapi_connection)

    def drop_idle(self) -> None:
        """Drop all idle connections, from any thread."""
        self._drop_idle(lambda _: True)

    def _close(self, pooled: AutocommitConnection) -> None:
        with self._lock:
            self._count -= 1
        # With some drivers, or after a failure, SQLAlchemy's close leaves a detached connection open.
        pooled.connection.invalidate()
        # A connection that is lost may say so again; the first error was raised already.
        with suppress(Exception):
            self._engine.dialect.do_terminate(pooled._dbapi_connection)  # type: ignore[arg-type]

    def _generation(self) -> Generation:
        engine = self._engine
        return Generation(
            self._lost, engine.pool, compat.has_listeners(engine), compat.logs_statements(engine)
        )

    def invalidate_all(self) -> None:
        """Use none of the present connections again, because one was lost."""
        self._lost += 1

    def close(self) -> None:
        """Close the idle connections. If that is interrupted, the next call closes the rest."""
        self.invalidate_all()
        here = self._owners.current()
        self._drop_idle(lambda owner: owner is not here)
        while True:
            with self._lock:
                if not (ready := self._idle.get(here)):
                    return
                pooled = ready.pop()
            self._close(pooled)
