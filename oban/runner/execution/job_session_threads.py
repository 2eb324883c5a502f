"""Sync sessions for jobs in threads, on whichever driver the node has, which may know asyncio only."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from functools import partial
from typing import Any

from greenlet import getcurrent
from sqlalchemy.orm import Session

from oban import clock, compat
from oban.compat import ProviderGreenlet
from oban.database.aio import Database
from oban.database.job_scope import job_session
from oban.database.transaction import Notice
from oban.runner import deadlines
from oban.runner.execution.job_session import Decide, OwnTransaction
from oban.runner.execution.outcome import AttemptFailed

SyncWork = Callable[[Session], Any]


class ThreadSession:
    """An event loop and a connection of its own, used by one thread at a time.

    The loop runs only while a statement does: the code of a job is as free of it as any in a thread.
    """

    def __init__(self, database: Database, timeout: float) -> None:
        self._loop = asyncio.new_event_loop()
        self.database = database.with_own_pool(1, None, own_loop=True)
        # Each lane would have to find out by itself, at the cost of a job, that the server was restarted.
        compat.enable_pre_ping(self.database.engine.pool)
        self._transaction = OwnTransaction(self.database, timeout, patient=False)

    def run(self, work: SyncWork, judge: Decide) -> Any:
        """As `OwnTransaction.run`, in this thread."""
        session = self._transaction.open()
        try:
            with job_session(session.sync_session):
                result = self._bridged(partial(work, session.sync_session))
            ack = judge(result)
            return result if ack is None else self._await(self._transaction.commit_with_outcome(session, ack))
        finally:
            self._await(self._transaction.close(session))

    def _bridged(self, function: Callable[[], Any]) -> Any:
        bridge = ProviderGreenlet(function)
        bridge.gr_context = getcurrent().gr_context
        result = bridge.switch()
        while not bridge.dead:
            try:
                value = self._await(_awaited(result))
            except BaseException as error:
                result = bridge.throw(type(error), error, error.__traceback__)
            else:
                result = bridge.switch(value)
        return result

    def _await(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(coroutine)

    def close(self, seconds: float) -> None:
        """Close the connection, in so many seconds."""
        self._await(deadlines.close(self.database, seconds))
        self._loop.close()


class JobSessions:
    """Where jobs get their sessions: on the loop of the database, and in threads.

    There are as many lanes as jobs run at once in threads; the one that was used last is used next.
    """

    def __init__(self, database: Database, timeout: float) -> None:
        self.on_loop = OwnTransaction(database, timeout)
        self._database = database
        self._timeout = timeout
        self._idle: list[ThreadSession] = []
        self._closed = False
        self._lock = threading.Lock()

    def in_thread(self, loop: asyncio.AbstractEventLoop, work: SyncWork, judge: Decide) -> Any:
        """As `OwnTransaction.run`, in this thread; `loop` is the one of the database.

        Raises `Failure` for a database in memory, which has one connection.
        """
        lane = self._take(loop)
        try:
            return lane.run(work, judge)
        finally:
            self._give_back(lane)

    def _take(self, loop: asyncio.AbstractEventLoop) -> ThreadSession:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        database = self._database
        if database.dialect.is_memory(database.engine.url):
            raise AttemptFailed(
                "ConfigError: a database in memory has one connection, on the event loop: let process be"
                " async, or use a file"
            )
        lane = ThreadSession(database, self._timeout)
        lane.database.on_notices.append(partial(self._announce, loop))
        return lane

    def _give_back(self, lane: ThreadSession) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(lane)
                return
        lane.close(self._timeout)

    def _announce(self, loop: asyncio.AbstractEventLoop, notices: list[Notice]) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._database.announce, notices)

    async def close(self, threads: Executor, seconds: float) -> None:
        """Close all lanes, in so many seconds; one in use closes when its job ends."""
        with self._lock:
            self._closed = True
            lanes, self._idle = self._idle, []
        if lanes:
            until = clock.monotonic() + seconds
            await asyncio.get_running_loop().run_in_executor(threads, _close_all, lanes, until)


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _close_all(lanes: list[ThreadSession], until: float) -> None:
    for lane in lanes:
        lane.close(max(0.0, until - clock.monotonic()))
