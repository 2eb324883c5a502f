"""The worker's own transaction: what a job writes and how it ended are stored together, or neither is."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from sqlalchemy import Connection, exc
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from oban import compat
from oban.database.aio import Database
from oban.database.engines import autocommits
from oban.database.job_scope import job_session
from oban.repository import acknowledge, runs
from oban.repository.acknowledge import Ack
from oban.runner import deadlines
from oban.runner.execution.outcome import AttemptFailed

logger = logging.getLogger("oban.executor")

#: Seconds between two tries to get a connection of a pool that does not wait by itself.
PAUSE = 0.05

Work = Callable[[AsyncSession], Awaitable[Any]]
#: What to store for a result of the work; None: nothing, and what was written is rolled back.
Decide = Callable[[Any], Ack | None]


class Stored(NamedTuple):
    """Instead of a result: it has been dealt with, and `ack` is what is left to be stored, if anything."""

    ack: Ack | None


class WaitingEngine(OptionEngine):
    """An engine whose pool does not give up: a job waits for a connection as for its place in the queue."""

    def connect(self) -> Connection:
        """As ever, however long others keep all connections."""
        while True:
            try:
                return super().connect()
            except exc.TimeoutError as error:
                logger.warning("a job waits for a connection of the application's pool: %s", error)
                compat.wait_for(asyncio.sleep(PAUSE))


class OwnTransaction:
    """Gives jobs sessions, on one event loop.

    `timeout` is how many seconds storing an outcome may take, and giving up a transaction. With
    `patient`, a job waits for a connection without a limit.
    """

    def __init__(self, database: Database, timeout: float, *, patient: bool = True) -> None:
        self.database = database
        self._timeout = timeout
        options: dict[str, Any] = {}
        if autocommits(database.engine.sync_engine):
            # In which no job could have a transaction.
            options["isolation_level"] = database.dialect.isolation or "SERIALIZABLE"
        if patient:
            self._engine = AsyncEngine(WaitingEngine(database.engine.sync_engine, options))
        else:
            self._engine = database.engine.execution_options(**options)

    async def run(self, work: Work, judge: Decide) -> Any:
        """Await `work` with a session, and store its result along with what was written: `Settled` then.

        Where `judge` says None, the result itself. Raises what the work raises, `Failure` and the
        driver's errors: nothing is stored then, unless the answer to a commit was lost.
        """
        session = self.open()
        try:
            with job_session(session.sync_session):
                result = await work(session)
            ack = judge(result)
            return result if ack is None else await self.commit_with_outcome(session, ack)
        finally:
            await self.close(session)

    def open(self) -> AsyncSession:
        """A session for a job. It connects when it is used."""
        return AsyncSession(self._engine, expire_on_commit=False)

    async def commit_with_outcome(self, session: AsyncSession, ack: Ack) -> Stored:
        """Store an outcome along with what was written, or roll that back if the job is another's by now."""
        # Where a statement must not be interrupted, it waits for locks only so long anyway.
        limit = self._timeout if self.database.dialect.interruptible else None
        lost_to: DBAPIError | None = None
        try:
            async with asyncio.timeout(limit) as within:
                if await self.database.run(session, acknowledge.acknowledge, [ack]):
                    await session.commit()
                    return Stored(None)
        except DBAPIError as error:
            # At a stricter level of isolation, this is how the row turns out to be another's.
            if not self.database.dialect.is_transient(error):
                raise
            lost_to = error
        except TimeoutError:
            if not within.expired():
                raise
            raise AttemptFailed(f"TimeoutError: the transaction was not stored within {limit:g} s") from None
        await session.rollback()
        held = ack[:3]
        if held not in await self.database.run(session, runs.lost_runs, [held]):
            raise lost_to or AttemptFailed(
                "RuntimeError: the job was changed within its own transaction, so that its outcome cannot be"
                " stored in it; return Cancel(…) to cancel it"
            )
        logger.warning(
            "job %s was cancelled, rescued or deleted while it ran: what it wrote is rolled back", ack.id
        )
        # The reason of a job that was cancelled is kept.
        return Stored(None if ack.error is None else ack)

    async def close(self, session: AsyncSession) -> None:
        """Roll back what was not committed, and give the connection back."""
        uninterruptible = not self.database.dialect.interruptible
        try:
            await deadlines.within(self._timeout, session.close(), uninterruptible=uninterruptible)
        # The database rolls back what was not committed, whatever becomes of the connection.
        except Exception as error:
            logger.warning("giving up a job's transaction failed: %s", str(error) or type(error).__name__)
        finally:
            # Nor does a task that outlives the job begin another one, which nobody would end.
            session.sync_session.autobegin = False
