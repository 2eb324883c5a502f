"""The events about a node: its start and stop, its queues, its services and its event loop."""

from dataclasses import dataclass

from oban.telemetry.events import Event

# -- the node and its queues ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStarted(Event):
    """A node has started, and its queues fetch jobs.

    Attributes:
        queues: The names of the queues that it runs.
        duration: Seconds that the start took.
    """

    queues: tuple[str, ...]
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStopping(Event):
    """A node begins to stop. Its queues fetch no more jobs.

    Attributes:
        running: How many jobs are running.
    """

    running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStopped(Event):
    """A node has stopped.

    Attributes:
        duration: Seconds that the stop took.
        released: The ids of the jobs that were put back, because they did not end in the grace period.
        is_lost: Whether its event loop has ended without a stop, so that its jobs wait to be rescued.
    """

    duration: float
    released: tuple[int, ...]
    is_lost: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEvent(Event):
    """The base of the events about a queue of a node.

    Attributes:
        queue: The name of the queue.
        limit: How many jobs it runs at once.
        paused: Whether it is paused.
    """

    queue: str
    limit: int
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStarted(QueueEvent):
    """A node has begun to run a queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueAdjusted(QueueEvent):
    """A command has changed the limit of a queue, or whether it is paused, and is in effect on the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStopped(QueueEvent):
    """A queue fetches no more jobs, because of a command or because the node stops. Jobs can still run."""


# -- the leader ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderElected(Event):
    """The node is the leader now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderLost(Event):
    """The node is not the leader any more, because it could not renew its lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderResigned(Event):
    """The node has given up its leadership, because it stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDied(Event):
    """The leader has deleted the rows of a dead node, whose jobs are rescued.

    Attributes:
        name: The name of the dead node.
        queues: The queues that it ran.
    """

    name: str
    queues: tuple[str, ...]


# -- heartbeats, services, notifications and the event loop --------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatSent(Event):
    """A node has sent a heartbeat for each of its queues. Handlers are called in the heartbeat thread.

    Attributes:
        queues: The names of the queues.
        duration: Seconds that the transaction took.
    """

    queues: tuple[str, ...]
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatFailed(Event):
    """A node could not send its heartbeats. Handlers are called in the heartbeat thread.

    Attributes:
        error: The first line of the error's message.
        error_type: The qualified name of the error's class.
    """

    error: str
    error_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFailed(Event):
    """A service of a node has failed, and tries again after a pause.

    Attributes:
        service: The name of the service: "producer-default" for the queue `default`, "stager", "leader",
            "lifeline", "pruner", "scheduler", "controller", "cancellation", "progress" or "refresher", which
            sends the heartbeats.
        error: The first line of the error's message.
        error_type: The qualified name of the error's class.
        failures: How often the service has failed since it last succeeded, at least 1.
        pause: Seconds until it tries again.
    """

    service: str
    error: str
    error_type: str
    failures: int
    pause: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRecovered(Event):
    """A service of a node works again, after a `ServiceFailed`.

    Attributes:
        service: As in `ServiceFailed`.
        failures: How often it had failed in a row, at least 1.
        duration: Seconds since the first of these failures.
    """

    service: str
    failures: int
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerConnected(Event):
    """The listener of a node receives notifications, or watches the file of SQLite.

    Attributes:
        kind: "listen" on PostgreSQL, "data_version" on SQLite.
    """

    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerDisconnected(Event):
    """The listener of a node has lost its connection, or could not connect. Jobs are found by polling.

    Attributes:
        kind: As in `ListenerConnected`.
        error: The first line of the error's message.
        error_type: The qualified name of the error's class.
    """

    kind: str
    error: str
    error_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerDeaf(Event):
    """Notifications do not reach a node, although its listener is connected. Jobs are found by polling.

    Attributes:
        problem: What is wrong, and what to do about it.
    """

    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerHears(Event):
    """Notifications reach a node again, after a `ListenerDeaf`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopBlocked(Event):
    """The event loop has been blocked for a second, and still is. Handlers are called in another thread.

    Attributes:
        seconds: For how long it has been blocked.
        job_id: The id of the job that blocks it; None if it is no job.
        worker: The name of the job's worker; None if it is no job.
    """

    seconds: float
    job_id: int | None
    worker: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopUnblocked(Event):
    """The event loop goes on, after a `LoopBlocked`. Handlers are called in another thread.

    Attributes:
        seconds: For how long it was blocked.
        job_id, worker: As in `LoopBlocked`.
    """

    seconds: float
    job_id: int | None
    worker: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildProcessStarted(Event):
    """A node starts a child process for workers with `executor="process"`.

    Attributes:
        count: How many child processes the node has now.
    """

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildProcessEnded(Event):
    """A child process has ended: on its own, or because it was killed.

    Attributes:
        count: How many child processes the node has now.
        reason: How it has ended, such as "ended with exit code 0".
    """

    count: int
    reason: str
