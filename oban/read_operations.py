"""The operations of `Oban` and `SyncOban` that read jobs, with the documentation for both."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from typing import Any, Generic

from sqlalchemy import Select

from oban.enqueue_operations import CallerT, MaybeAwaitable
from oban.models import Job
from oban.polling import Timeout
from oban.repository.selection import Target


class ReadOperations(ABC, Generic[CallerT]):
    """Read jobs, and wait for their end."""

    @abstractmethod
    def get_job(self, job_id: int, session: CallerT | None = None) -> MaybeAwaitable[Job | None]:
        """Read the job with this id; None if there is none.

        Args:
            job_id: The id.
            session: The caller's session or connection, to read in its transaction.

        Returns:
            The job, or None.

        Raises:
            InvalidTarget: `job_id` is not an integer.

        Example:
            `await oban.get_job(42)`
        """

    @abstractmethod
    def list_jobs(
        self,
        select_statement: Select[Any] | None = None,
        session: CallerT | None = None,
        *,
        limit: int | None = None,
        after: Target | None = None,
    ) -> MaybeAwaitable[list[Job]]:
        """Read the jobs that a `select(Job)` finds, in its order, each once.

        To read page by page, pass `limit`, and as `after` the last job of the page before. The list after the
        last page is empty. With `limit` or `after`, a statement without an order is read in id order.

        Args:
            select_statement: Such as `select(Job).where(Job.queue == "media")`. Without one, all jobs are
                read, in id order.
            session: The caller's session or connection, to read in its transaction.
            limit: How many rows are read at most (default: no limit). A statement with a join that finds a
                job several times can return fewer jobs, and there may be more of them.
            after: A job or an id: only jobs with larger ids are read (default: all).

        Returns:
            The jobs, which belong to `session` if that is a session.

        Raises:
            ConfigError: `limit` is not a positive integer.
            InvalidTarget: The statement is not a `select(Job)`; it has a LIMIT, and so has the call; or
                `after` is passed with a statement that has an order other than by id, or a LIMIT, OFFSET,
                HAVING or DISTINCT ON. Or `after` is neither a `Job` nor an integer.
            NotEnqueued: The `Job` that was passed as `after` was never enqueued.

        Example:
            `await oban.list_jobs(select(Job).where(filters.state("retryable")), limit=100)`
        """

    @abstractmethod
    def iterate_jobs(
        self,
        select_statement: Select[Any] | None = None,
        session: CallerT | None = None,
        *,
        batch: int | None = None,
    ) -> AsyncIterator[Job] | Iterator[Job]:
        """Iterate over any number of jobs in id order, in constant memory: `async for`, or `for`.

        The jobs are read in batches. Without `session`, each batch is a transaction of its own, and no
        connection is in use while the loop body runs. So the body can change jobs and enqueue new ones, and
        the loop can be left at any time. Jobs that are inserted meanwhile are found as well.

        Args:
            select_statement: Such as `select(Job).where(Job.queue == "media")` (default: all jobs).
            session: The caller's session or connection, to read all batches in its transaction.
            batch: How many jobs are read at a time (default: the statement's `yield_per`, or 1,000).

        Returns:
            An iterator over the jobs, in id order.

        Raises:
            ConfigError: `batch` is not a positive integer.
            InvalidTarget: The statement is not a `select(Job)`, or has an order other than by id, or a LIMIT,
                OFFSET, HAVING or DISTINCT ON.

        Example:
            `async for job in oban.iterate_jobs(select(Job).where(Job.queue == "media")): print(job.id)`
        """

    @abstractmethod
    def wait(self, job_or_id: Target, timeout: Timeout = None) -> MaybeAwaitable[Job]:
        """Wait until a job is `completed`, `cancelled` or `discarded`, on whichever node it runs.

        The row is read again and again: after 10 ms, then with pauses that double up to half a second. No
        connection is in use during the pauses. A job that waits for a retry has not ended, and a job that is
        cancelled while it executes has, although its worker may still be running. A job that waits for itself
        waits until the timeout.

        Args:
            job_or_id: A job or its id. The transaction that enqueued it must have been committed.
            timeout: Seconds, or a timedelta, to wait at most; 0 to look once (default: no limit).

        Returns:
            The job as it has ended: the instance that was passed, if one was. `recorded` has its result.

        Raises:
            TimeoutError: The job has not ended in time.
            JobNotFound: There is no such job, or it was deleted or pruned.
            InvalidTarget: `job_or_id` is neither a `Job` nor an integer.
            NotEnqueued: The `Job` was never enqueued.
            InvalidArgument: `timeout` is negative, not finite, or not a number.

        Example:
            `await oban.wait(job, timeout=30)`
        """
