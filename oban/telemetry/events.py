"""The events. Each is a frozen dataclass; its class is its name."""

from dataclasses import dataclass
from typing import Any

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
        jobs: The jobs, without duplicates of unique ones, which were not inserted.
        duration: Seconds that the call took.
        in_transaction: Whether the jobs are part of the caller's transaction, which can still be rolled back.
    """

    jobs: tuple[JobView, ...]
    duration: float
    in_transaction: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent(Event):
    """The base of the events about an attempt. Handlers are called in the task or thread of the attempt."""

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


def all_events() -> tuple[type[Event], ...]:
    """The classes of which there are events, without those that are only bases."""
    found: list[type[Event]] = []
    waiting: list[Any] = [Event]
    while waiting:
        subclasses = waiting.pop().__subclasses__()
        waiting += subclasses
        found += [cls for cls in subclasses if not cls.__subclasses__()]
    return tuple(found)
