"""`SyncOban`: the client for code without asyncio."""

from collections.abc import Iterable
from typing import Any, Self, Unpack

from sqlalchemy import URL, Engine, Select

from oban import fields, instances
from oban.config import OptionArguments, Options
from oban.database.sync import SyncCaller as Session
from oban.database.sync import SyncDatabase
from oban.errors import ConfigError
from oban.models import Job
from oban.repository import insert, management, queue_settings
from oban.repository.management import JobChanges
from oban.repository.queue_settings import ALL, QueueInfo
from oban.repository.selection import Target, Targets, check_delete, parse, parse_id


class SyncOban:
    """`Oban` without asyncio, for Flask, scripts and threads: enqueues and manages jobs, runs none.

    `engine` is the application's `Engine`, or a URL. Each method does what that of `Oban` does, with
    the same arguments, results and errors, and without `await`; `session=` is a `Session`, a
    `scoped_session` or a `Connection`. May be used by any number of threads. Jobs are run by `oban start`
    or by an `Oban` with queues. Options are those of `Oban`, without `queues`; raises `ConfigError`.
    """

    def __init__(self, engine: Engine | str | URL, **options: Unpack[OptionArguments]) -> None:
        self.options: Options = Options.make(**options)
        if self.options.queues:
            raise ConfigError("SyncOban runs no jobs: leave out queues; `oban start` runs them, or Oban")
        pooled = self.options.notifier == "poll" or self.options.listen_url is not None
        self._database = SyncDatabase(engine, self.options.prefix, pooled=pooled)
        instances.synchronous.register(self.options.name, self)

    @staticmethod
    def get_instance(name: str = "Oban") -> "SyncOban":
        """The newest `SyncOban` of this name in this process; raises `InstanceNotFound`."""
        instance = instances.synchronous.named(name)
        assert isinstance(instance, SyncOban)  # noqa: S101 - nothing else registers
        return instance

    @property
    def engine(self) -> Engine:
        """The engine that all statements go through."""
        return self._database.engine

    @property
    def is_leader(self) -> bool:
        """False: what runs no jobs leads nothing."""
        return False

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Nothing: it connects at the first use."""

    def stop(self) -> None:
        """Close the connections of an engine that was made here."""
        self._database.dispose()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- jobs ----------------------------------------------------------------------------------

    def enqueue(self, job: Job, session: Session | None = None) -> Job:
        """Insert a job; the same instance, with its id and times. Raises `InvalidTarget`."""
        return self.enqueue_many([job], session=session)[0]

    def enqueue_many(
        self, jobs: Iterable[Job] | Job, *more: Job, session: Session | None = None
    ) -> list[Job]:
        """Insert all jobs or none: an iterable, or one argument each. In the order given."""
        listed = insert.listed(jobs, more)
        self._database.run(session, insert.insert_all, listed, attach=session is not None)
        return listed

    def enqueue_stream(
        self, jobs: Iterable[Job], *, batch: int = insert.BATCH, session: Session | None = None
    ) -> int:
        """Insert any number of jobs in batches, while they are made; how many they were.

        `jobs` is an iterable, of which `batch` (default 1,000) jobs are held at a time.
        Each batch is a transaction of its own: if one fails, or `jobs` raises, those before it are stored.
        With `session=` all of them are in the caller's transaction; the instances are not part of the
        session, nor new again if it is rolled back. Raises `InvalidTarget`, and `ConfigError` for `batch`.
        """
        count = 0
        for part in insert.batches(jobs, batch):
            self._database.run(session, insert.insert_all, part)
            count += len(part)
            # Not held while the next one is made.
            del part
        return count

    def get_job(self, id_: int, session: Session | None = None) -> Job | None:
        """The job with this id, or None."""
        return self._database.read_in(session, management.get_job, parse_id(id_))

    def list_jobs(
        self,
        select_statement: Select[Any] | None = None,
        session: Session | None = None,
    ) -> list[Job]:
        """The jobs that a `select(Job)` gives; all jobs in id order without one."""
        return self._database.read_in(session, management.list_jobs, select_statement)

    def cancel_job(self, job_or_id: Target, session: Session | None = None) -> bool:
        """Cancel a job that has not ended, an executing one too; whether it was changed."""
        return self.cancel_many_jobs([job_or_id], session) == 1

    def cancel_many_jobs(self, jobs: Targets, session: Session | None = None) -> int:
        """Cancel jobs, ids, or what a `select(Job)` gives; the number changed."""
        return self._database.run(session, management.cancel_jobs, parse(jobs))

    def retry_job(self, job_or_id: Target, session: Session | None = None) -> bool:
        """Make a job run again, now, unless it is available or executing; whether it was changed."""
        return self.retry_many_jobs([job_or_id], session) == 1

    def retry_many_jobs(self, jobs: Targets, session: Session | None = None) -> int:
        """Retry jobs, ids, or what a `select(Job)` gives; the number changed."""
        return self._database.run(session, management.retry_jobs, parse(jobs))

    def delete_job(self, job_or_id: Target, session: Session | None = None) -> bool:
        """Delete a job that is not executing; whether it was deleted."""
        return self.delete_many_jobs([job_or_id], session) == 1

    def delete_many_jobs(
        self, jobs: Targets, session: Session | None = None, *, everything: bool = False
    ) -> int:
        """Delete jobs, ids, or what a `select(Job)` gives; the number deleted.

        A statement without any condition takes `everything=True`, or raises `InvalidTarget`.
        """
        check_delete(jobs, everything)
        return self._database.run(session, management.delete_jobs, parse(jobs))

    def update_job(self, job_or_id: Target, changes: JobChanges, session: Session | None = None) -> Job:
        """Change some fields of a job, by a dict or a callable; the job as it is then.

        Raises `InvalidJob`, `JobNotFound`, or what the callable raises, and changes nothing then.
        """
        return self.update_many_jobs([job_or_id], changes, session)[0]

    def update_many_jobs(
        self, jobs: Targets, changes: JobChanges, session: Session | None = None
    ) -> list[Job]:
        """Change some fields of many jobs, all or none; the jobs in the order given, each once."""
        management.check(changes)
        return self._database.run(session, management.update_jobs, parse(jobs), changes)

    # -- queues --------------------------------------------------------------------------------

    def pause_queue(self, queue: str, node: str | None = None, session: Session | None = None) -> None:
        """Fetch no more jobs of a queue until it is resumed; those that run go on."""
        self._control(session, "pause", fields.queue(queue), node)

    def resume_queue(self, queue: str, node: str | None = None, session: Session | None = None) -> None:
        """Fetch jobs of a queue again, also if it was paused along with all."""
        self._control(session, "resume", fields.queue(queue), node)

    def pause_all_queues(self, node: str | None = None, session: Session | None = None) -> None:
        """Pause every queue, also those that are started later, until they or all are resumed."""
        self._control(session, "pause", ALL, node)

    def resume_all_queues(self, node: str | None = None, session: Session | None = None) -> None:
        """Resume every queue, also those that were paused one by one."""
        self._control(session, "resume", ALL, node)

    def start_queue(
        self,
        queue: str,
        limit: int = 10,
        paused: bool = False,
        node: str | None = None,
        session: Session | None = None,
    ) -> None:
        """Run a queue, configured or not, `limit` (1 to 10,000) jobs at once; paused, it only waits."""
        self._control(session, "start", queue, node, limit=limit, paused=paused)

    def stop_queue(self, queue: str, node: str | None = None, session: Session | None = None) -> None:
        """Run a queue no more until it is started again; jobs that run end in the background."""
        self._control(session, "stop", queue, node)

    def scale_queue(
        self, queue: str, limit: int | None, node: str | None = None, session: Session | None = None
    ) -> None:
        """Let `limit` (1 to 10,000) jobs of a queue run at once; None: as many as are configured."""
        self._control(session, "scale", queue, node, limit=limit)

    def check_queue(self, queue: str) -> QueueInfo | None:
        """None: no queue runs here. See `check_cluster`."""
        return None

    def check_all_queues(self) -> list[QueueInfo]:
        """Empty: no queue runs here. See `check_cluster`."""
        return []

    def check_cluster(self, queue: str | None = None, session: Session | None = None) -> list[QueueInfo]:
        """How the queues, or one, are doing on all nodes, as of each node's last heartbeat."""
        name = None if queue is None else fields.queue(queue)
        return self._database.read_in(session, queue_settings.producers, self.options.name, name)

    def _control(
        self, session: Session | None, action: str, queue: str, node: str | None, **how: Any
    ) -> None:
        change = queue_settings.QueueCommand.make(action, queue, node, **how)
        self._database.run(session, queue_settings.store_command, self.options.name, change)
