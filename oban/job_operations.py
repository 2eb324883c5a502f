"""The operations of `Oban` and `SyncOban` that change stored jobs, with the documentation for both."""

from abc import ABC, abstractmethod
from typing import Generic, Unpack

from oban.enqueue_operations import CallerT, MaybeAwaitable
from oban.fields import RetryOptions
from oban.models import Job
from oban.repository.retry import RetryOutcome
from oban.repository.selection import Target, Targets
from oban.repository.update import JobChanges


class JobOperations(ABC, Generic[CallerT]):
    """Change jobs.

    Without `session`, each call is a transaction of its own. With it, the call takes part in the caller's
    transaction: it neither commits nor rolls back, and the nodes are notified when the caller commits. A
    `Job` that is passed to be cancelled, retried or updated shows the new row afterwards.
    """

    @abstractmethod
    def cancel_job(self, job_or_id: Target, session: CallerT | None = None) -> MaybeAwaitable[bool]:
        """Cancel a job that has not finished.

        An `available`, `scheduled`, `retryable` or `suspended` job becomes `cancelled` and does not run.

        An `executing` job becomes `cancelled` at once, too, but its worker is not stopped by force:
        `job.cancelled()` becomes true, on whichever node the job runs, through a notification or within
        `watch_interval` (1 second) without one. Whatever the worker returns or raises then, the state
        remains `cancelled`; the reason of a `Cancel` and the traceback of an error are added to `errors`.

        A `completed`, `discarded` or `cancelled` job is left unchanged, and so is an unknown id.

        Args:
            job_or_id: A job or its id.
            session: The caller's session or connection, to cancel the job in its transaction.

        Returns:
            Whether the job was cancelled by this call.

        Raises:
            InvalidTarget: `job_or_id` is neither a `Job` nor an integer.
            NotEnqueued: The `Job` was never enqueued.

        Example:
            `await oban.cancel_job(job)`
        """

    @abstractmethod
    def cancel_many_jobs(
        self, jobs: Targets, session: CallerT | None = None, *, everything: bool = False
    ) -> MaybeAwaitable[int]:
        """Cancel many jobs in one transaction; see `cancel_job`.

        Args:
            jobs: Jobs and ids, or a `select(Job)`, such as `select(Job).where(Job.queue == "media")`.
            session: The caller's session or connection, to cancel the jobs in its transaction.
            everything: Allow a `select(Job)` without a condition, which finds all jobs.

        Returns:
            The number of jobs that were cancelled. Duplicates count once; unknown ids do not count.

        Raises:
            InvalidTarget: An item is not a job or an id, or the statement is not a `select(Job)`, or has no
                condition while `everything` is false.
            NotEnqueued: A `Job` was never enqueued. No job is changed then.

        Example:
            `await oban.cancel_many_jobs(select(Job).where(filters.args("customer") == 7))`
        """

    @abstractmethod
    def retry_job(
        self,
        job_or_id: Target,
        session: CallerT | None = None,
        *,
        outcomes: list[RetryOutcome] | None = None,
        **options: Unpack[RetryOptions],
    ) -> MaybeAwaitable[bool]:
        """Make a job run again, now, or for the first time before it is due.

        A job in any state but `available` and `executing` becomes `available`, or `scheduled` if it gets a
        time in the future. Its `scheduled_at` becomes that time or the current one, `completed_at`,
        `cancelled_at` and `discarded_at` are cleared, a value that was recorded by an earlier attempt is
        removed from `meta`, and if its attempts are used up, `max_attempts` is raised to allow one more.

        An `available` or `executing` job is left unchanged, and so are an unknown id and a job after 32767
        attempts, which is as many as the database can store.

        If a job is cancelled and retried while it still executes, the outcome of the old attempt is ignored.

        A unique job is left unchanged, too, if its rule finds another job with the same key, in the states
        and within the period of the rule. If `queue` is passed and the queue is one of the compared fields,
        the job gets a new key, which is compared instead.

        Args:
            job_or_id: A job or its id.
            session: The caller's session or connection, to retry the job in its transaction.
            outcomes: A list that the call extends by a `RetryOutcome(id, outcome, other_id)`. The outcome is
                "changed", "unchanged", "missing", or "conflict" with the id of the job in the way.
            options: `scheduled_at`, or `schedule_in` or `scheduled_in`: when the job runs, as for a new job
                (default: now). `queue` and `priority`: those that the job gets (default: they stay).

        Returns:
            Whether the job was changed.

        Raises:
            InvalidJob: An option does not exist or has a wrong value, or the time is set twice.
            InvalidTarget: `job_or_id` is neither a `Job` nor an integer.
            NotEnqueued: The `Job` was never enqueued.

        Example:
            `await oban.retry_job(job, schedule_in=60, priority=0)`
        """

    @abstractmethod
    def retry_many_jobs(
        self,
        jobs: Targets,
        session: CallerT | None = None,
        *,
        everything: bool = False,
        outcomes: list[RetryOutcome] | None = None,
        **options: Unpack[RetryOptions],
    ) -> MaybeAwaitable[int]:
        """Retry many jobs in one transaction; see `retry_job`, which takes the same options.

        Of several unique jobs that are in each other's way, only the first one becomes available. `outcomes`
        gets a `RetryOutcome` for each job, in the order of `jobs`, or of their ids for a statement.

        Args:
            jobs: Jobs and ids, or a `select(Job)`.
            session: The caller's session or connection, to retry the jobs in its transaction.
            everything: Allow a `select(Job)` without a condition, which finds all jobs.
            outcomes: A list that the call extends by a `RetryOutcome` for each job.
            options: As for `retry_job`.

        Returns:
            The number of jobs that were changed. Duplicates count once; unknown ids do not count.

        Raises:
            InvalidJob: An option does not exist or has a wrong value, or the time is set twice.
            InvalidTarget: An item is not a job or an id, or the statement is not a `select(Job)`, or has no
                condition while `everything` is false.
            NotEnqueued: A `Job` was never enqueued. No job is changed then.

        Example:
            `await oban.retry_many_jobs(select(Job).where(filters.state("discarded")))`
        """

    @abstractmethod
    def delete_job(self, job_or_id: Target, session: CallerT | None = None) -> MaybeAwaitable[bool]:
        """Delete a job in any state but `executing`, for good.

        An `executing` job is left unchanged: cancel it first, then delete it. An unknown id is ignored.

        Args:
            job_or_id: A job or its id.
            session: The caller's session or connection, to delete the job in its transaction.

        Returns:
            Whether the job was deleted.

        Raises:
            InvalidTarget: `job_or_id` is neither a `Job` nor an integer.
            NotEnqueued: The `Job` was never enqueued.

        Example:
            `await oban.delete_job(job)`
        """

    @abstractmethod
    def delete_many_jobs(
        self, jobs: Targets, session: CallerT | None = None, *, everything: bool = False
    ) -> MaybeAwaitable[int]:
        """Delete many jobs in one transaction; see `delete_job`.

        Args:
            jobs: Jobs and ids, or a `select(Job)`.
            session: The caller's session or connection, to delete the jobs in its transaction.
            everything: Allow a `select(Job)` without a condition, which finds all jobs.

        Returns:
            The number of jobs that were deleted. Duplicates count once; unknown ids do not count.

        Raises:
            InvalidTarget: An item is not a job or an id, or the statement is not a `select(Job)`, or has no
                condition while `everything` is false.
            NotEnqueued: A `Job` was never enqueued. No job is changed then.

        Example:
            `await oban.delete_many_jobs(select(Job).where(filters.state("cancelled")))`
        """

    @abstractmethod
    def update_job(
        self, job_or_id: Target, changes: JobChanges, session: CallerT | None = None
    ) -> MaybeAwaitable[Job]:
        """Change fields of a job in any state.

        The fields are `args`, `max_attempts`, `meta`, `priority`, `queue`, `scheduled_at` (or `schedule_in`,
        also called `scheduled_in`), `tags` and `worker`. An `available` job with a future time becomes
        `scheduled`, and a `scheduled` job whose time has come becomes `available`. An `executing` job is
        updated, too, but its current attempt goes on with the values that it started with.

        A change of a field that a unique job is compared by gives it a new key. Unless it is `completed`,
        `discarded` or `cancelled`, the new key is checked like that of a new job.

        Args:
            job_or_id: A job or its id.
            changes: A `JobUpdate`, which is a dict such as `{"priority": 0, "schedule_in": 60}`, or a plain
                function that returns one. The function is called with a copy of the current job while its
                row is locked, so it should be quick: `lambda job: {"tags": [*job.tags, "urgent"]}`.
            session: The caller's session or connection, to update the job in its transaction.

        Returns:
            The updated job: the instance that was passed, if one was.

        Raises:
            InvalidJob: A field does not exist, cannot be changed or has a wrong value.
            JobNotFound: There is no such job; `ids` has all that do not exist.
            UniqueConflict: The rule of the job finds another job with the new key, whose id is `job_id`.
            InvalidTarget: `job_or_id` is neither a `Job` nor an integer.
            NotEnqueued: The `Job` was never enqueued.

        Example:
            `await oban.update_job(job, {"queue": "media", "priority": 0})`
        """

    @abstractmethod
    def update_many_jobs(
        self,
        jobs: Targets,
        changes: JobChanges,
        session: CallerT | None = None,
        *,
        everything: bool = False,
    ) -> MaybeAwaitable[list[Job]]:
        """Change fields of many jobs in one transaction; see `update_job`.

        If anything is raised, also by the function, no job is changed. `UniqueConflict` is also raised if two
        of the jobs would be in each other's way, or if one would get a key that another has before the call.

        Args:
            jobs: Jobs and ids, or a `select(Job)`.
            changes: A `JobUpdate` for all jobs, or a plain function that is called once for each job.
            session: The caller's session or connection, to update the jobs in its transaction.
            everything: Allow a `select(Job)` without a condition, which finds all jobs.

        Returns:
            The updated jobs, each once: in the order of `jobs`, or of their ids for a statement.

        Raises:
            InvalidJob: A field does not exist, cannot be changed or has a wrong value.
            JobNotFound: Some of the jobs do not exist; `ids` has them all.
            UniqueConflict: The rule of a job finds another job with the new key, whose id is `job_id`.
            InvalidTarget: An item is not a job or an id, or the statement is not a `select(Job)`, or has no
                condition while `everything` is false.
            NotEnqueued: A `Job` was never enqueued.

        Example:
            `await oban.update_many_jobs(select(Job).where(Job.queue == "media"), {"priority": 9})`
        """
