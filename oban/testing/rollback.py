"""Connections whose transaction is rolled back at the end of a test."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from functools import partial
from typing import NoReturn, overload

from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from oban import dialects
from oban.database import loops
from oban.database.driver_autocommit import send_begin
from oban.database.engines import DEFAULT_ISOLATION, autocommits
from oban.dialects.base import Dialect
from oban.errors import ObanError

#: How many seconds a rollback can take before the connection is closed without it.
ROLLBACK_TIMEOUT = 10.0

_LOOP_ADVICE = (
    "code that runs on another loop than the test, as in TestClient, asyncio.run, IsolatedAsyncioTestCase or"
    " a fixture with another loop_scope, cannot use the connection of the test: send requests with"
    " httpx.AsyncClient and ASGITransport, or open the connection with rolled_back on that loop"
)


@overload
def rolled_back(engine: Engine) -> AbstractContextManager[Connection]: ...
@overload
def rolled_back(engine: AsyncEngine) -> AbstractAsyncContextManager[AsyncConnection]: ...
def rolled_back(
    engine: Engine | AsyncEngine,
) -> AbstractContextManager[Connection] | AbstractAsyncContextManager[AsyncConnection]:
    """Open a connection whose transaction is rolled back when the block ends.

    Bind the application's sessions to the connection, so that they commit and roll back savepoints only, and
    create the client on it: `Oban(connection)`. On SQLite, the block sends the BEGIN that the driver would
    not send before a savepoint.

    The block ends the same way if the test fails, is cancelled, has left the transaction aborted or has lost
    the connection.

    Args:
        engine: The engine to connect with. The tables have to exist already.

    Returns:
        A context manager that yields the connection: for `with` if `engine` is an `Engine`, for `async with`
        if it is an `AsyncEngine`. In unittest, pass it to `enterContext` or `enterAsyncContext`.

    Raises:
        DatabaseUnavailable: The database cannot be reached. Raised when the block begins.
        ObanError: The block calls `commit` on the connection itself.
    """
    return _sync(engine) if isinstance(engine, Engine) else _async(engine)


@contextmanager
def _sync(engine: Engine) -> Iterator[Connection]:
    connection = dialects.connect(engine)
    try:
        _begin(connection)
        yield connection
    finally:
        try:
            connection.close()
        except Exception:
            # The server rolls back the transaction of a connection that ends.
            if not connection.closed:
                connection.invalidate()
                connection.close()


@asynccontextmanager
async def _async(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    connection = engine.connect()
    try:
        await connection.start()
    except Exception as error:
        dialects.check_connecting(engine.url, error)
        raise
    try:
        await connection.run_sync(_begin)
        event.listen(connection.sync_connection, "before_cursor_execute", _refuse_other_loop)
        yield connection
    finally:
        # A cancelled test has to roll back as well.
        await asyncio.shield(asyncio.ensure_future(_close(connection)))


async def _close(connection: AsyncConnection) -> None:
    if not await closed(connection) and not connection.closed:
        await connection.invalidate()
        await connection.close()


async def closed(target: AsyncConnection | AsyncSession) -> bool:
    """Close a connection or session, which rolls back; False if that failed or took too long."""
    try:
        async with asyncio.timeout(ROLLBACK_TIMEOUT):
            await target.close()
    except Exception:
        return False
    return True


def _begin(connection: Connection) -> None:
    dialect = dialects.for_bind(connection)
    if autocommits(connection.engine):
        connection.execution_options(isolation_level=dialect.isolation or DEFAULT_ISOLATION)
    event.listen(connection, "commit", _refuse_commit)
    send_begin(connection, dialect)
    if dialect.single_writer:
        # The driver begins no transaction before a savepoint, whose release would then commit it.
        event.listen(connection, "begin", partial(_send_begin, dialect))
    connection.begin()
    # Within a savepoint, sessions on the connection join with savepoints by default. Otherwise, a rollback of
    # one that was made without `join_transaction_mode` would silently undo all that the test did before.
    connection.begin_nested()


def _send_begin(dialect: Dialect, connection: Connection) -> None:
    if not dialect.in_transaction(connection):
        connection.exec_driver_sql(dialect.begin_statement)


def _refuse_other_loop(connection: Connection, *_: object) -> None:
    loops.refuse_of_another(connection, _LOOP_ADVICE)


def _refuse_commit(connection: Connection) -> NoReturn:
    # SQLAlchemy takes the transaction for ended, and would leave it to the next user of the connection.
    connection.connection.rollback()
    raise ObanError(
        "this connection cannot commit, because its transaction is rolled back after the test; commit a"
        ' session on it with join_transaction_mode="create_savepoint", or a savepoint of begin_nested()'
    )
