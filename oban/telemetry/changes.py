"""The events about changes that clients make to stored jobs, queues and periodic entries."""

from dataclasses import dataclass
from datetime import datetime

from oban.telemetry.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsChanged(Event):
    """The base of the events about stored jobs that a client has changed.

    Attributes:
        count: How many jobs were changed, at least 1.
        in_transaction: Whether the change is part of the caller's transaction, which can still be rolled
            back.
    """

    count: int
    in_transaction: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsCancelled(JobsChanged):
    """Jobs were cancelled. An executing one sends a `JobEnded` as well, when its attempt ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsRetried(JobsChanged):
    """Jobs were retried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsUpdated(JobsChanged):
    """Fields of jobs were changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsDeleted(JobsChanged):
    """Jobs were deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueChanged(Event):
    """A client has sent a command for a queue, or for all of them. Nodes apply it a moment later.

    Attributes:
        action: "pause", "resume", "start", "stop" or "scale".
        queue: The name of the queue; `*` stands for all queues.
        target: The node that the command is for; None stands for all nodes.
        limit: The new limit; None if the command has none, or restores the configured one.
        paused: Whether the queue is paused now; None if the command does not say so.
        in_transaction: Whether the command is part of the caller's transaction, which can still be rolled
            back.
    """

    action: str
    queue: str
    target: str | None
    limit: int | None
    paused: bool | None
    in_transaction: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicChanged(Event):
    """A client has changed a periodic entry.

    Attributes:
        action: "pause", "resume", "update", "reset", "add" or "delete".
        entry: The name of the entry.
        in_transaction: Whether the change is part of the caller's transaction, which can still be rolled
            back.
    """

    action: str
    entry: str
    in_transaction: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicInserted(Event):
    """A job of a periodic entry was inserted: by the leader, or by `run_periodic`.

    Attributes:
        entry: The name of the entry.
        tick: The time for which the leader has inserted the job; None for a job of `run_periodic`.
        job_id: The id of the job. If it is a unique one that was there already, the id of that one.
        worker: The name of its worker.
        queue: Its queue.
        in_transaction: Whether the job is part of the caller's transaction, which can still be rolled back.
    """

    entry: str
    tick: datetime | None
    job_id: int
    worker: str
    queue: str
    in_transaction: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicFailed(Event):
    """The leader could not insert the jobs of a periodic entry, and tries again after a pause.

    Attributes:
        entry: The name of the entry.
        error: The first line of the error's message.
        error_type: The qualified name of the error's class.
        failures: How often the entry has failed in a row, at least 1. A lock of another transaction counts
            only once it lasts for about a second.
        pause: Seconds until the leader tries again.
    """

    entry: str
    error: str
    error_type: str
    failures: int
    pause: float
