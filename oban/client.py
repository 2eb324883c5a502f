"""`Oban`: the client for asyncio, which can also run jobs."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self, Unpack

from sqlalchemy import URL, Select
from sqlalchemy.ext.asyncio import AsyncEngine

from oban import display, fields, insert_hook, instances
from oban.base_client import BaseClient, async_batches, check_size
from oban.database.aio import Database
from oban.database.base import Function, P
from oban.database.joined import AsyncCaller, SyncCaller
from oban.fields import RetryOptions
from oban.inspection_clients import AsyncInspection
from oban.models import Job
from oban.notifier import direct_url
from oban.periodic_clients import AsyncPeriodic
from oban.polling import Polling, Timeout
from oban.queue_clients import AsyncQueues
from oban.repository import (
    insert,
    management,
    pages,
    retry,
    update,
    waiting,
)
from oban.repository.retry import RetryOutcome
from oban.repository.selection import Selection, Target, Targets, load_jobs, parse, parse_id, parse_many
from oban.repository.update import JobChanges
from oban.runner import Node, sync_calls
from oban.runner.execution import session_factory
from oban.telemetry import JobsCancelled, JobsChanged, JobsDeleted, JobsRetried, JobsUpdated
from oban.telemetry.enqueueing import observe_async, observed


class Oban(AsyncQueues, AsyncPeriodic, AsyncInspection, BaseClient[AsyncEngine, AsyncCaller]):
    """A job queue in a database: enqueues and manages jobs, and runs them if it has queues.

    Use it as `async with Oban(engine, queues={"default": 10}) as oban:`, or call `start` and `stop`. A
    client without queues need not be started. Most methods take `session`, an `AsyncSession`, an
    `async_scoped_session` or an `AsyncConnection`; `start`, `stop`, `check_queue` and `check_all_queues` do
    not. A client that runs jobs can only be used on the event loop that it was started on.

    Besides the errors that their documentation lists, methods that use the database raise `SchemaMissing`,
    `DatabaseUnavailable` if they cannot connect, `WrongLoop`, `WouldDeadlock` (all in `oban.errors`),
    `InvalidTarget` for a wrong `session`, and SQLAlchemy's errors.
    """

    _instances = instances.async_clients

    def _open(self, engine: AsyncEngine | AsyncCaller | str | URL) -> None:
        self._database = Database(engine, self.options.prefix, pooled=self.options.behind_pooler)
        self._database.history, self._database.telemetry = self.options.history, self.telemetry
        session_factory.check(self.options.session)
        # Raises ConfigError for a URL that cannot serve this database.
        direct_url(self._database, self.options.listen_url)
        self._node = Node(self._database)

    @property
    def engine(self) -> AsyncEngine:
        return self._database.engine

    @property
    def is_leader(self) -> bool:
        return (runner := self._node.runner) is not None and runner.leader.leads

    @property
    def _runs_jobs(self) -> bool:
        return self._node.is_in_this_process

    async def start(self) -> None:
        await self._node.start(self, self.options)
        if self.options.queues:
            self._instances.have_run = True

    async def stop(self) -> None:
        await self._node.stop()

    @asynccontextmanager
    async def asgi_lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Start and stop with an ASGI application: `FastAPI(lifespan=oban.asgi_lifespan)`.

        Args:
            app: The application, which the framework passes; it is not used.
        """
        async with self:
            yield

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # -- jobs ----------------------------------------------------------------------------------

    async def _change(
        self,
        event: type[JobsChanged],
        session: AsyncCaller | None,
        function: Function[P, int],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> int:
        """Run a function that changes jobs, and emit an event with their number, which is returned."""
        count = await self._database.run(session, function, *args, **kwargs)
        if count:
            self.telemetry.emit(event, count=count, in_transaction=session is not None)
        return count

    async def enqueue(self, job: Job, session: AsyncCaller | None = None) -> Job:
        jobs = insert.collect_jobs([job])
        await self._insert(session, jobs, attach=session is not None)
        return job

    def _insert(
        self, session: AsyncCaller | None, jobs: list[Job], *, attach: bool
    ) -> Coroutine[Any, Any, None]:
        insertion = self._database.run(
            session, insert.insert_all, jobs, attach=attach, max_attempts=self.options.max_attempts
        )
        if self.telemetry.observes_enqueues:
            insertion = observe_async(self.telemetry, insertion, jobs, session is not None)
        hook = insert_hook.hook
        return insertion if hook is None else hook.around_async(self, insertion, session, jobs)

    def _enqueue_sync(self, job: Job, session: SyncCaller | None) -> Job:
        jobs, most = insert.collect_jobs([job]), self.options.max_attempts
        call = partial(self._insert, None, jobs, attach=False)
        if session is not None:
            # Here, rather than on the event loop: the session belongs to this thread.
            with observed(self.telemetry, jobs, True):
                self._database.join_sync(
                    session, True, insert.insert_all, jobs, attach=True, max_attempts=most
                )
            if (hook := insert_hook.hook) is None or not hook.is_needed():
                return job
            call = partial(hook.after_async, self, session, jobs)
        sync_calls.wait_for(self._database, self.options.name, call)
        return job

    async def enqueue_many(
        self, jobs: Iterable[Job] | Job, *more: Job, session: AsyncCaller | None = None
    ) -> list[Job]:
        new = insert.collect_jobs(jobs, *more)
        await self._insert(session, new, attach=session is not None)
        return new

    async def enqueue_stream(
        self,
        jobs: Iterable[Job] | AsyncIterable[Job],
        *,
        batch: int = insert.BATCH,
        session: AsyncCaller | None = None,
    ) -> int:
        count = 0
        async for part in async_batches(jobs, batch):
            await self._insert(session, part, attach=False)
            count += len(part)
            # Free these jobs before the next batch is collected.
            del part
        return count

    async def get_job(self, job_id: int, session: AsyncCaller | None = None) -> Job | None:
        return await self._database.read_in(session, management.get_job, parse_id(job_id))

    async def list_jobs(
        self,
        select_statement: Select[Any] | None = None,
        session: AsyncCaller | None = None,
        *,
        limit: int | None = None,
        after: Target | None = None,
    ) -> list[Job]:
        if limit is not None:
            check_size(limit, "limit")
        statement = pages.page(select_statement, limit, after)
        return await self._database.read_in(session, load_jobs, statement)

    def iterate_jobs(
        self,
        select_statement: Select[Any] | None = None,
        session: AsyncCaller | None = None,
        *,
        batch: int | None = None,
    ) -> AsyncIterator[Job]:
        size = pages.batch_size(select_statement, batch)
        check_size(size, "batch")
        # Refuses a wrong statement here, rather than at the first step of the loop.
        pages.page(select_statement, size, 0)
        return self._iterate(select_statement, session, size)

    async def _iterate(
        self, select_statement: Select[Any] | None, session: AsyncCaller | None, size: int
    ) -> AsyncIterator[Job]:
        last_id = 0
        while True:
            page = pages.page(select_statement, size, last_id)
            jobs = await self._database.read_in(session, load_jobs, page)
            if not jobs:
                return
            last_id = jobs[-1].id
            # Each job can be freed as soon as the caller is done with it.
            jobs.reverse()
            while jobs:
                yield jobs.pop()

    async def cancel_job(self, job_or_id: Target, session: AsyncCaller | None = None) -> bool:
        return await self._change(JobsCancelled, session, management.cancel_jobs, parse([job_or_id])) == 1

    async def cancel_many_jobs(
        self, jobs: Targets, session: AsyncCaller | None = None, *, everything: bool = False
    ) -> int:
        selection = parse_many(jobs, everything, "cancel")
        return await self._change(JobsCancelled, session, management.cancel_jobs, selection)

    async def retry_job(
        self,
        job_or_id: Target,
        session: AsyncCaller | None = None,
        *,
        outcomes: list[RetryOutcome] | None = None,
        **options: Unpack[RetryOptions],
    ) -> bool:
        changes = fields.check_retry(options)
        selection = parse([job_or_id])
        return await self._change(JobsRetried, session, retry.retry_jobs, selection, changes, outcomes) == 1

    async def retry_many_jobs(
        self,
        jobs: Targets,
        session: AsyncCaller | None = None,
        *,
        everything: bool = False,
        outcomes: list[RetryOutcome] | None = None,
        **options: Unpack[RetryOptions],
    ) -> int:
        changes = fields.check_retry(options)
        selection = parse_many(jobs, everything, "retry")
        return await self._change(JobsRetried, session, retry.retry_jobs, selection, changes, outcomes)

    async def delete_job(self, job_or_id: Target, session: AsyncCaller | None = None) -> bool:
        return await self._change(JobsDeleted, session, management.delete_jobs, parse([job_or_id])) == 1

    async def delete_many_jobs(
        self, jobs: Targets, session: AsyncCaller | None = None, *, everything: bool = False
    ) -> int:
        selection = parse_many(jobs, everything, "delete")
        return await self._change(JobsDeleted, session, management.delete_jobs, selection)

    async def update_job(
        self, job_or_id: Target, changes: JobChanges, session: AsyncCaller | None = None
    ) -> Job:
        update.check_changes(changes)
        return (await self._update(session, parse([job_or_id]), changes))[0]

    async def update_many_jobs(
        self,
        jobs: Targets,
        changes: JobChanges,
        session: AsyncCaller | None = None,
        *,
        everything: bool = False,
    ) -> list[Job]:
        update.check_changes(changes)
        selection = parse_many(jobs, everything, "update")
        return await self._update(session, selection, changes)

    async def _update(
        self, session: AsyncCaller | None, selection: Selection, changes: JobChanges
    ) -> list[Job]:
        jobs = await self._database.run(session, update.update_jobs, selection, changes)
        if jobs:
            self.telemetry.emit(JobsUpdated, count=len(jobs), in_transaction=session is not None)
        return jobs

    async def wait(self, job_or_id: Target, timeout: Timeout = None) -> Job:
        job_id = parse_id(job_or_id)
        polling = Polling(timeout, f"job {display.shown(job_id)} has not ended")
        while True:
            job = await self._database.run(None, waiting.ended_job, parse([job_or_id]))
            if job is not None:
                return job
            await asyncio.sleep(polling.pause())

    async def wait_until_empty(self, queue: str | None = None, timeout: Timeout = None) -> None:
        queue = fields.queue_or_none(queue)
        which = "the queues are" if queue is None else f"the queue {queue} is"
        polling = Polling(timeout, f"{which} not empty")
        while True:
            if await self._database.run(None, waiting.is_empty, queue):
                return
            await asyncio.sleep(polling.pause())
