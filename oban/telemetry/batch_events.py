"""The events about what a node does with many jobs at once: fetch, store, stage, rescue and prune them."""

from dataclasses import dataclass

from oban.telemetry.events import Event
from oban.types import JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsFetched(Event):
    """A queue has looked for jobs. The same transaction stores the outcomes that wait.

    Attributes:
        queue: The name of the queue.
        count: How many jobs it has fetched, which can be 0.
        demand: How many it could have fetched.
        duration: Seconds that the transaction took.
    """

    queue: str
    count: int
    demand: int
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomesStored(Event):
    """A queue has stored outcomes. Jobs with a session store their own, without this event.

    Attributes:
        queue: The name of the queue.
        count: How many outcomes were stored, at least 1.
        duration: Seconds that the transaction took.
    """

    queue: str
    count: int
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressStored(Event):
    """A node has stored the progress of running jobs.

    Attributes:
        count: How many jobs have reported progress.
        duration: Seconds that this took.
    """

    count: int
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsStaged(Event):
    """A node has made jobs available that were scheduled for now, or whose retry is due.

    Attributes:
        count: How many jobs, at least 1.
        duration: Seconds that the transaction took.
    """

    count: int
    duration: float


@dataclass(frozen=True, slots=True)
class RescuedJob:
    """A job that was taken from a dead node.

    Attributes:
        id, worker, queue, attempt, max_attempts: As those of `Job`.
        node: The name of the dead node.
        state: `JobState.AVAILABLE`, or `JobState.DISCARDED` if that was the last attempt.
    """

    id: int
    worker: str
    queue: str
    attempt: int
    max_attempts: int
    node: str
    state: JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsRescued(Event):
    """The leader has taken jobs from dead nodes.

    Attributes:
        jobs: The jobs.
        count: How many there are, at least 1.
    """

    jobs: tuple[RescuedJob, ...]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsDiscarded(Event):
    """The leader has discarded available jobs that have no attempt left.

    Attributes:
        ids: The ids of the jobs.
        count: How many there are, at least 1.
    """

    ids: tuple[int, ...]
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsPruned(Event):
    """The leader has deleted finished jobs whose retention has ended.

    Attributes:
        state: The state of the jobs.
        count: How many jobs, at least 1.
        duration: Seconds that this took.
    """

    state: JobState
    count: int
    duration: float
