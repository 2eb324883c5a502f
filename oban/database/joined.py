"""Clients on a session or connection of the application, whose transaction all their calls join.

A call runs in a savepoint of that transaction, and the application commits it or rolls it back. Tests use
this, as do scripts with a transaction of their own.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from oban.database.binding import write_bind
from oban.dialects.base import Dialect
from oban.errors import InvalidTarget

#: A session or connection of the caller, with asyncio.
AsyncCaller: TypeAlias = AsyncSession | async_scoped_session[Any] | AsyncConnection
#: A session or connection of the caller, without asyncio.
SyncCaller: TypeAlias = Session | scoped_session[Any] | Connection
#: The same for `isinstance`.
ASYNC_CALLERS: Final = (AsyncSession, async_scoped_session, AsyncConnection)
SYNC_CALLERS: Final = (Session, scoped_session, Connection)


class JoinedCaller:
    """The session or connection of a client that has no engine of its own."""

    not_for_nodes = (
        "this Oban works in the transaction of a session or connection, which jobs that run at the same time"
        " cannot share: leave out queues=, or pass the engine"
    )

    def __init__(self, caller: AsyncCaller | SyncCaller) -> None:
        self._caller = caller
        #: A call locks it. It is reentrant because event handlers of the application can make calls, too.
        self.lock = threading.RLock()

    def renew(self) -> None:
        """Make a lock for a forked child, as a thread of its parent may have the one that it inherits."""
        self.lock = threading.RLock()

    @property
    def engine(self) -> Engine:
        """The engine that the session or connection belongs to."""
        caller = _sync(self._caller)
        return (caller if isinstance(caller, Connection) else write_bind(caller)).engine

    @property
    def session(self) -> Session | None:
        """The session, if it is one. Calls run on its connection, and do not see its instances."""
        caller = _sync(self._caller)
        return caller if isinstance(caller, Session) else None

    @property
    def is_over(self) -> bool:
        """Whether its connection is closed, so that no call can use it any more."""
        caller: Any = self._caller
        if isinstance(caller, (AsyncSession, Session)):
            caller = caller.bind
        if isinstance(caller, AsyncConnection):
            # Before it is started, it is not closed.
            caller = caller.sync_connection
        return isinstance(caller, Connection) and caller.closed

    def transaction(self, dialect: Dialect) -> Connection:
        """The connection, in a transaction; the session is flushed."""
        caller = _sync(self._caller)
        if isinstance(caller, Connection):
            return _begun(caller, dialect)
        if isinstance(bind := write_bind(caller), Connection):
            # Before the session begins a savepoint in it.
            _begun(bind, dialect)
        caller.flush()
        return _begun(caller.connection(bind_arguments={"bind": bind}), dialect)

    def check(self, engine: Engine, dialect: Dialect) -> None:
        """Nothing: there is always a transaction to join."""


@dataclass
class _Block:
    """A block of `joining`. Its database is None once it has ended, for tasks that outlive it."""

    database: object
    joined: JoinedCaller


#: The blocks of this context, the innermost last.
_blocks: ContextVar[tuple[_Block, ...]] = ContextVar("oban.database.joining", default=())


def joined_here(database: object) -> JoinedCaller | None:
    """The caller whose transaction the calls of a database without `session=` join in this context."""
    for block in reversed(_blocks.get()):
        if block.database is database:
            return block.joined
    return None


@contextmanager
def joining(database: object, caller: Connection) -> Iterator[None]:
    """Let all calls of a database without `session=` join the transaction of a connection.

    That is for this context, the tasks that it starts and the jobs that it runs. Other tasks and threads can
    use the same client with another transaction at the same time.
    """
    block = _Block(database, JoinedCaller(caller))
    token = _blocks.set((*_blocks.get(), block))
    try:
        yield
    finally:
        block.database = None
        _blocks.reset(token)


def split_async(engine: Any) -> tuple[Any, JoinedCaller | None]:
    """The engine of what an `Oban` was created with and, for a session or connection, how to join it."""
    if not isinstance(engine, ASYNC_CALLERS):
        return engine, None
    joined = JoinedCaller(engine)
    return engine.engine if isinstance(engine, AsyncConnection) else AsyncEngine(joined.engine), joined


def split_sync(engine: Any) -> tuple[Any, JoinedCaller | None]:
    """Do the same for a `SyncOban`."""
    if not isinstance(engine, SYNC_CALLERS):
        return engine, None
    joined = JoinedCaller(engine)
    return joined.engine, joined


def _sync(caller: AsyncCaller | SyncCaller) -> Session | Connection:
    if isinstance(caller, (scoped_session, async_scoped_session)):
        caller = caller()
    if isinstance(caller, AsyncSession):
        return caller.sync_session
    if not isinstance(caller, AsyncConnection):
        return caller  # type: ignore[return-value]
    if caller.sync_connection is None:
        raise InvalidTarget("the connection is not open: use `async with engine.connect() as connection`")
    return caller.sync_connection


def _begun(connection: Connection, dialect: Dialect) -> Connection:
    if not connection.in_transaction():
        connection.begin()
    if dialect.single_writer and not dialect.in_transaction(connection):
        # The driver would begin none before the first statement that writes, and a savepoint outside of a
        # transaction is committed when it is released.
        connection.exec_driver_sql(dialect.begin_statement)
    return connection
