"""The connections of the sessions of async jobs."""

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable
from functools import partial

from sqlalchemy import Pool, QueuePool, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from oban import compat, error_texts
from oban.database import idle
from oban.database.aio import Database
from oban.database.loops import LoopPool
from oban.runner import deadlines

logger = logging.getLogger("oban.runner")

#: Connections that are opened before jobs need them. This is enough for a queue with the default limit, and
#: an idle node with large queues does not take connections that it may never use.
OPENED_AHEAD = 10
#: Seconds before they are opened. Jobs that already wait when a node starts open those that they need.
OPENING_DELAY = 1.0


class SessionPool:
    """The pool for the sessions of async jobs, separate from the application's.

    Connections are opened when they are needed, and stay open. A database in memory has only one connection,
    which the sessions share with everybody. Make it on the event loop of the node.

    Args:
        database: the database of the application's engine.
        max_connections: the size of the pool.
        in_threads: returns how many connections the jobs in threads have.
    """

    def __init__(self, database: Database, max_connections: int, in_threads: Callable[[], int]) -> None:
        self._max_connections = max_connections
        self._in_threads = in_threads
        self._application = database
        #: Where the sessions connect.
        self.database = database.with_own_pool(max_connections, None, for_sessions=True)
        self._is_own = self.database is not database
        self._context = contextvars.copy_context()
        self._target = 0
        self._opening: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def _pool(self) -> Pool:
        return self.database.engine.sync_engine.pool

    def open_ahead(self, jobs: int) -> None:
        """Open connections in the background, for up to `jobs` jobs at once."""
        self._target = min(jobs, OPENED_AHEAD, self._max_connections)
        # A file is opened at once.
        is_needed = self._target and self._is_own and self.database.dialect.is_remote
        if is_needed and (self._opening is None or self._opening.done()):
            self._opening = asyncio.create_task(self._open(), context=self._context.copy())

    async def _open(self) -> None:
        await asyncio.sleep(OPENING_DELAY)
        pool, opened = self._pool, 0
        try:
            # The limit of a queue is for its jobs on the loop and in threads together.
            while _count(pool) + self._in_threads() < self._target:
                if not await compat.run_sync(partial(compat.open_idle, pool, idle.note_use)):
                    return
                opened += 1
        # A job that needs a connection opens it, or waits until the server accepts it.
        except Exception as error:
            logger.debug("no connection was opened ahead of jobs: %s", error_texts.error_line(error))
            if self.database.dialect.is_full(error):
                # Other parts of the node, or of the application, may need the last ones.
                for _ in range(opened):
                    await compat.run_sync(partial(compat.close_idle, pool))

    def make_room(self, *, include_own: bool) -> None:
        """Close an idle connection of the application's pool soon. Call it on the event loop.

        With `include_own`, one of this pool is closed first. Sessions of this pool leave that out, as they
        could use an idle connection themselves.
        """
        if self._closing is None or self._closing.done():
            pools = [self._application.engine.sync_engine.pool]
            if include_own:
                pools.insert(0, self._pool)
            self._closing = asyncio.create_task(_close_one(pools), context=self._context.copy())

    async def close(self, seconds: float) -> None:
        """Close all connections within `seconds`. One that a job still uses is closed when it is returned."""
        if self._opening is not None:
            await deadlines.cancel_all({self._opening})
        if self._is_own:
            event.listen(self._pool, "checkin", _close_returned)
            await deadlines.close(self.database, seconds)

    def drop_idle(self) -> None:
        """Drop the idle connections, from any thread, after the event loop of the node has ended."""
        if self._is_own:
            self.database.drop_idle()


def _count(pool: Pool) -> int:
    """The number of connections that a pool has opened."""
    return pool.checkedin() + pool.checkedout() if isinstance(pool, QueuePool) else 0


async def _close_one(pools: list[Pool]) -> None:
    for pool in pools:
        here = pool.here() if isinstance(pool, LoopPool) else pool
        # It may be lost already.
        with contextlib.suppress(Exception):
            if isinstance(here, QueuePool) and await compat.run_sync(partial(compat.close_idle, here)):
                return


def _close_returned(_: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
    entry.close()
