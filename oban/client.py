"""`Oban`: what an application holds in its hand."""

import asyncio
from collections.abc import AsyncIterable, Iterable
from typing import Any, Self, Unpack

from sqlalchemy import URL, Select
from sqlalchemy.ext.asyncio import AsyncEngine

from oban import dialects, fields, instances
from oban.config import OptionArguments, Options
from oban.database.aio import AsyncCaller as Session
from oban.database.aio import Database
from oban.models import Job
from oban.notifier import direct_url
from oban.repository import insert, management, queue_settings
from oban.repository.management import JobChanges
from oban.repository.queue_settings import ALL, QueueInfo
from oban.repository.selection import Target, Targets, check_delete, parse, parse_id
from oban.runner import Runner, deadlines

#: How long the connections of an engine made here may take to close, in seconds.
DISPOSE_TIMEOUT = 1.0


class Oban:
    """A queue in a database: enqueues and manages jobs, and runs them if it has queues.

    `engine` is the application's `AsyncEngine`, or a URL. `queues` maps names to limits, as in
    `{"default": 10}`; without them nothing runs here. Use it as `async with Oban(…) as oban:`, or
    call `start` and `stop`; a client without queues need not be started.

    Every method takes `session=`, an `AsyncSession` or `AsyncConnection`, to take part in the
    caller's transaction: then it neither commits nor rolls back, and what it announces is
    announced at commit. Options are described in `oban.config.Options`; raises `ConfigError`.
    """

    def __init__(
        self,
        engine: AsyncEngine | str | URL,
        **options: Unpack[OptionArguments],
    ) -> None:
        self.options: Options = Options.make(**options)
        pooled = self.options.notifier == "poll" or self.options.listen_url is not None
        self._database = Database(engine, self.options.prefix, pooled=pooled)
        direct_url(self._database, self.options.listen_url)
        self._runner: Runner | None = None
        self._starting = asyncio.Lock()
        self._stopping: asyncio.Task[None] | None = None
        instances.asynchronous.register(self.options.name, self)

    @staticmethod
    def get_instance(name: str = "Oban") -> "Oban":
        """The newest `Oban` of this name in this process; raises `InstanceNotFound`."""
        instance = instances.asynchronous.named(name)
        assert isinstance(instance, Oban)  # noqa: S101 - nothing else registers
        return instance

    @property
    def engine(self) -> AsyncEngine:
        """The engine that all statements go through."""
        return self._database.engine

    @property
    def is_leader(self) -> bool:
        """Whether this node leads its instance now: it rescues and prunes."""
        return self._runner is not None and self._runner.leader.leads

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start running jobs, if there are queues. Raises `SchemaMissing` and `DatabaseUnavailable`."""
        async with self._starting:
            if self._runner is None and self.options.queues:
                runner = Runner(self._database, self.options)
                try:
                    await runner.start()
                except Exception as error:
                    raise dialects.unavailable(self.engine.url, error) or error from error
                self._runner = runner
                self._database.loop = asyncio.get_running_loop()

    async def stop(self) -> None:
        """Stop fetching, wait for running jobs, put back those that outlast the grace period.

        Called again meanwhile, it cuts the wait short.
        """
        # Whoever called it first may have been cancelled since.
        if self._stopping is None or self._stopping.done():
            self._stopping = asyncio.create_task(self._stop())
        elif self._runner is not None:
            self._runner.hurry()
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        # A start that is under way ends first.
        async with self._starting:
            if self._runner is not None:
                await self._runner.stop()
                self._runner = None
                self._database.loop = None
            await deadlines.close(self._database, DISPOSE_TIMEOUT)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # -- jobs ----------------------------------------------------------------------------------

    async def enqueue(self, job: Job, session: Session | None = None) -> Job:
        """Insert a job; the same instance, with its id and times. Raises `InvalidTarget`."""
        return (await self.enqueue_many([job], session=session))[0]

    async def enqueue_many(
        self, jobs: Iterable[Job] | Job, *more: Job, session: Session | None = None
    ) -> list[Job]:
        """Insert all jobs or none: an iterable, or one argument each. In the order given."""
        listed = insert.listed(jobs, more)
        await self._database.run(session, insert.insert_all, listed, attach=session is not None)
        return listed

    async def enqueue_stream(
        self,
        jobs: Iterable[Job] | AsyncIterable[Job],
        *,
        batch: int = insert.BATCH,
        session: Session | None = None,
    ) -> int:
        """Insert any number of jobs in batches, while they are made; how many they were.

        `jobs` is an iterable, async or not, of which `batch` (default 1,000) jobs are held at a time.
        Each batch is a transaction of its own: if one fails, or `jobs` raises, those before it are stored.
        With `session=` all of them are in the caller's transaction; the instances are not part of the
        session, nor new again if it is rolled back. Raises `InvalidTarget`, and `ConfigError` for `batch`.
        """
        count = 0
        async for part in insert.async_batches(jobs, batch):
            await self._database.run(session, insert.insert_all, part)
            count += len(part)
            # Not held while the next one is made.
            del part
        return count

    async def get_job(self, id_: int, session: Session | None = None) -> Job | None:
        """The job with this id, or None."""
        return await self._database.read_in(session, management.get_job, parse_id(id_))

    async def list_jobs(
        self,
        select_statement: Select[Any] | None = None,
        session: Session | None = None,
    ) -> list[Job]:
        """The jobs that a `select(Job)` gives; all jobs in id order without one."""
        return await self._database.read_in(session, management.list_jobs, select_statement)

    async def cancel_job(self, job_or_id: Target, session: Session | None = None) -> bool:
        """Cancel a job that has not ended; whether it was changed.

        An executing job is cancelled in the database at once. Its worker is told, on whichever
        node: `job.cancelled()` becomes true. It is not stopped by force.
        """
        return await self.cancel_many_jobs([job_or_id], session) == 1

    async def cancel_many_jobs(self, jobs: Targets, session: Session | None = None) -> int:
        """Cancel jobs, ids, or what a `select(Job)` gives; the number changed."""
        return await self._database.run(session, management.cancel_jobs, parse(jobs))

    async def retry_job(self, job_or_id: Target, session: Session | None = None) -> bool:
        """Make a job run again, now, unless it is available or executing; whether it was changed."""
        return await self.retry_many_jobs([job_or_id], session) == 1

    async def retry_many_jobs(self, jobs: Targets, session: Session | None = None) -> int:
        """Retry jobs, ids, or what a `select(Job)` gives; the number changed."""
        return await self._database.run(session, management.retry_jobs, parse(jobs))

    async def delete_job(self, job_or_id: Target, session: Session | None = None) -> bool:
        """Delete a job that is not executing; whether it was deleted."""
        return await self.delete_many_jobs([job_or_id], session) == 1

    async def delete_many_jobs(
        self, jobs: Targets, session: Session | None = None, *, everything: bool = False
    ) -> int:
        """Delete jobs, ids, or what a `select(Job)` gives; the number deleted.

        A statement without any condition takes `everything=True`, or raises `InvalidTarget`.
        """
        check_delete(jobs, everything)
        return await self._database.run(session, management.delete_jobs, parse(jobs))

    async def update_job(self, job_or_id: Target, changes: JobChanges, session: Session | None = None) -> Job:
        """Change some fields of a job; the job as it is then (the instance passed, if one was).

        `changes` is a dict, or a callable that gets the job as it is under its row lock and
        returns one. Fields: args, max_attempts, meta, priority, queue, scheduled_at or schedule_in,
        tags, worker. Raises `InvalidJob`, `JobNotFound`, or what the callable raises, and changes
        nothing then.
        """
        return (await self.update_many_jobs([job_or_id], changes, session))[0]

    async def update_many_jobs(
        self, jobs: Targets, changes: JobChanges, session: Session | None = None
    ) -> list[Job]:
        """Change some fields of many jobs, all or none; the jobs in the order given, each once.

        Those of a `select(Job)` come in id order.
        """
        management.check(changes)
        return await self._database.run(session, management.update_jobs, parse(jobs), changes)

    # -- queues --------------------------------------------------------------------------------
    #
    # What is said is stored: it holds across restarts, and for nodes that are away. The last word
    # counts for each node, whether it was said about this queue or all, on this node (`node=`) or
    # all. On this node it is in effect when the call returns, on others within `control_interval`;
    # with `session=` from the commit on. Raises `InvalidJob` for the name of a queue, `ConfigError`
    # for anything else. Only nodes that have queues of their own run any.

    async def pause_queue(self, queue: str, node: str | None = None, session: Session | None = None) -> None:
        """Fetch no more jobs of a queue until it is resumed; those that run go on."""
        await self._control(session, "pause", fields.queue(queue), node)

    async def resume_queue(self, queue: str, node: str | None = None, session: Session | None = None) -> None:
        """Fetch jobs of a queue again, also if it was paused along with all."""
        await self._control(session, "resume", fields.queue(queue), node)

    async def pause_all_queues(self, node: str | None = None, session: Session | None = None) -> None:
        """Pause every queue, also those that are started later, until they or all are resumed."""
        await self._control(session, "pause", ALL, node)

    async def resume_all_queues(self, node: str | None = None, session: Session | None = None) -> None:
        """Resume every queue, also those that were paused one by one."""
        await self._control(session, "resume", ALL, node)

    async def start_queue(
        self,
        queue: str,
        limit: int = 10,
        paused: bool = False,
        node: str | None = None,
        session: Session | None = None,
    ) -> None:
        """Run a queue, configured or not, `limit` (1 to 10,000) jobs at once; paused, it only waits."""
        await self._control(session, "start", queue, node, limit=limit, paused=paused)

    async def stop_queue(self, queue: str, node: str | None = None, session: Session | None = None) -> None:
        """Run a queue no more until it is started again; jobs that run end in the background."""
        await self._control(session, "stop", queue, node)

    async def scale_queue(
        self, queue: str, limit: int | None, node: str | None = None, session: Session | None = None
    ) -> None:
        """Let `limit` (1 to 10,000) jobs of a queue run at once; None: as many as are configured.

        A lower limit lets jobs that run end.
        """
        await self._control(session, "scale", queue, node, limit=limit)

    def check_queue(self, queue: str) -> QueueInfo | None:
        """How a queue of this node is doing now; None if it does not run here."""
        return next((info for info in self.check_all_queues() if info.queue == queue), None)

    def check_all_queues(self) -> list[QueueInfo]:
        """How each queue of this node is doing now."""
        return self._runner.check() if self._runner is not None else []

    async def check_cluster(
        self, queue: str | None = None, session: Session | None = None
    ) -> list[QueueInfo]:
        """How the queues, or one, are doing on all nodes, as of each node's last heartbeat."""
        name = None if queue is None else fields.queue(queue)
        return await self._database.read_in(session, queue_settings.producers, self.options.name, name)

    async def _control(
        self, session: Session | None, action: str, queue: str, node: str | None, **how: Any
    ) -> None:
        change = queue_settings.QueueCommand.make(action, queue, node, **how)
        await self._database.run(session, queue_settings.store_command, self.options.name, change)
        if session is None and self._runner is not None:
            await self._runner.controller.sync()
