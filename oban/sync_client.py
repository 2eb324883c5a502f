"""`SyncOban`: the client for code without asyncio."""

import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any, Self, Unpack

from sqlalchemy import URL, Engine, Select

from oban import display, fields, insert_hook, instances
from oban.base_client import BaseClient, batches, check_size
from oban.database.base import Function, P
from oban.database.joined import SyncCaller
from oban.database.sync import SyncDatabase
from oban.errors import ConfigError
from oban.fields import RetryOptions
from oban.inspection_clients import SyncInspection
from oban.models import Job
from oban.periodic_clients import SyncPeriodic
from oban.polling import Polling, Timeout
from oban.queue_clients import SyncQueues
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
from oban.telemetry import JobsCancelled, JobsChanged, JobsDeleted, JobsRetried, JobsUpdated
from oban.telemetry.enqueueing import observed


class SyncOban(SyncQueues, SyncPeriodic, SyncInspection, BaseClient[Engine, SyncCaller]):
    """`Oban` without asyncio, for Flask, scripts and threads: enqueues and manages jobs, and runs none.

    Any number of threads can use it. Jobs are run by `oban start`, or by an `Oban` with queues. Most methods
    take `session`, a `Session`, a `scoped_session` or a `Connection`.

    Besides the errors that their documentation lists, methods that use the database raise `SchemaMissing`,
    `DatabaseUnavailable` if they cannot connect, `WouldDeadlock` (all in `oban.errors`), `InvalidTarget` for
    a wrong `session`, and SQLAlchemy's errors.
    """

    _instances = instances.sync_clients

    def _open(self, engine: Engine | SyncCaller | str | URL) -> None:
        if self.options.queues:
            raise ConfigError("SyncOban runs no jobs: leave out queues; `oban start` or an Oban runs them")
        self._database = SyncDatabase(engine, self.options.prefix, pooled=self.options.behind_pooler)
        self._database.history, self._database.telemetry = self.options.history, self.telemetry
        # `oban.testing` runs the jobs of a test with these.
        for_tests = () if self._database.joined is None else ("middleware", "lifespan", "periodic")
        for option in ("session", "middleware", "lifespan", "periodic"):
            if option not in for_tests and getattr(self.options, option) not in (None, ()):
                raise ConfigError(
                    f"SyncOban runs no jobs: leave out {option}; it belongs to the Oban that runs them"
                )

    @property
    def engine(self) -> Engine:
        return self._database.engine

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self._database.dispose()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- jobs ----------------------------------------------------------------------------------

    def _change(
        self,
        event: type[JobsChanged],
        session: SyncCaller | None,
        function: Function[P, int],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> int:
        """Run a function that changes jobs, and emit an event with their number, which is returned."""
        count = self._database.run(session, function, *args, **kwargs)
        if count:
            self.telemetry.emit(event, count=count, in_transaction=session is not None)
        return count

    def enqueue(self, job: Job, session: SyncCaller | None = None) -> Job:
        jobs = insert.collect_jobs([job])
        self._insert(session, jobs, attach=session is not None)
        return job

    def _insert(self, session: SyncCaller | None, jobs: list[Job], *, attach: bool) -> None:
        observing = observed(self.telemetry, jobs, session is not None)
        with observing if self.telemetry.observes_enqueues else nullcontext():
            self._database.run(
                session, insert.insert_all, jobs, attach=attach, max_attempts=self.options.max_attempts
            )
        if (hook := insert_hook.hook) is not None:
            hook.after_sync(self, session, jobs)

    def _enqueue_sync(self, job: Job, session: SyncCaller | None) -> Job:
        return self.enqueue(job, session)

    def enqueue_many(
        self, jobs: Iterable[Job] | Job, *more: Job, session: SyncCaller | None = None
    ) -> list[Job]:
        new = insert.collect_jobs(jobs, *more)
        self._insert(session, new, attach=session is not None)
        return new

    def enqueue_stream(
        self,
        jobs: Iterable[Job],
        *,
        batch: int = insert.BATCH,
        session: SyncCaller | None = None,
    ) -> int:
        count = 0
        for part in batches(jobs, batch):
            self._insert(session, part, attach=False)
            count += len(part)
            # Free these jobs before the next batch is collected.
            del part
        return count

    def get_job(self, job_id: int, session: SyncCaller | None = None) -> Job | None:
        return self._database.read_in(session, management.get_job, parse_id(job_id))

    def list_jobs(
        self,
        select_statement: Select[Any] | None = None,
        session: SyncCaller | None = None,
        *,
        limit: int | None = None,
        after: Target | None = None,
    ) -> list[Job]:
        if limit is not None:
            check_size(limit, "limit")
        statement = pages.page(select_statement, limit, after)
        return self._database.read_in(session, load_jobs, statement)

    def iterate_jobs(
        self,
        select_statement: Select[Any] | None = None,
        session: SyncCaller | None = None,
        *,
        batch: int | None = None,
    ) -> Iterator[Job]:
        size = pages.batch_size(select_statement, batch)
        check_size(size, "batch")
        # Refuses a wrong statement here, rather than at the first step of the loop.
        pages.page(select_statement, size, 0)
        return self._iterate(select_statement, session, size)

    def _iterate(
        self, select_statement: Select[Any] | None, session: SyncCaller | None, size: int
    ) -> Iterator[Job]:
        last_id = 0
        while True:
            page = pages.page(select_statement, size, last_id)
            jobs = self._database.read_in(session, load_jobs, page)
            if not jobs:
                return
            last_id = jobs[-1].id
            # Each job can be freed as soon as the caller is done with it.
            jobs.reverse()
            while jobs:
                yield jobs.pop()

    def cancel_job(self, job_or_id: Target, session: SyncCaller | None = None) -> bool:
        return self._change(JobsCancelled, session, management.cancel_jobs, parse([job_or_id])) == 1

    def cancel_many_jobs(
        self, jobs: Targets, session: SyncCaller | None = None, *, everything: bool = False
    ) -> int:
        selection = parse_many(jobs, everything, "cancel")
        return self._change(JobsCancelled, session, management.cancel_jobs, selection)

    def retry_job(
        self,
        job_or_id: Target,
        session: SyncCaller | None = None,
        *,
        outcomes: list[RetryOutcome] | None = None,
        **options: Unpack[RetryOptions],
    ) -> bool:
        changes = fields.check_retry(options)
        selection = parse([job_or_id])
        return self._change(JobsRetried, session, retry.retry_jobs, selection, changes, outcomes) == 1

    def retry_many_jobs(
        self,
        jobs: Targets,
        session: SyncCaller | None = None,
        *,
        everything: bool = False,
        outcomes: list[RetryOutcome] | None = None,
        **options: Unpack[RetryOptions],
    ) -> int:
        changes = fields.check_retry(options)
        selection = parse_many(jobs, everything, "retry")
        return self._change(JobsRetried, session, retry.retry_jobs, selection, changes, outcomes)

    def delete_job(self, job_or_id: Target, session: SyncCaller | None = None) -> bool:
        return self._change(JobsDeleted, session, management.delete_jobs, parse([job_or_id])) == 1

    def delete_many_jobs(
        self, jobs: Targets, session: SyncCaller | None = None, *, everything: bool = False
    ) -> int:
        selection = parse_many(jobs, everything, "delete")
        return self._change(JobsDeleted, session, management.delete_jobs, selection)

    def update_job(self, job_or_id: Target, changes: JobChanges, session: SyncCaller | None = None) -> Job:
        update.check_changes(changes)
        return self._update(session, parse([job_or_id]), changes)[0]

    def update_many_jobs(
        self,
        jobs: Targets,
        changes: JobChanges,
        session: SyncCaller | None = None,
        *,
        everything: bool = False,
    ) -> list[Job]:
        update.check_changes(changes)
        selection = parse_many(jobs, everything, "update")
        return self._update(session, selection, changes)

    def _update(self, session: SyncCaller | None, selection: Selection, changes: JobChanges) -> list[Job]:
        jobs = self._database.run(session, update.update_jobs, selection, changes)
        if jobs:
            self.telemetry.emit(JobsUpdated, count=len(jobs), in_transaction=session is not None)
        return jobs

    def wait(self, job_or_id: Target, timeout: Timeout = None) -> Job:
        job_id = parse_id(job_or_id)
        polling = Polling(timeout, f"job {display.shown(job_id)} has not ended")
        while True:
            job = self._database.run(None, waiting.ended_job, parse([job_or_id]))
            if job is not None:
                return job
            time.sleep(polling.pause())

    def wait_until_empty(self, queue: str | None = None, timeout: Timeout = None) -> None:
        queue = fields.queue_or_none(queue)
        which = "the queues are" if queue is None else f"the queue {queue} is"
        polling = Polling(timeout, f"{which} not empty")
        while True:
            if self._database.run(None, waiting.is_empty, queue):
                return
            time.sleep(polling.pause())
