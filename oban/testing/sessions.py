"""The sessions of jobs in tests, on the connection or the engine that the test uses."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import compat
from oban.database.sync import SyncDatabase
from oban.errors import ConfigError
from oban.repository import acknowledge
from oban.repository.acknowledge import Ack
from oban.repository.runs import lost_runs
from oban.runner.execution.job_session import JobSessions, row_changed
from oban.runner.execution.outcome import AttemptFailed
from oban.runner.execution.session_sources import AsyncSessions

T = TypeVar("T")


class WithoutOutcome(JobSessions):
    """Sessions of jobs that have no row, for `process_job`: what the job has written is committed alone."""

    async def commit_with_outcome(self, session: AsyncSession, ack: Ack) -> Literal[True]:
        await session.commit()
        return True


class LoopSessions:
    """Sessions of plain jobs that use the test's asyncio driver from the thread of the job.

    The event loop of the test runs what the driver waits for, so that all jobs can share its connection.
    """

    def __init__(self, sessions: AsyncSessions) -> None:
        self._sessions = sessions
        self._loop = asyncio.get_running_loop()

    @contextmanager
    def acquire(self) -> "Iterator[LoopSessions]":
        """Return this object, as jobs run one after another."""
        yield self

    def run(self, work: Callable[[Session], Ack]) -> tuple[Ack, bool]:
        """Call `work` in this thread, and commit with the outcome that it returns."""
        session = self._sessions.make()
        try:
            ack = compat.drive(partial(work, session.sync_session), self._wait)
            return ack, self._wait(self._sessions.commit_with_outcome(session, ack))
        finally:
            self._wait(self._sessions.close(session))

    def _wait(self, awaitable: Awaitable[T]) -> T:
        return asyncio.run_coroutine_threadsafe(_awaited(awaitable), self._loop).result()


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


class _BlockingSession(AsyncSession):
    """An `AsyncSession` on a sync driver, whose statements block the event loop of the job."""

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        # SQLAlchemy's own method closes cursors in the way of an asyncio driver.
        return await compat.run_sync(partial(self.sync_session.execute, *args, **kwargs))


class BlockingSessions:
    """Sessions of jobs on a sync driver, for plain workers and for async ones.

    Args:
        database: The database of the `SyncOban`.
        bind: The test's connection, or else the engine.
        has_rows: Whether the jobs have rows, in which their outcomes are stored.
    """

    def __init__(self, database: SyncDatabase, bind: Connection | Engine, *, has_rows: bool = True) -> None:
        self._database = database
        self._bind = bind
        self._has_rows = has_rows
        self._options: dict[str, Any] = {"expire_on_commit": False}
        if isinstance(bind, Connection):
            self._options["join_transaction_mode"] = "create_savepoint"

    def make(self) -> AsyncSession:
        """Make a session for an async worker."""
        session = _BlockingSession(**self._options)
        session.sync_session.bind = self._bind
        return session

    async def commit_with_outcome(self, session: AsyncSession, ack: Ack) -> bool:
        """Commit a session with the outcome of its run; returns whether it is committed."""
        return await compat.run_sync(partial(self._commit, session.sync_session, ack))

    async def close(self, session: AsyncSession) -> None:
        """Roll back what was not committed."""
        await session.close()
        session.sync_session.autobegin = False

    @contextmanager
    def acquire(self) -> "Iterator[BlockingSessions]":
        """Return this object, as jobs run one after another."""
        yield self

    def run(self, work: Callable[[Session], Ack]) -> tuple[Ack, bool]:
        """Call `work` in this thread, and commit with the outcome that it returns."""
        with Session(self._bind, **self._options) as session:
            ack = work(session)
            return ack, self._commit(session, ack)

    def _commit(self, session: Session, ack: Ack) -> bool:
        if self._has_rows and not self._database.join_sync(session, True, acknowledge.acknowledge, [ack]):
            session.rollback()
            if (key := ack[:3]) in self._database.run(None, lost_runs, [key]):
                return False
            raise AttemptFailed(row_changed())
        session.commit()
        return True


class NoSessions:
    """For jobs that run without a client."""

    def make(self) -> AsyncSession:
        """Raise `AttemptFailed`."""
        raise AttemptFailed(
            ConfigError(
                "the worker takes a session, and there is no Oban or SyncOban for it: request the fixture"
                " oban in an async test, or sync_oban in another one"
            )
        )

    async def commit_with_outcome(self, session: AsyncSession, ack: Ack) -> bool:
        """Never called."""
        raise NotImplementedError

    async def close(self, session: AsyncSession) -> None:
        """Never called."""

    @contextmanager
    def acquire(self) -> Iterator[BlockingSessions]:
        """Raise `AttemptFailed`."""
        self.make()
        yield from ()
