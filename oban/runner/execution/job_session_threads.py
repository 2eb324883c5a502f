"""Sync sessions for jobs in threads, also where the driver of the node only works with asyncio."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import TypeVar

from greenlet import getcurrent
from sqlalchemy.orm import Session

from oban import clock, compat
from oban.compat import ProviderGreenlet
from oban.database.aio import Database
from oban.database.transaction import Notice
from oban.errors import ConfigError
from oban.repository.acknowledge import Ack
from oban.runner import deadlines
from oban.runner.execution.job_session import JobSessions
from oban.runner.execution.outcome import AttemptFailed
from oban.runner.execution.session_factory import SessionFactory

T = TypeVar("T")


class ThreadSessions:
    """Sessions for the jobs in threads: as many `ThreadSession`s as such jobs have run at once.

    Make it on the event loop of the node. `timeout` and `factory` are as for `JobSessions`.
    """

    def __init__(self, database: Database, timeout: float, factory: SessionFactory | None = None) -> None:
        self._database = database
        self._timeout = timeout
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._idle: list[ThreadSession] = []
        self._closed = False
        self._lock = threading.Lock()

    @contextmanager
    def acquire(self) -> "Iterator[ThreadSession]":
        """Borrow a `ThreadSession` for a job in this thread.

        Raises `AttemptFailed` for a database in memory, whose one connection belongs to the event loop.
        """
        with self._lock:
            # The connection that was used last is the least likely to have been lost.
            session = self._idle.pop() if self._idle else None
        if session is None:
            session = self._make()
        try:
            yield session
        finally:
            with self._lock:
                is_closed = self._closed
                if not is_closed:
                    self._idle.append(session)
            if is_closed:
                session.close(self._timeout)

    def _make(self) -> "ThreadSession":
        if self._database.in_memory:
            raise AttemptFailed(
                ConfigError(
                    "a database in memory has only one connection, on the event loop; make process async, or"
                    " use a file"
                )
            )
        return ThreadSession(self._database, self._timeout, self._factory, self._announce)

    def _announce(self, notices: list[Notice]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._database.announce, notices)

    async def close(self, threads: Executor, seconds: float) -> None:
        """Close all connections, in one of `threads`, within `seconds`. One in use closes after its job."""
        with self._lock:
            self._closed = True
            sessions, self._idle = self._idle, []
        if sessions:
            until = clock.monotonic() + seconds
            await asyncio.get_running_loop().run_in_executor(threads, _close_all, sessions, until)


class ThreadSession:
    """Runs sync jobs with a session, one at a time, in any thread.

    It has an event loop and a connection of its own. The loop runs only while a statement does, so that
    the job itself can use asyncio.
    """

    def __init__(
        self,
        database: Database,
        timeout: float,
        factory: SessionFactory | None,
        on_notices: Callable[[list[Notice]], None],
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._database = database.with_own_pool(1, None, own_loop=True)
        self._database.on_notices.append(on_notices)
        # After a restart of the server, each pool of one connection would fail a job before it reconnects.
        compat.enable_pre_ping(self._database.engine.pool)
        self._sessions = JobSessions(self._database, timeout, factory, in_thread=True)

    def run(self, work: Callable[[Session], Ack]) -> tuple[Ack, bool]:
        """Call `work` with a session in this thread, and commit with the outcome that it returns.

        Returns that outcome, and whether it is committed, and not rolled back. Raises what `work` and
        `JobSessions.commit_with_outcome` raise.
        """
        session = self._sessions.make()
        try:
            ack = self._run_sync(work, session.sync_session)
            return ack, self._await(self._sessions.commit_with_outcome(session, ack))
        finally:
            self._await(self._sessions.close(session))

    def _run_sync(self, work: Callable[[Session], Ack], session: Session) -> Ack:
        """Call `work` in a greenlet, and run the loop for each awaitable that the driver sends out of it."""
        runner = ProviderGreenlet(work)
        runner.gr_context = getcurrent().gr_context
        result = runner.switch(session)
        while not runner.dead:
            try:
                value = self._await(result)
            except BaseException as error:
                result = runner.throw(type(error), error, error.__traceback__)
            else:
                result = runner.switch(value)
        ack: Ack = result
        return ack

    def _await(self, awaitable: Awaitable[T]) -> T:
        return self._loop.run_until_complete(awaitable)

    def close(self, seconds: float) -> None:
        """Close the connection within `seconds`."""
        self._await(deadlines.close(self._database, seconds))
        self._loop.close()


def _close_all(sessions: list[ThreadSession], until: float) -> None:
    for session in sessions:
        session.close(max(0.0, until - clock.monotonic()))
