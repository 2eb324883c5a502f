"""The operations of `Oban` and `SyncOban` that enqueue jobs, with the documentation for both."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable
from typing import Generic, TypeAlias, TypeVar

from oban.models import Job
from oban.repository import insert

T = TypeVar("T")
#: What a client takes as `session`: the caller's sessions and connections with or without asyncio.
CallerT = TypeVar("CallerT")

#: `SyncOban` returns the value, `Oban` an awaitable of it.
MaybeAwaitable: TypeAlias = T | Awaitable[T]


class EnqueueOperations(ABC, Generic[CallerT]):
    """Enqueue jobs.

    Without `session`, each call is a transaction of its own. With it, the call takes part in the caller's
    transaction: it neither commits nor rolls back, and the nodes are notified when the caller commits.

    A unique job that is a duplicate is not inserted. Its instance then shows the stored job, or the earlier
    one of the same call, with `conflict` true. It joins `session`, unless that has an instance of the stored
    job already. After a rollback, it is a new job again. If the connection is lost after the commit, a
    repeated call finds the job that the first one has inserted.

    A call waits for other transactions that have inserted a duplicate: if these roll back, it inserts the
    job. At REPEATABLE READ and SERIALIZABLE, it raises a serialization failure if one of them has committed
    since the transaction began. Two transactions that enqueue the same unique jobs in several calls, in
    different orders, can deadlock; one call with all jobs cannot, as it locks their keys in one order.
    """

    @abstractmethod
    def enqueue(self, job: Job, session: CallerT | None = None) -> MaybeAwaitable[Job]:
        """Insert a job, which runs as soon as it is due.

        Args:
            job: A new job, such as `MyWorker.new({"id": 1})`.
            session: The caller's session or connection, to insert the job in its transaction.

        Returns:
            The same instance, with its id, state and times. It belongs to `session`, if that is a session.

        Raises:
            InvalidTarget: `job` is not a `Job`, or was enqueued before.
            InvalidJob: A list or dict of the job was changed in place and cannot be stored.

        Example:
            `await oban.enqueue(Report.new({"customer": 7}), session=session)`
        """

    @abstractmethod
    def enqueue_many(
        self, jobs: Iterable[Job] | Job, *more: Job, session: CallerT | None = None
    ) -> MaybeAwaitable[list[Job]]:
        """Insert many jobs, all or none, with one statement for each 1,000 of them.

        Args:
            jobs: An iterable of new jobs, or the first one.
            more: The other jobs, if `jobs` is a single job.
            session: The caller's session or connection, to insert the jobs in its transaction.

        Returns:
            The same instances in the same order, with their ids, states and times.

        Raises:
            InvalidTarget: An item is not a `Job`, was enqueued before, or was passed twice.
            InvalidJob: A list or dict of a job was changed in place and cannot be stored.

        Example:
            `await oban.enqueue_many(Report.new({"customer": number}) for number in range(10))`
        """

    @abstractmethod
    def enqueue_stream(
        self, jobs: Iterable[Job], *, batch: int = insert.BATCH, session: CallerT | None = None
    ) -> MaybeAwaitable[int]:
        """Insert any number of jobs in batches, in constant memory.

        The jobs are inserted while they are generated, and do not become part of a session. Without
        `session`, each batch is a transaction of its own: if one fails, or `jobs` raises, the batches
        before it stay stored.

        Args:
            jobs: An iterable of new jobs, such as a generator; for `Oban` also an async iterable.
            batch: How many jobs are collected and inserted at a time (default 1,000).
            session: The caller's session or connection, to insert all jobs in its transaction.

        Returns:
            The number of jobs that were inserted.

        Raises:
            ConfigError: `batch` is not a positive integer.
            InvalidTarget: An item is not a `Job`, was enqueued before, or is part of its batch twice.
            InvalidJob: A list or dict of a job was changed in place and cannot be stored.

        Example:
            `await oban.enqueue_stream(Report.new({"row": row}) for row in rows)`
        """
