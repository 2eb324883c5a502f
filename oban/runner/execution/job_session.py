"""Sessions for jobs: what a job writes is committed together with the outcome of its run, or not at all."""

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, event, exc
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import clock, compat, dialects, error_texts
from oban.database import job_scope
from oban.database.aio import Database
from oban.database.driver_autocommit import send_begins
from oban.database.engines import DEFAULT_ISOLATION, autocommits
from oban.repository import acknowledge, runs
from oban.repository.acknowledge import Ack
from oban.runner import deadlines
from oban.runner.execution import attempt_log, queue_events
from oban.runner.execution.acknowledger import has_values, log_replaced, replacements
from oban.runner.execution.outcome import AttemptFailed
from oban.runner.execution.run import Run
from oban.runner.execution.session_factory import SessionFactory
from oban.running_job import current_job

logger = logging.getLogger("oban.executor")

#: Seconds between two tries to get a connection: the first pause, and the limit of those that follow.
CONNECT_INTERVAL = 0.05
MAX_CONNECT_INTERVAL = 1.0
#: Seconds between two records in the log about a job that waits for a connection.
LOG_INTERVAL = 30.0


class JobSessions:
    """Sessions for the jobs of one event loop.

    Args:
        database: where the sessions connect.
        timeout: seconds that storing an outcome can take, and closing a session as well.
        factory: makes the sessions.
        connection: of the application, whose transaction the sessions join, each in a savepoint.
        in_thread: whether the jobs run in a thread, where they have a connection of their own. On the event
            loop, a job waits for a connection of the pool for as long as it takes.
        make_room: closes a connection of this node that nobody uses, and returns whether it is closed
            already. It is called when the server has no connection left, before a job waits for one.
    """

    def __init__(
        self,
        database: Database,
        timeout: float,
        factory: SessionFactory | None = None,
        *,
        connection: Connection | None = None,
        in_thread: bool = False,
        make_room: Callable[[], bool] = lambda: False,
    ) -> None:
        self.database = database
        self._factory = factory or SessionFactory()
        self._connection = connection
        self._in_thread = in_thread
        self._timeout = timeout
        options: dict[str, Any] = {}
        if autocommits(database.engine.sync_engine):
            # In AUTOCOMMIT mode, nothing could be rolled back.
            options["isolation_level"] = database.dialect.isolation or DEFAULT_ISOLATION
        self._engine = database.engine.execution_options(**options)
        send_begins(self._engine.sync_engine, database.dialect)
        if database.begins_early:
            job_scope.watch(self._engine.sync_engine)
        event.listen(self._engine.sync_engine, "set_connection_execution_options", self._options_set)
        self._make_room = make_room
        self._wait_for_connections(self._engine.sync_engine)

    def make(self) -> AsyncSession:
        """Make a session, which the caller closes with `close`. It connects when it is first used."""
        return self._factory.make(self._engine, self._connection, in_thread=self._in_thread)

    def _options_set(self, _: Connection, options: dict[str, Any]) -> None:
        """Note that the job of this context chooses an isolation level for its session."""
        job = current_job()
        run = None if job is None else job.__dict__.get("_run")
        level = options.get("isolation_level")
        if isinstance(run, Run) and level not in (None, self.database.dialect.isolation):
            run.is_isolated = True

    async def commit_with_outcome(self, session: AsyncSession, ack: Ack) -> bool:
        """Store the outcome of a run in the transaction of its session, and commit.

        If the job was cancelled, rescued or deleted meanwhile, the transaction is rolled back. An outcome
        whose value or text the database refuses is stored without it. An error means that nothing is stored,
        unless the connection was lost during the commit.

        Returns:
            Whether the transaction is committed, and not rolled back.

        Raises:
            AttemptFailed: storing took longer than the timeout, or the worker itself has changed the row.
            DBAPIError: the database has refused to commit.
        """
        # Where a statement cannot be interrupted, it waits for locks only for a limited time anyway.
        timeout = self._timeout if self.database.dialect.interruptible else None
        conflict: DBAPIError | None = None
        has_only_read = False
        try:
            async with asyncio.timeout(timeout) as deadline:
                if await self._store_and_commit(session, ack):
                    return True
        except DBAPIError as error:
            # At a stricter isolation level, the database refuses to update a row that was changed meanwhile.
            if not self.database.dialect.is_transient(error):
                raise
            conflict = error
            has_only_read = job_scope.has_only_read(session.sync_session)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise AttemptFailed(
                TimeoutError(f"the transaction was not stored within {timeout:g} s")
            ) from None
        await session.rollback()
        if has_only_read:
            # On SQLite, a transaction that has read cannot write once another one has. A new one can, and
            # nothing is lost.
            return await self.commit_with_outcome(session, ack)
        key = ack[:3]
        if key not in await self.database.run(session, runs.lost_runs, [key]):
            raise conflict or AttemptFailed(row_changed())
        return False

    async def _store_and_commit(self, session: AsyncSession, ack: Ack) -> bool:
        """Store an outcome and commit, unless the run has lost its job; returns whether that was done."""
        if has_values(ack) or _replaces_commit(session):
            if not await self._store(session, ack):
                return False
            await session.commit()
            return True
        # In one greenlet, because each one takes longer than a statement takes to be sent.
        return await compat.run_sync(partial(self._acknowledge_and_commit, session.sync_session, ack))

    def _acknowledge_and_commit(self, session: Session, ack: Ack) -> bool:
        if not self.database.join_sync(session, True, acknowledge.acknowledge, [ack]):
            return False
        session.commit()
        return True

    async def _store(self, session: AsyncSession, ack: Ack) -> set[int]:
        """Store an outcome in the session's transaction; returns the ids of the jobs that were changed."""
        if not has_values(ack):
            return await self.database.run(session, acknowledge.acknowledge, [ack])
        # What the job has written must not fail because of its outcome.
        await session.flush()
        try:
            return await self._store_in_savepoint(session, ack)
        except Exception as error:
            if self.database.dialect.is_retryable(error):
                raise
            for replacement in replacements(ack, error, may_fail=False):
                with contextlib.suppress(Exception):
                    changed = await self._store_in_savepoint(session, replacement)
                    log_replaced(ack, replacement, error)
                    queue_events.replaced(self.database.telemetry, ack, replacement, error)
                    return changed
            raise

    async def _store_in_savepoint(self, session: AsyncSession, ack: Ack) -> set[int]:
        async with session.begin_nested():
            return await self.database.run(session, acknowledge.acknowledge, [ack])

    async def close(self, session: AsyncSession) -> None:
        """Roll back what was not committed, and return the connection to the pool."""
        uninterruptible = not self.database.dialect.interruptible
        try:
            if session.in_transaction():
                await deadlines.within(self._timeout, session.close(), uninterruptible=uninterruptible)
            else:
                # The connection is back in the pool, so that nothing can hang.
                await session.close()
        # The database rolls back even if the connection is lost.
        except Exception as error:
            reason, extra = error_texts.error_line(error), attempt_log.current_fields()
            logger.warning("closing a job's session failed: %s", reason, extra=extra)
        finally:
            # A task that the job has left running must not begin a transaction that nobody would end.
            session.sync_session.autobegin = False

    def _wait_for_connections(self, engine: Engine) -> None:
        """Let an engine wait for a connection for as long as it takes, as jobs wait in a queue."""
        connect = engine.connect

        def wait_and_connect() -> Connection:
            pause, logged_at = CONNECT_INTERVAL, -math.inf
            while True:
                try:
                    return connect()
                except Exception as error:
                    # In a thread, the job itself has the one connection of the pool.
                    pool_is_empty = isinstance(error, exc.TimeoutError) and not self._in_thread
                    if not pool_is_empty and not self.database.dialect.is_full(error):
                        raise
                    if (job := current_job()) is not None and job.cancelled():
                        raise
                    if not pool_is_empty and self._make_room():
                        continue
                    if (now := clock.monotonic()) - logged_at >= LOG_INTERVAL:
                        logged_at = now
                        _log_wait(error, "the pool of job sessions" if pool_is_empty else "the server")
                compat.wait_for(asyncio.sleep(random.uniform(pause / 2, pause)))  # noqa: S311 - jitter
                pause = min(2 * pause, MAX_CONNECT_INTERVAL)

        engine.connect = wait_and_connect  # type: ignore[method-assign]


def row_changed() -> RuntimeError:
    """The error of a job that no longer has its row, which is there after the rollback."""
    return RuntimeError(
        "the job's own transaction has changed its row, so that its outcome cannot be stored;"
        " return Cancel(…) to cancel the job"
    )


def _replaces_commit(session: AsyncSession) -> bool:
    """Whether the application's session commits in a way of its own."""
    return getattr(session.commit, "__func__", None) is not AsyncSession.commit


def _log_wait(error: Exception, source: str) -> None:
    reason, extra = error_texts.first_line(str(dialects.driver_error(error))), attempt_log.current_fields()
    logger.warning("a job waits for a connection of %s: %s", source, reason, extra=extra)
