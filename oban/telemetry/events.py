"""The events about jobs that are enqueued and about their attempts. The class of an event is its name."""

from dataclasses import dataclass

from oban.telemetry.views import JobView
from oban.types import JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The base of all events.

    Attributes:
        instance: The name of the client's instance.
        node: The name of the client's node.
    """

    instance: str
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsEnqueued(Event):
    """A client has inserted jobs.

    Attributes:
        jobs: The jobs that were inserted.
        duplicates: How many unique jobs were not inserted, because there is another job with the same key.
        duration: Seconds that the call took.
        in_transaction: Whether the jobs are part of the caller's transaction, which can still be rolled back.
    """

    jobs: tuple[JobView, ...]
    duplicates: int
    duration: float
    in_transaction: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent(Event):
    """The base of the events about an attempt. Handlers are called in the task or thread of the attempt.

    Attributes:
        job: The job, with redacted values replaced.
    """

    job: JobView


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted(JobEvent):
    """An attempt starts.

    Attributes:
        queue_time: Seconds from when the job was due until it was fetched, by the database's clock.
    """

    queue_time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded(JobEvent):
    """An attempt has ended. Its outcome may not be stored yet.

    Attributes:
        outcome: "completed", "cancelled", "snoozed", "released" (put back, as the node stops), "discarded" or
            "failed".
        state: The state that the job gets; None if the job was cancelled, rescued or deleted meanwhile, so
            that the outcome does not count.
        duration: Seconds that the attempt took.
        queue_time: As in `JobStarted`.
        delay: Seconds until the next attempt of a job that failed or was snoozed; None otherwise.
        error: Why the attempt failed or was cancelled, as it is stored in `errors`, redacted; None otherwise.
        error_type: The qualified name of the exception's class; None without an exception.
    """

    outcome: str
    state: JobState | None
    duration: float
    queue_time: float
    delay: float | None = None
    error: str | None = None
    error_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReleased(Event):
    """A job that a queue has fetched is put back before its attempt starts, because the node stops.

    A job whose attempt has started sends a `JobEnded` with the outcome "released" instead.

    Attributes:
        job: As in `JobEvent`.
    """

    job: JobView


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUnreadable(Event):
    """A queue has fetched a job whose row cannot be read, and discards it. There is no attempt.

    Attributes:
        job_id: The id of the job.
        queue: The queue that has fetched it.
        attempt: The number of the attempt that cannot take place.
        error: Why the row cannot be read, as it is stored in `errors`.
        error_type: The qualified name of the driver's error.
    """

    job_id: int
    queue: str
    attempt: int
    error: str
    error_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeReplaced(Event):
    """The database has refused the outcome of an attempt, so that another one was stored.

    Attributes:
        job_id: The id of the job.
        attempt: The number of the attempt.
        outcome: The outcome of the attempt, as in `JobEnded`.
        stored: The outcome that was stored. If it is the same, its value or text was left out.
        error: The first line of the driver's message.
        error_type: The qualified name of the driver's error.
    """

    job_id: int
    attempt: int
    outcome: str
    stored: str
    error: str
    error_type: str
