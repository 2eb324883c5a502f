"""Lets tasks that run jobs in the transaction of one client take turns.

Each job with a session works in a savepoint. Two savepoints of one connection that overlap would end each
other, and the transaction of the test with them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from weakref import WeakKeyDictionary

from oban.database.aio import Database
from oban.database.joined import JoinedCaller
from oban.database.loops import LoopLock


class _Turn:
    """A block of `turn`, and the lock for those within it, which tasks of its jobs can begin at once."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.is_over = False


_locks: WeakKeyDictionary[JoinedCaller, LoopLock] = WeakKeyDictionary()
_current: ContextVar[_Turn | None] = ContextVar("oban.testing.turn", default=None)


@asynccontextmanager
async def turn(database: Database) -> AsyncIterator[None]:
    """Wait until no other task runs jobs in the transaction that a client joins, if there is one."""
    if database.joined is None:
        yield
        return
    outer = _current.get()
    # A task that has outlived the job that started it waits for the jobs that run now.
    is_within = outer is not None and not outer.is_over
    lock = outer.lock if outer and is_within else _locks.setdefault(database.joined, LoopLock())
    async with lock:
        own = _Turn()
        token = _current.set(own)
        try:
            yield
        finally:
            own.is_over = True
            _current.reset(token)
