"""Sync sessions for jobs in threads, also where the driver of the node only works with asyncio."""

import asyncio
import inspect
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar
from weakref import WeakMethod

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import clock, compat
from oban.database.aio import Database
from oban.database.transaction import Notice
from oban.errors import ConfigError
from oban.repository.acknowledge import Ack
from oban.runner import deadlines
from oban.runner.execution import attempt_log
from oban.runner.execution.job_session import LOG_INTERVAL, JobSessions
from oban.runner.execution.outcome import AttemptFailed
from oban.runner.execution.session_factory import SessionFactory
from oban.running_job import current_job

logger = logging.getLogger("oban.executor")

T = TypeVar("T")

#: Seconds between two checks of a thread that waits for a session whether its job still runs.
WAIT_INTERVAL = 0.25


class ThreadSessions:
    """Sessions for the jobs in threads: as many `ThreadSession`s as such jobs have run at once.

    Each has one connection. Make it on the event loop of the node.

    Args:
        database: as for `JobSessions`.
        timeout: as for `JobSessions`.
        factory: as for `JobSessions`.
        max_connections: how many sessions there can be; further jobs wait for one.
        make_room: closes another idle connection of the node soon. It is called on the event loop when the
            server has no connection left and no `ThreadSession` is idle.
    """

    def __init__(
        self,
        database: Database,
        timeout: float,
        factory: SessionFactory | None = None,
        *,
        max_connections: int = sys.maxsize,
        make_room: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._timeout = timeout
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._idle: list[ThreadSession] = []
        self._closed = False
        self._max_connections = max_connections
        self._count = 0
        self._make_room = make_room
        #: Notified when a session becomes idle, or is closed.
        self._changed = threading.Condition()

    @property
    def count(self) -> int:
        """The number of `ThreadSession`s, in use or idle."""
        return self._count

    @contextmanager
    def acquire(self) -> "Iterator[ThreadSession]":
        """Borrow a `ThreadSession` for a job in this thread.

        Raises `AttemptFailed` for a database in memory, whose one connection belongs to the event loop.
        """
        session = self._take()
        try:
            if session is None:
                session = self._make()
            yield session
        finally:
            with self._changed:
                is_usable = session is not None and not self._closed and not session.is_closed
                if session is not None and is_usable:
                    self._idle.append(session)
                    self._changed.notify()
            if not is_usable:
                self._close(session)

    def _take(self) -> "ThreadSession | None":
        """An idle session, or None if another one can be made. Waits while neither is possible.

        Raises `TimeoutError` if the job is cancelled meanwhile, or the node ends.
        """
        logged_at = clock.monotonic()
        with self._changed:
            while not self._idle and self._count >= self._max_connections:
                if self._closed or ((job := current_job()) is not None and job.cancelled()):
                    raise TimeoutError("the job ended while it waited for a connection")
                if clock.monotonic() - logged_at >= LOG_INTERVAL:
                    logged_at = clock.monotonic()
                    logger.warning(
                        "a job waits for a connection of the pool of job sessions: all %d are in use",
                        self._max_connections,
                        extra=attempt_log.current_fields(),
                    )
                self._changed.wait(WAIT_INTERVAL)
            if self._idle:
                # The connection that was used last is the least likely to have been lost.
                return self._idle.pop()
            self._count += 1
            return None

    def _close(self, session: "ThreadSession | None") -> None:
        """Close a session that is not idle, and let another one be made."""
        try:
            if session is not None:
                session.close(self._timeout)
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify()

    def _make(self) -> "ThreadSession":
        if self._database.in_memory:
            raise AttemptFailed(
                ConfigError(
                    "a database in memory has only one connection, on the event loop; make process async, or"
                    " use a file"
                )
            )
        return ThreadSession(
            self._database, self._timeout, self._factory, self._announce, self._close_idle_session, self._loop
        )

    def _close_idle_session(self) -> bool:
        """Close the connection of an idle session, in this thread. Returns whether there was one.

        Otherwise, `make_room` closes another one.
        """
        if (session := self._pop_oldest()) is not None:
            self._close(session)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._make_room)
        return session is not None

    def close_idle_session_in(self, threads: Executor) -> bool:
        """Let one of `threads` close the connection of an idle session, and return whether there is one."""
        if (session := self._pop_oldest()) is not None:
            threads.submit(self._close, session)
        return session is not None

    def _pop_oldest(self) -> "ThreadSession | None":
        with self._changed:
            return self._idle.pop(0) if self._idle else None

    def _announce(self, notices: list[Notice]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._database.announce, notices)

    async def close(self, threads: Executor, seconds: float) -> None:
        """Close all connections, in one of `threads`, within `seconds`. One in use closes after its job."""
        if sessions := self._take_idle():
            until = clock.monotonic() + seconds
            await asyncio.get_running_loop().run_in_executor(threads, _close_all, sessions, until)

    def abandon(self, threads: Executor) -> None:
        """Close all connections in one of `threads`, without the event loop of the node."""
        if sessions := self._take_idle():
            threads.submit(_close_all, sessions, clock.monotonic() + self._timeout)

    def _take_idle(self) -> "list[ThreadSession]":
        with self._changed:
            self._closed = True
            sessions, self._idle = self._idle, []
            self._changed.notify_all()
        return sessions


class ThreadSession:
    """Runs sync jobs with a session, one at a time, in any thread.

    It has an event loop and a connection of its own. The loop runs only while a statement does, so that
    the job itself can use asyncio. `make_room` closes a connection of the node that nobody uses, if there is
    one, when the server has none left. The loop is one of uvloop if `node_loop` is.
    """

    def __init__(
        self,
        database: Database,
        timeout: float,
        factory: SessionFactory | None,
        on_notices: Callable[[list[Notice]], None],
        make_room: Callable[[], bool],
        node_loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._loop = _new_loop(node_loop)
        self._database = database.with_own_pool(1, None, own_loop=True, for_sessions=True)
        self._database.on_notices.append(on_notices)
        pool = self._database.engine.sync_engine.pool
        self._thread: int | None = None
        # SQLAlchemy asks asyncio for the thread's loop when it closes a connection. The pool lives until
        # its connections are closed, and must not refer to this object.
        set_loop = WeakMethod(self._set_loop)
        for name in ("close", "close_detached"):
            event.listen(pool, name, partial(_call_if_alive, set_loop), named=True)
        self._sessions = JobSessions(self._database, timeout, factory, in_thread=True, make_room=make_room)

    @property
    def is_closed(self) -> bool:
        """Whether the loop is closed, which a job can do as well."""
        return self._loop.is_closed()

    def run(self, work: Callable[[Session], Ack]) -> tuple[Ack, bool]:
        """Call `work` with a session in this thread, and commit with the outcome that it returns.

        Returns that outcome, and whether it is committed, and not rolled back. Raises what `work` and
        `JobSessions.commit_with_outcome` raise.
        """
        session = self._sessions.make()
        try:
            ack = self._run_sync(work, session.sync_session)
        except BaseException:
            if not self.is_closed:
                self._await(self._sessions.close(session))
            raise
        # To start and stop the loop costs more than many of the calls in it.
        return ack, self._await(self._commit_and_close(session, ack))

    async def _commit_and_close(self, session: AsyncSession, ack: Ack) -> bool:
        try:
            return await self._sessions.commit_with_outcome(session, ack)
        finally:
            await self._sessions.close(session)

    def _run_sync(self, work: Callable[[Session], Ack], session: Session) -> Ack:
        """Call `work` in a greenlet, and run the loop for each awaitable that the driver sends out of it."""
        previous = _thread_loop()
        self._thread = threading.get_ident()
        try:
            self._set_loop()
            return compat.drive(partial(work, session), self._await_within)
        finally:
            self._thread = None
            asyncio.set_event_loop(previous)

    def _await_within(self, awaitable: Awaitable[T]) -> T:
        try:
            return self._await(awaitable)
        finally:
            # If the job has called asyncio.run() since, the thread has no loop.
            self._set_loop()

    def _set_loop(self) -> None:
        """Let sync code of the driver find the loop while a job runs, as it does on a running one."""
        # The garbage collector can close a connection in any thread.
        if self._thread == threading.get_ident():
            asyncio.set_event_loop(self._loop)

    def _await(self, awaitable: Awaitable[T]) -> T:
        if self.is_closed:
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            raise AttemptFailed(RuntimeError("the job has closed the event loop that its session needs"))
        return self._loop.run_until_complete(awaitable)

    def close(self, seconds: float) -> None:
        """Close the connection within `seconds`."""
        if not self.is_closed:
            self._await(deadlines.close(self._database, seconds))
            self._loop.close()


def _new_loop(node_loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    """A new loop, of uvloop if the node runs on that, however the application made the node's."""
    kind = type(node_loop)
    is_faster = kind.__module__.partition(".")[0] in ("uvloop", "winloop")
    return kind() if is_faster else asyncio.new_event_loop()


def _call_if_alive(method: "WeakMethod[Callable[[], None]]", **_: object) -> None:
    if (call := method()) is not None:
        call()


def _thread_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that was set for this thread, if any."""
    try:
        return asyncio.get_event_loop()
    except RuntimeError:
        return None


def _close_all(sessions: list[ThreadSession], until: float) -> None:
    for session in sessions:
        session.close(max(0.0, until - clock.monotonic()))
