"""How a repository function gets its transaction under asyncio: one of its own, or the caller's.

The functions are sync, over a `Session`; they run in `run_sync`.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import URL, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session

from oban import clock
from oban.database.base import PAUSE, BaseDatabase
from oban.database.engines import engine_beside, keeps, make_engine
from oban.database.fast.autocommit_pool import Keeper
from oban.database.fast.greenlets import run_sync
from oban.database.session import execute
from oban.errors import ConfigError, InvalidTarget, WrongLoop
from oban.models import Job

P = ParamSpec("P")
T = TypeVar("T")
Caller = AsyncSession | async_scoped_session[Any] | AsyncConnection

#: Seconds that the server gives a statement beyond its timeout here, which is the one to be met.
SERVER_TIMEOUT_MARGIN = 1.0
#: Seconds that a connection is waited for where no timeout is given.
POOL_TIMEOUT = 30.0


class Database(BaseDatabase):
    """A database as one instance uses it, under asyncio.

    `engine` is an `AsyncEngine`, which stays the caller's, or a URL, for which an engine is made
    and disposed of. `timeout` is how many seconds a transaction of our own may take, the wait for a
    connection included. `pooled` says that it may lead to a pooler in transaction mode: then nothing
    relies on a session that lasts longer than a transaction. Raises `ConfigError` for what cannot be used.
    """

    def __init__(
        self,
        engine: AsyncEngine | str | URL,
        prefix: str | None = None,
        *,
        timeout: float | None = None,
        pooled: bool = False,
    ) -> None:
        owned = not isinstance(engine, AsyncEngine)
        if isinstance(engine, (str, URL)):
            engine = make_engine(engine, pooled)
        elif not isinstance(engine, AsyncEngine):
            raise ConfigError(f"an AsyncEngine or a database URL is needed, not {type(engine).__name__}")
        super().__init__(engine.sync_engine, owned=owned, prefix=prefix, pooled=pooled)
        self.engine = engine
        self.timeout = timeout
        #: The loop of the runner that shares the engine: on another one, drivers mix up their connections.
        self.loop: asyncio.AbstractEventLoop | None = None
        self._writer = asyncio.Lock() if self.dialect.single_writer else nullcontext()

    def with_own_pool(self, connections: int, timeout: float | None, *, own_loop: bool = False) -> "Database":
        """The same database through a pool of its own, of `connections` at most; dispose of it.

        With `own_loop`, for use on another event loop. Without a `timeout`, statements last as long as
        the application lets them. A database in memory has one connection, which all share.
        """
        if self.dialect.is_memory(self.engine.url):
            return self
        # Behind a pooler, the connection is not ours to set up.
        limit = None
        if timeout is not None and not self.pooled:
            limit = self.dialect.session_limits_sql(timeout + SERVER_TIMEOUT_MARGIN)
        # The others are for what takes more than one statement.
        kept = connections // 2 if keeps(self.engine) else 0
        patience = POOL_TIMEOUT if timeout is None else timeout
        engine = engine_beside(self.engine, connections - kept, patience, limit)
        twin = Database(engine, self.prefix, timeout=timeout, pooled=self.pooled)
        twin._owns_engine = True
        twin._keeper = Keeper(engine.sync_engine, kept)
        if not own_loop:
            twin._writer = self._writer
            twin.on_notices = self.on_notices
        return twin

    async def prepare(self) -> None:
        """Set up the database for a runner; raises `SchemaMissing` if there are no tables."""
        with self._door():
            async with self.engine.connect() as connection:
                connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.run_sync(self.dialect.prepare)
        await self.read(lambda session: execute(session, select(Job.id).limit(0)))

    async def dispose(self) -> None:
        """Close the connections of an engine that was made here."""
        if self._owns_engine:
            await run_sync(self._keeper.close)
            await self.engine.dispose()

    async def write(
        self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a repository function in a transaction of its own, again if it lost to another one."""
        self._check_lent(writes=True)
        attempt, since = 1, clock.monotonic()
        while True:
            try:
                return await self._whole(self._transact(function, *args, **kwargs))
            except DBAPIError as error:
                if not self._lost(error, attempt, since):
                    raise
            await asyncio.sleep(random.uniform(0, PAUSE) * 2**attempt)  # noqa: S311 - jitter
            attempt += 1

    async def _transact(
        self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with self._door():
            async with self._writer:
                session = self._session_for(function)
                # One visit to the sync side: commit and close from here would be a greenlet each.
                carry_out = partial(self._carry_out, session, function, *args, **kwargs)
                result: T = await run_sync(carry_out)
        self._finish(session)
        return result

    async def read(
        self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a repository function that only reads."""
        self._check_lent(writes=False)
        return await self._whole(self._look(function, *args, **kwargs))

    async def _look(
        self, function: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with self._door():
            # An `AsyncSession` does not let its rollback be interrupted, be the server silent for ever.
            result: T = await run_sync(partial(self._consult, function, *args, **kwargs))
        return result

    async def _whole(self, transaction: Coroutine[Any, Any, T]) -> T:
        """Await a transaction; where it must not be interrupted, a cancellation waits for its end."""
        if self.loop not in (None, asyncio.get_running_loop()):
            transaction.close()
            raise WrongLoop(
                "this Oban runs jobs on another event loop; in threads and plain workers, use SyncOban"
            )
        if self.dialect.interruptible:
            if self.timeout is None:
                return await transaction
            async with asyncio.timeout(self.timeout):
                return await transaction
        task = asyncio.create_task(transaction)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()
            raise

    async def within(
        self,
        caller: Caller,
        function: Callable[Concatenate[Session, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a repository function in the caller's transaction, neither committing nor rolling back."""
        with self._door():
            if isinstance(caller, async_scoped_session):
                caller = caller()
            if isinstance(caller, AsyncSession):
                return await run_sync(partial(self._lend, caller.sync_session, function, *args, **kwargs))
            if isinstance(caller, AsyncConnection):
                return await caller.run_sync(
                    lambda connection: self._join(connection, function, *args, **kwargs)
                )
        raise InvalidTarget(
            f"session must be an AsyncSession or AsyncConnection, not {type(caller).__name__}"
        )

    async def run(
        self,
        caller: Caller | None,
        function: Callable[Concatenate[Session, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`within` the caller's transaction if there is one, else `write` in one of its own."""
        if caller is None:
            return await self.write(function, *args, **kwargs)
        return await self.within(caller, function, *args, **kwargs)

    async def look(
        self,
        caller: Caller | None,
        function: Callable[Concatenate[Session, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`within` the caller's transaction if there is one, else `read`."""
        if caller is None:
            return await self.read(function, *args, **kwargs)
        return await self.within(caller, function, *args, **kwargs)
