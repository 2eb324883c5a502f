"""`Database`: how a repository function gets its transaction under asyncio."""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, finalize

from sqlalchemy import URL, Engine, NullPool, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session

from oban import clock, compat, dialects
from oban.database import idle, loops, schema_errors
from oban.database.base import BaseDatabase, Function, P, T
from oban.database.engines import make_engine, with_own_pool
from oban.database.fast import FAST_PATH
from oban.database.fast.autocommit_pool import AutocommitPool
from oban.database.joined import AsyncCaller, JoinedCaller, split_async
from oban.database.loops import Loop, LoopLock, LoopPool, Loops, before_close, drop_idle, enter
from oban.database.retries import Retries
from oban.database.shared import SharedConnection
from oban.errors import ConfigError, InvalidTarget, SchemaMissing, WrongLoop

logger = logging.getLogger("oban.database")

#: Seconds that the server gives a statement beyond the timeout here, which should be the one that ends it.
SERVER_TIMEOUT_MARGIN = 1.0
#: Seconds between two tries to configure a database that is locked.
CONFIGURE_PAUSE = 0.05
#: Seconds to wait for a connection where no timeout is set.
POOL_TIMEOUT = 30.0


#: The locks with which calls on engines with one connection take turns.
_turns: WeakKeyDictionary[SharedConnection | JoinedCaller, LoopLock] = WeakKeyDictionary()


class Database(BaseDatabase):
    """One instance's access to its database under asyncio.

    Args:
        engine: the application's `AsyncEngine`, or a session or connection whose transaction all calls join,
            or a URL. Oban makes an engine for a URL, and disposes of it.
        prefix: the schema of the tables.
        timeout: seconds that one of our own transactions can take, including the wait for a connection.
        pooled: whether a pooler in transaction mode may be in between. Then nothing relies on a session of
            the server that lasts longer than a transaction.

    Raises:
        ConfigError: the engine or the URL cannot be used.
    """

    _owners = Loops()

    def __init__(
        self,
        engine: AsyncEngine | AsyncCaller | str | URL,
        prefix: str | None = None,
        *,
        timeout: float | None = None,
        pooled: bool = False,
    ) -> None:
        engine, joined = split_async(engine)
        owned = not isinstance(engine, AsyncEngine)
        if isinstance(engine, (str, URL)):
            engine = make_engine(engine, pooled)
        elif not isinstance(engine, AsyncEngine):
            advice = (
                "; use Oban(engine.url), or SyncOban, which runs no jobs"
                if isinstance(engine, Engine)
                else ""
            )
            problem = f"an AsyncEngine or a database URL is needed, not {type(engine).__name__}{advice}"
            raise ConfigError(problem)
        super().__init__(engine.sync_engine, owned=owned, prefix=prefix, pooled=pooled, joined=joined)
        self.engine = engine
        self.timeout = timeout
        #: The loop of the runner that shares the engine: on another one, drivers mix up their connections.
        self.loop: Loop | None = None
        self._make_locks()
        event.listen(engine.sync_engine, "close", before_close)
        if owned:
            self._own(engine)

    def _make_locks(self) -> None:
        self._writer = LoopLock() if self.dialect.single_writer else None
        if self._own_shared is not None:
            self._turns = _turns.setdefault(self._own_shared, LoopLock())
        several_loops = isinstance(self._sync_engine.pool, (NullPool, LoopPool))
        #: Until an engine has connected that several loops can use at once: SQLAlchemy sets it up on one.
        self._first_use = LoopLock() if several_loops else None

    def _own(self, engine: AsyncEngine) -> None:
        """Drop the connections of an engine that Oban made, even if nobody disposes of it."""
        self._owns_engine = True
        self._finalizer = finalize(self, _drop_all, engine.sync_engine, self._autocommit_pool)

    def _renew(self) -> None:
        super()._renew()
        self.loop = None
        loops.renew_lock()
        # All who share the connection share the lock: the first of them makes it.
        if self._own_shared is not None and _turns.get(self._own_shared) is self._turns:
            _turns[self._own_shared] = LoopLock()
        self._make_locks()

    def with_own_pool(
        self, connections: int, timeout: float | None, *, own_loop: bool = False, for_sessions: bool = False
    ) -> "Database":
        """The same database through a pool of its own, of up to `connections`; dispose of it after use.

        Without a `timeout`, statements may take as long as the application's engine lets them. With
        `own_loop`, it is for use on another event loop. With `for_sessions`, all connections are for sessions
        of jobs, and those that were lost while they were idle are replaced. A database in memory has only
        one connection, which everybody shares: then this returns the same object.
        """
        if self.in_memory:
            return self
        session_limits = None
        # Behind a pooler, the server's sessions are not ours to set up.
        if timeout is not None and not self.pooled:
            session_limits = self.dialect.session_limits_sql(timeout + SERVER_TIMEOUT_MARGIN)
        # Half of the connections can stay out of the pool, if it only hands them out. The other half is for
        # transactions of more than one statement.
        keeps = not (for_sessions or compat.cares_for_connections(self.engine.sync_engine.pool))
        kept = connections // 2 if keeps else 0
        wait = POOL_TIMEOUT if timeout is None else timeout
        engine = with_own_pool(self.engine, connections - kept, wait, session_limits)
        if for_sessions:
            idle.watch(engine.sync_engine)
        own = Database(engine, self.prefix, timeout=timeout, pooled=self.pooled)
        own.in_memory, own.begins_early, own.history = False, self.begins_early, self.history
        own.telemetry = self.telemetry
        own._autocommit_pool = FAST_PATH.autocommit_pool(engine.sync_engine, kept, self._owners)
        own._own(engine)
        if not own_loop:
            own._writer = self._writer
            own.on_notices = self.on_notices
        return own

    async def check_node(self) -> None:
        """Find out what the database is, before a node makes its pools.

        Raises:
            ConfigError: no node can run on this database, or with this engine.
            SchemaMissing: the file does not exist.
        """
        if self.shared is not None:
            raise ConfigError(self.shared.not_for_nodes)
        if problem := self.dialect.refusal(self.engine.url):
            raise ConfigError(problem)
        # To connect would create an empty file.
        if self.dialect.missing_file(self.engine.url):
            raise SchemaMissing(schema_errors.missing(self.dialect, self.engine.url, self.prefix))
        if self.dialect.single_writer:
            await compat.run_sync(self._inspect)

    def _inspect(self) -> None:
        with dialects.connect(self.engine.sync_engine) as connection:
            try:
                in_memory = self.dialect.holds_memory(connection)
                self.begins_early = self.dialect.in_transaction(connection)
            except DBAPIError as error:
                if not self.dialect.is_transient(error):
                    raise
                # An event handler of the application takes the lock when a transaction begins.
                self.begins_early = True
            else:
                self.in_memory = self.in_memory if in_memory is None else in_memory

    async def prepare(self) -> None:
        """Set up the database for a runner. Raises `SchemaMissing` if tables or columns are missing."""
        if not self.in_memory:
            try:
                await self._configure()
            except Exception as error:
                self._translate(error)
                raise
        await self.read(lambda transaction: transaction.execute(schema_errors.check()))

    async def _configure(self) -> None:
        until = clock.monotonic() + (POOL_TIMEOUT if self.timeout is None else self.timeout)
        while True:
            try:
                changed = await compat.run_sync(self._prepare)
                break
            except DBAPIError as error:
                if not self.dialect.is_transient(error):
                    raise
                if clock.monotonic() >= until:
                    logger.warning(
                        "the database could not be configured: %s. The node goes on without that; it is tried"
                        " again at the next start",
                        dialects.driver_error(error),
                    )
                    return
            await asyncio.sleep(random.uniform(0.5, 1) * CONFIGURE_PAUSE)  # noqa: S311 - jitter
        if changed and (problem := await compat.run_sync(self._mode)):
            logger.warning("%s", problem)

    def _prepare(self) -> bool:
        with dialects.connect(self.engine.sync_engine) as connection:
            # A listener may have begun a transaction.
            connection.rollback()
            return self.dialect.prepare(connection.execution_options(isolation_level="AUTOCOMMIT"))

    def _mode(self) -> str | None:
        # On a new connection, the application's event handlers may have undone it on purpose.
        with dialects.connect(self.engine.sync_engine) as connection:
            connection.invalidate()
        with dialects.connect(self.engine.sync_engine) as connection:
            return self.dialect.mode(connection)

    async def dispose(self) -> None:
        """Close the connections of an engine that Oban made."""
        if self._owns_engine:
            await compat.run_sync(self._autocommit_pool.close)
            await self.engine.dispose()

    def run(
        self, caller: AsyncCaller | None, function: Function[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """Run a repository function in the caller's transaction, or with None in one of our own."""
        if caller is None:
            return self.write(function, *args, **kwargs)
        return self._join(caller, True, function, *args, **kwargs)

    def read_in(
        self, caller: AsyncCaller | None, function: Function[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, T]:
        """Run a repository function that only reads, as `run` does."""
        if caller is None:
            return self.read(function, *args, **kwargs)
        return self._join(caller, False, function, *args, **kwargs)

    async def write(self, function: Function[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a repository function in a transaction of our own, again if it lost to another one."""
        self._check_deadlock(writes=True)
        retries = Retries(self.dialect)
        while True:
            transaction = self._begin()
            try:
                work = partial(self._commit, transaction, function, *args, **kwargs)
                result = await self._call(work, self._writer)
            except DBAPIError as error:
                await asyncio.sleep(retries.pause(error))
            else:
                self._finish(transaction)
                return result

    async def read(self, function: Function[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a repository function that only reads."""
        self._check_deadlock(writes=False)
        return await self._call(partial(self._query, function, *args, **kwargs), None)

    async def _call(self, work: Callable[[], T], turns: LoopLock | None) -> T:
        """Run sync work, within the timeout, or uninterrupted where the driver cannot be interrupted."""
        self.enter_loop()
        if (first_use := self._first_use) is not None:
            async with first_use:
                result = await self._run(work, turns)
            self._first_use = None
            return result
        return await self._run(work, turns)

    async def _run(self, work: Callable[[], T], turns: LoopLock | None) -> T:
        try:
            if (shared := self.shared) is not None:
                turns = self._turns if shared is self._own_shared else _turns.setdefault(shared, LoopLock())
            if not self.dialect.interruptible:
                return await _uninterrupted(work, turns or nullcontext())
            if turns is not None:
                async with asyncio.timeout(self.timeout), turns:
                    return await compat.run_sync(work)
            # An `AsyncSession` would not let its rollback be interrupted, even if the server never answers.
            if self.timeout is None:
                return await compat.run_sync(work)
            async with asyncio.timeout(self.timeout):
                return await compat.run_sync(work)
        except Exception as error:
            self._translate(error)
            raise

    def enter_loop(self) -> None:
        """Prepare the engine for the running loop; raises `WrongLoop`."""
        loop = asyncio.get_running_loop()
        if self.loop is not None and self.loop is not loop and not self.loop.is_closed():
            raise WrongLoop(
                "this Oban runs jobs on another event loop; in threads and plain workers, use enqueue_sync or"
                " SyncOban"
            )
        enter(self._sync_engine.pool, loop)

    def drop_idle(self) -> None:
        """Drop the idle connections of an engine that Oban made, whose loop has ended."""
        if self._owns_engine:
            _drop_all(self._sync_engine, self._autocommit_pool)

    async def _join(
        self, caller: AsyncCaller, writes: bool, function: Function[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a repository function in the caller's transaction, neither committing nor rolling back."""
        # The session may not be on this engine, and then the loop does not matter.
        with suppress(WrongLoop):
            enter(self._sync_engine.pool, asyncio.get_running_loop())
        try:
            if isinstance(caller, async_scoped_session):
                caller = caller()
            if isinstance(caller, AsyncSession):
                work = partial(self._run_on_session, caller.sync_session, writes, function, *args, **kwargs)
                return await compat.run_sync(work)
            if isinstance(caller, AsyncConnection):
                return await caller.run_sync(
                    lambda connection: self._run_on_connection(connection, writes, function, *args, **kwargs)
                )
        except Exception as error:
            self._translate(error)
            raise
        raise InvalidTarget(
            f"session must be an AsyncSession or AsyncConnection, not {type(caller).__name__}"
        )


def _drop_all(engine: Engine, autocommit_pool: AutocommitPool) -> None:
    autocommit_pool.drop_idle()
    drop_idle(engine.pool)


async def _uninterrupted(work: Callable[[], T], lock: "LoopLock | nullcontext[None]") -> T:
    """Run sync work to its end, also if the caller is cancelled meanwhile."""

    async def locked() -> T:
        async with lock:
            return await compat.run_sync(work)

    task = asyncio.create_task(locked())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            # Retrieved, so that the loop does not report it as never retrieved.
            task.exception()
        raise
