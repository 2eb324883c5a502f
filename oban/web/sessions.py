"""`Sessions`: the dashboard's own connections, on which every request has a time limit."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from weakref import finalize

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.pool import StaticPool

from oban import dialects
from oban.client import Oban
from oban.database import loops, quoted_rows, schema_errors
from oban.database.engines import with_own_pool
from oban.errors import ObanError
from oban.web.errors import Busy, NoSchema, Unavailable, WebError

#: Seconds that a session can use the database, including the wait for a connection.
TIMEOUT = 5.0
#: Seconds that the server gives a statement beyond that, as the timeout here should be the one that ends it.
SERVER_MARGIN = 1.0
#: Connections of a dashboard, and how many requests can wait for one of them.
CONNECTIONS = 4
WAITING = 28
#: Steps of SQLite between two looks whether the request still waits, which are some microseconds.
PROGRESS = 10_000
#: Seconds that a broken connection may take to close before the request goes on without waiting for that.
CLOSING = 1.0

_TOO_SLOW = "The database has not answered in time. Try again, or narrow down what you ask for."
_BUSY = "The dashboard is busy: too many requests wait for the database. Try again in a moment."
_LOCKED = "Another transaction has locked what this would change. Try again in a moment."


class Sessions:
    """Sessions on a pool of their own, so that the dashboard takes no connection of the application.

    Args:
        oban: The client whose database it is.
        timeout: Seconds that a session can last.
    """

    def __init__(self, oban: Oban, timeout: float = TIMEOUT) -> None:
        self._oban = oban
        self.timeout = timeout
        self._dialect = dialects.for_bind(oban.engine.sync_engine)
        self._engine: AsyncEngine | None = None
        self._finalizer: finalize[Any, Any] | None = None
        self._pid = os.getpid()
        self._open = 0
        #: Sessions that are being closed after their request has ended.
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def engine(self) -> AsyncEngine:
        """The engine with the dashboard's own pool, made at its first use in this process."""
        if self._engine is not None and self._pid != os.getpid():
            # The connections are those of the parent of this fork.
            if self._finalizer is not None:
                self._finalizer.detach()
                self._engine.sync_engine.dispose(close=False)
            self._engine, self._open = None, 0
        if self._engine is None:
            self._pid = os.getpid()
            self._engine = self._make()
        loops.enter(self._engine.sync_engine.pool, asyncio.get_running_loop())
        return self._engine

    def _make(self) -> AsyncEngine:
        source = self._oban.engine
        if isinstance(source.sync_engine.pool, StaticPool) or self._dialect.is_memory(source.sync_engine.url):
            # A database in memory has one connection, which everybody shares.
            return source
        limits = None
        if not self._oban.options.behind_pooler:
            limits = self._dialect.session_limits_sql(self.timeout + SERVER_MARGIN)
        made = with_own_pool(source, CONNECTIONS, self.timeout, limits)
        if prefix := self._oban.options.prefix:
            made.sync_engine.update_execution_options(schema_translate_map={None: prefix})
        # An application that never closes the dashboard leaves no connections to the garbage collector.
        self._finalizer = finalize(self, loops.drop_idle, made.sync_engine.pool)
        return made

    def read(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A session to read in.

        Raises:
            Busy: The time is over, or too many requests wait.
            Unavailable: There is no connection to the database.
            NoSchema: The tables do not exist, or are those of an older version.
        """
        return self._session(writes=False)

    def write(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A session to write in, which is committed at the end. It raises what `read` raises."""
        return self._session(writes=True)

    @asynccontextmanager
    async def _session(self, writes: bool) -> AsyncIterator[AsyncSession]:
        if self._open >= CONNECTIONS + WAITING:
            raise Busy(_BUSY)
        url = self._oban.engine.sync_engine.url
        if self._dialect.missing_file(url):
            # To connect would create the file.
            raise NoSchema(_sentence(schema_errors.missing(self._dialect, url, self._oban.options.prefix)))
        self._open += 1
        try:
            async with asyncio.timeout(self.timeout), self._transaction(writes) as session:
                yield session
        except (WebError, ObanError):
            raise
        except (TimeoutError, PoolTimeoutError) as error:
            raise Busy(_TOO_SLOW) from error
        except DBAPIError as error:
            quoted_rows.hide(error)
            self._translate(error)
            raise
        except OSError as error:
            raise Unavailable(f"The database cannot be reached: {type(error).__name__}.") from error
        finally:
            self._open -= 1

    @asynccontextmanager
    async def _transaction(self, writes: bool) -> AsyncIterator[AsyncSession]:
        session = AsyncSession(self.engine, expire_on_commit=False)
        interrupt = self._interrupter()

        def after_begin(_: object, __: object, connection: Connection) -> None:
            if interrupt is not None:
                adapted: Any = connection.connection.dbapi_connection
                adapted.run_async(lambda driver: driver.set_progress_handler(interrupt, PROGRESS))
            if self._oban.options.behind_pooler and (
                statement := self._dialect.transaction_limits_sql(self.timeout + SERVER_MARGIN)
            ):
                connection.exec_driver_sql(statement)
            if writes and self._dialect.single_writer and not self._dialect.in_transaction(connection):
                # A transaction that reads first could not write once another one has written.
                connection.exec_driver_sql("BEGIN IMMEDIATE")

        event.listen(session.sync_session, "after_begin", after_begin)
        try:
            yield session
            if writes:
                await session.commit()
        except BaseException as error:
            is_running = isinstance(error, (asyncio.CancelledError, GeneratorExit))
            closing = asyncio.create_task(self._abandon(session, is_running))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            await asyncio.wait({closing}, timeout=CLOSING)
            raise
        await session.close()

    def _interrupter(self) -> Callable[[], bool] | None:
        """What tells SQLite, in its thread, whether to end the statement: when this task is cancelled.

        SQLAlchemy waits for the end of a statement that was cancelled, and only SQLite itself can end it. The
        connection of a database in memory is that of the jobs as well, whose statements must not end.
        """
        task = asyncio.current_task()
        if self._dialect.interruptible or task is None or self.engine is self._oban.engine:
            return None
        before = task.cancelling()
        return lambda: task.cancelling() > before

    async def _abandon(self, session: AsyncSession, is_running: bool) -> None:
        """Close a session whose statement may still run, and end the statement."""
        # The server ends the statement of a lost connection, at the latest after the margin.
        lost = is_running and self._dialect.interruptible
        await (session.invalidate() if lost else session.close())

    def _translate(self, error: DBAPIError) -> None:
        url, prefix = self._oban.engine.sync_engine.url, self._oban.options.prefix
        if schema_error := schema_errors.explain(error, self._dialect, url, prefix):
            raise NoSchema(_sentence(str(schema_error))) from None
        if self._dialect.is_locked(error):
            raise Busy(_LOCKED) from error
        if self._dialect.is_connection_error(error):
            raise Unavailable("The database cannot be used at the moment.") from error
        if self._dialect.is_transient(error):
            raise Busy(_LOCKED) from error

    async def close(self) -> None:
        """Close the connections of the dashboard."""
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSING)
        engine, self._engine = self._engine, None
        if engine is not None and engine is not self._oban.engine:
            await engine.dispose()


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
