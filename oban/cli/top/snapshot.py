"""What `oban top` shows of an instance at one moment, which is also its `--json`."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A queue that has jobs or that a node runs.

    Attributes:
        queue: The name of the queue.
        available, executing, retryable, scheduled: How many jobs are in these states, up to 10,000 each.
        truncated: The states with more than 10,000 jobs.
        oldest: For how many seconds the oldest available job has been due; None if there is none.
        limits: How many jobs each node runs at once, one number per node.
        nodes: How many nodes run the queue, each with its process.
        paused: How many of these nodes have paused it.
        completed_per_second: How many jobs were completed per second over the last 10 seconds.
    """

    queue: str
    available: int
    executing: int
    retryable: int
    scheduled: int
    truncated: list[str]
    oldest: float | None
    limits: list[int]
    nodes: int
    paused: int
    completed_per_second: float


@dataclass(frozen=True, slots=True)
class JobProgress:
    """What a job has reported about the progress of its current attempt."""

    done: float
    total: float | None
    message: str | None


@dataclass(frozen=True, slots=True)
class ExecutingRow:
    """An executing job; `running_for` is in seconds."""

    id: int
    worker: str
    queue: str
    node: str | None
    attempt: int
    max_attempts: int
    running_for: float | None
    progress: JobProgress | None


@dataclass(frozen=True, slots=True)
class FailureRow:
    """A job whose last attempt failed, with the first line of its error; `age` is in seconds."""

    id: int
    worker: str
    queue: str
    state: str
    attempt: int
    max_attempts: int
    age: float | None
    error: str


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A process that runs queues.

    Attributes:
        node: The name of the node.
        pid: Its process id; None if another implementation does not tell.
        leader: Whether it, or another process of its name, leads the instance.
        alive: Whether its last heartbeat is within its lease.
        heartbeat: How many seconds ago that was.
        lease: The seconds without a heartbeat after which it counts as dead.
        up: For how many seconds it has run.
        running: How many jobs ran on it at its last heartbeat.
        places: How many jobs it can run at once.
        queues: The names of its queues.
    """

    node: str
    pid: int | None
    leader: bool
    alive: bool
    heartbeat: float
    lease: float
    up: float
    running: int
    places: int
    queues: list[str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An instance at one moment.

    Attributes:
        at: The time by the database's clock.
        instance: The name of the instance.
        database: The URL of the database, without the password.
        leader: The name of the node that leads the instance, or None.
        queues, nodes: By name.
        executing: Those that have run for longest.
        failures: The latest first.
    """

    at: datetime
    instance: str
    database: str
    leader: str | None
    queues: list[QueueRow]
    executing: list[ExecutingRow]
    failures: list[FailureRow]
    nodes: list[NodeRow]
