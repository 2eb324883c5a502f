"""The interfaces through which an executor gets the sessions of jobs."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban.repository.acknowledge import Ack


class AsyncSessions(Protocol):
    """Makes the sessions of async jobs."""

    def make(self) -> AsyncSession:
        """Make a session, which the caller closes with `close`."""

    async def commit_with_outcome(self, session: AsyncSession, ack: Ack) -> bool:
        """Commit a session with the outcome of its run; returns whether it is committed."""

    async def close(self, session: AsyncSession) -> None:
        """Roll back what was not committed."""


class SyncSession(Protocol):
    """Runs a plain job with a session, in the thread of the job."""

    def run(self, work: Callable[[Session], Ack]) -> tuple[Ack, bool]:
        """Call `work`, and commit with the outcome that it returns.

        Returns that outcome, and whether it is committed.
        """


class SyncSessions(Protocol):
    """Makes the sessions of plain jobs."""

    def acquire(self) -> AbstractContextManager[SyncSession]:
        """Borrow a session for a job in this thread."""
