"""Pools of asyncio connections, and locks, on several event loops: in turn, or at the same time.

asyncpg's connections work only on the loop that they were made on, and a pool that tasks of one loop have
waited for cannot be waited for on another.
"""

import asyncio
import threading
from contextlib import suppress
from typing import Any, cast
from weakref import WeakKeyDictionary

from sqlalchemy import AsyncAdaptedQueuePool, Connection, NullPool, Pool, PoolProxiedConnection, StaticPool
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from oban import compat
from oban.database.fast.autocommit_pool import Owners
from oban.errors import WrongLoop

Loop = asyncio.AbstractEventLoop

ADVICE = (
    "make the engine with poolclass=NullPool, make an engine and an Oban for each loop, pass the URL instead"
    " of the engine, or use SyncOban in threads"
)

OF_ANOTHER_LOOP = "the session, or a connection of the engine, belongs to another event loop"

_lock = threading.Lock()
#: The loop that has used the pool of an application's engine last.
_users: "WeakKeyDictionary[Pool, Loop]" = WeakKeyDictionary()


def renew_lock() -> None:
    """Make a lock for a forked child, as a thread of its parent may have the one that it inherits."""
    global _lock
    _lock = threading.Lock()


def running_loop() -> Loop | None:
    """The loop that runs in this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def enter(pool: Pool, loop: Loop) -> None:
    """Prepare a pool that loops have to share for its use on `loop`.

    Connections that belong to a loop that does not run any more are dropped; new ones take their places.

    Raises:
        WrongLoop: another loop uses the pool, and it is still running.
    """
    if isinstance(pool, StaticPool):
        owner = _loop_of(compat.shared_driver_connection(pool))
        if owner not in (None, loop):
            raise WrongLoop(f"the engine has one connection, which belongs to another event loop; {ADVICE}")
    if isinstance(pool, (NullPool, StaticPool, LoopPool)):
        return
    with _lock:
        user = _users.get(pool)
        if user is loop:
            return
        if user is not None and user.is_running():
            raise WrongLoop(f"the engine is used on another event loop, which is still running; {ADVICE}")
        _move(pool, loop)
        _users[pool] = loop


def _move(pool: Pool, loop: Loop) -> None:
    """Let a pool be used on `loop`; raises `WrongLoop`."""
    entries = compat.renew_queue(pool, loop)
    bound = [(entry, _loop_of(entry.driver_connection)) for entry in entries]
    if any(owner is not None and owner is not loop and owner.is_running() for _, owner in bound):
        raise WrongLoop(
            f"the engine's pool has a connection of another event loop, which is still running; {ADVICE}"
        )
    for entry, owner in bound:
        if owner is not None and owner is not loop:
            _drop_entry(entry)


def _drop_entry(entry: Any) -> None:
    drop(entry.driver_connection)
    # SQLAlchemy makes a new connection when it needs the entry.
    entry.dbapi_connection = None


def drop_idle(pool: Pool) -> None:
    """Drop all idle connections of a pool, from any thread."""
    if isinstance(pool, LoopPool):
        for each in pool.take_pools():
            drop_idle(each)
    for entry in compat.renew_queue(pool):
        _drop_entry(entry)


def before_close(_: Any, entry: ConnectionPoolEntry) -> None:
    """Before SQLAlchemy closes a connection of a loop that is closed, close it without that loop."""
    driver = entry.driver_connection
    if (loop := _loop_of(driver)) is not None and loop.is_closed():
        drop(driver)


def drop(driver: Any) -> None:
    """Close a driver's connection that is idle, without its loop if that is closed. Never raises."""
    with suppress(Exception):
        if (loop := _loop_of(driver)) is not None:
            _drop_bound(driver, loop)
        elif hasattr(driver, "pgconn"):
            driver.pgconn.finish()
        elif hasattr(driver, "stop"):
            # In a thread without a loop: aiosqlite would wait for the end on the loop that it finds.
            thread = threading.Thread(target=driver.stop, daemon=True)
            thread.start()
            thread.join()


def is_of_wrong_loop(error: Exception) -> bool:
    """Whether asyncio, or a driver, complains about the use of something that belongs to another loop."""
    text = str(error) if isinstance(error, RuntimeError) else ""
    return any(part in text for part in ("to a different loop", "different event loop", "loop is closed"))


def refuse_of_another(connection: Connection, advice: str = ADVICE) -> None:
    """Raise `WrongLoop` for a connection of another loop, on which asyncpg can crash the process."""
    if (loop := _loop_of(connection.connection.driver_connection)) is None:
        return
    if (here := running_loop()) is not loop and here is not None:
        raise WrongLoop(f"{OF_ANOTHER_LOOP}; {advice}")


def _loop_of(driver: Any) -> Loop | None:
    """The loop that a connection belongs to; None if it works on any loop."""
    loop = getattr(driver, "_loop", None)
    return loop if isinstance(loop, Loop) else None


def _drop_bound(driver: Any, loop: Loop) -> None:
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(driver.terminate)
        return
    # The loop is closed. This fails when it has marked the connection as closed.
    with suppress(RuntimeError):
        driver.terminate()
    _close_socket(getattr(driver, "_transport", None))


def _close_socket(transport: Any) -> None:
    """Close the socket of a transport whose loop is closed. If the names are missing, freeing it warns."""
    # With TLS, the transport is around another one.
    transport = getattr(getattr(transport, "_ssl_protocol", None), "_transport", transport)
    if (socket := getattr(transport, "_sock", None)) is not None:
        socket.close()
        transport._sock = None


class Loops(Owners):
    """Event loops as the owners of connections in an autocommit pool."""

    def current(self) -> Loop | None:
        return running_loop()

    def has_ended(self, owner: object) -> bool:
        return isinstance(owner, Loop) and owner.is_closed()

    def drop(self, connection: DBAPIConnection | None) -> None:
        drop(getattr(connection, "driver_connection", None))


class LoopLock:
    """A lock for the tasks of any number of event loops, in any number of threads."""

    #: Seconds between two tries to get it from another loop.
    PAUSE = 0.005

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        #: The loop whose tasks take turns now.
        self._holder: Loop | None = None
        #: For the tasks of each loop, as an `asyncio.Lock` works on one only.
        self._turns: dict[Loop, asyncio.Lock] = {}

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        if (turn := self._turns.get(loop)) is None:
            with self._mutex:
                self._turns = {each: lock for each, lock in self._turns.items() if not each.is_closed()}
                turn = self._turns[loop] = asyncio.Lock()
        await turn.acquire()
        try:
            # The locks and events of asyncio work on one loop only.
            while not self._hold(loop):  # noqa: ASYNC110
                await asyncio.sleep(self.PAUSE)
        except BaseException:
            turn.release()
            raise

    def _hold(self, loop: Loop) -> bool:
        with self._mutex:
            # A loop that was closed while one of its tasks had the lock never releases it.
            if self._holder is None or self._holder.is_closed():
                self._holder = loop
            return self._holder is loop

    async def __aexit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        with self._mutex:
            if self._holder is loop:
                self._holder = None
        self._turns[loop].release()


class LoopPool(AsyncAdaptedQueuePool):
    """The pool of an engine that Oban makes: each loop gets connections that only it uses."""

    # SQLAlchemy names the logger after it: `sqlalchemy.pool`, as for any other pool.
    __module__ = AsyncAdaptedQueuePool.__module__

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._loop: Loop | None = None
        #: Pools for loops that run at the same time as the first one.
        self._pools: dict[Loop, LoopPool] = {}
        self._moving = threading.Lock()

    def connect(self) -> PoolProxiedConnection:
        return super(LoopPool, self.here()).connect()

    def here(self) -> "LoopPool":
        """The pool for the running loop."""
        loop = running_loop()
        return self if loop is self._loop or loop is None else self._pool_for(loop)

    def _pool_for(self, loop: Loop) -> "LoopPool":
        """The pool for another loop than that of the last use: this one, unless that loop still runs."""
        with self._moving:
            ended = [each for each in self._pools if each.is_closed()]
            for each in ended:
                drop_idle(self._pools.pop(each))
            if (pool := self._pools.get(loop)) is not None:
                return pool
            if self._loop is None or not self._loop.is_running():
                _move(self, loop)
                self._loop = loop
                return self
            pool = cast(LoopPool, self.recreate())
            pool._loop = loop
            self._pools[loop] = pool
            return pool

    def take_pools(self) -> "list[LoopPool]":
        """Forget the pools of other loops, and return them."""
        with self._moving:
            pools, self._pools = list(self._pools.values()), {}
        return pools

    def dispose(self) -> None:
        here = running_loop()
        for pool in (self, *self.take_pools()):
            # Connections of another loop cannot be awaited here.
            if pool._loop in (None, here):
                super(LoopPool, pool).dispose()
            else:
                drop_idle(pool)
