"""The metrics: their names, labels and meanings, as in the tables of docs/guides/prometheus.md."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
#: How a gauge of several processes is combined with `PROMETHEUS_MULTIPROC_DIR`.
Combination: TypeAlias = Literal["livesum", "livemax", "livemin"]

#: The labels of all metrics of a process, and of those that are read from the database. The label `instance`
#: belongs to Prometheus, which sets it to the address that it scrapes.
PROCESS_LABELS, DATABASE_LABELS = ("oban_instance", "oban_node"), ("oban_instance",)

#: Upper bounds in seconds: of attempts and waiting times, which last up to hours, and of transactions.
LONG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Definition:
    """A metric.

    Attributes:
        name: Its name, of a counter without the suffix `_total`.
        kind: Its type.
        help: Its meaning, as a sentence.
        labels: Its labels.
        buckets: The upper bounds of a histogram.
        combination: How the values of several processes are combined; only for gauges of a process.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = field(default=(), repr=False)
    combination: Combination = "livesum"

    @property
    def series(self) -> dict[str, tuple[str, ...]]:
        """The names that queries can use, each with its labels."""
        if self.kind == "counter":
            return {f"{self.name}_total": self.labels}
        if self.kind == "histogram":
            sums = {f"{self.name}_{suffix}": self.labels for suffix in ("sum", "count")}
            return {f"{self.name}_bucket": (*self.labels, "le"), **sums}
        return {self.name: self.labels}


def _counter(name: str, help: str, *labels: str) -> Definition:
    return Definition(name, "counter", help, (*PROCESS_LABELS, *labels))


def _histogram(name: str, buckets: tuple[float, ...], help: str, *labels: str) -> Definition:
    return Definition(name, "histogram", help, (*PROCESS_LABELS, *labels), buckets)


def _gauge(name: str, combination: Combination, help: str, *labels: str) -> Definition:
    return Definition(name, "gauge", help, (*PROCESS_LABELS, *labels), combination=combination)


def _sampled(name: str, help: str, *labels: str) -> Definition:
    return Definition(name, "gauge", help, (*DATABASE_LABELS, *labels))


# -- jobs and their attempts, in this process ----------------------------------------------------------

JOBS_ENQUEUED = _counter(
    "oban_jobs_enqueued", "Jobs that this client has inserted, even if rolled back later.", "queue", "worker"
)
JOBS_DUPLICATE = _counter(
    "oban_jobs_duplicate", "Unique jobs that were not inserted, because there was one with the same key."
)
ENQUEUE_DURATION = _histogram(
    "oban_enqueue_duration_seconds", SHORT, "Time that a call took to insert one or more jobs."
)
JOBS_CHANGED = _counter(
    "oban_jobs_changed", "Stored jobs that this client has cancelled, retried, updated or deleted.", "change"
)
EXECUTING = _gauge("oban_executing_jobs", "livesum", "Jobs that run now.", "queue")
ATTEMPTS = _counter(
    "oban_attempts",
    "Attempts that have ended, by outcome and by the state that the job got.",
    *("queue", "worker", "outcome", "state"),
)
ATTEMPT_DURATION = _histogram(
    "oban_attempt_duration_seconds", LONG, "Time that an attempt took.", "queue", "worker"
)
QUEUE_TIME = _histogram(
    "oban_queue_time_seconds", LONG, "How late a job was fetched, measured from when it was due.", "queue"
)
UNREADABLE = _counter(
    "oban_unreadable_jobs", "Jobs that were discarded because their row cannot be read.", "queue"
)
REPLACED = _counter(
    "oban_replaced_outcomes", "Outcomes that the database refused, so that another one was stored."
)

# -- what a node does ----------------------------------------------------------------------------------

JOBS_FETCHED = _counter("oban_jobs_fetched", "Jobs that this node has fetched.", "queue")
FETCH_DURATION = _histogram(
    "oban_fetch_duration_seconds", SHORT, "Time that a transaction took to fetch jobs.", "queue"
)
STORE_DURATION = _histogram(
    "oban_store_duration_seconds", SHORT, "Time that a transaction took to store outcomes.", "queue"
)
JOBS_STAGED = _counter("oban_jobs_staged", "Due jobs that this node has made available.")
JOBS_RESCUED = _counter(
    "oban_jobs_rescued",
    "Jobs that this node has taken from dead nodes, by their new state.",
    "queue",
    "state",
)
JOBS_EXHAUSTED = _counter(
    "oban_jobs_exhausted", "Available jobs without an attempt left that this node has discarded."
)
JOBS_PRUNED = _counter("oban_jobs_pruned", "Finished jobs that this node has deleted.", "state")
PERIODIC_INSERTED = _counter(
    "oban_periodic_jobs_inserted", "Jobs of periodic entries that were inserted.", "queue"
)
PERIODIC_FAILURES = _counter(
    "oban_periodic_failures", "How often this node could not insert the jobs of a periodic entry."
)
QUEUE_COMMANDS = _counter("oban_queue_commands", "Commands for queues that this client has sent.", "action")
QUEUE_LIMIT = _gauge("oban_queue_limit", "livesum", "How many jobs this node runs at once.", "queue")
QUEUE_PAUSED = _gauge("oban_queue_paused", "livemax", "1 if the queue is paused on this node.", "queue")
NODE_RUNNING = _gauge("oban_node_running", "livesum", "1 while this node runs jobs.")
LEADER = _gauge("oban_leader", "livemax", "1 if this node leads its instance.")
NODES_DIED = _counter("oban_nodes_died", "Dead nodes whose rows this node has deleted, as the leader.")
LAST_HEARTBEAT = _gauge(
    "oban_last_heartbeat_timestamp_seconds", "livemin", "When this node has last sent its heartbeats."
)
HEARTBEAT_FAILURES = _counter("oban_heartbeat_failures", "Heartbeats that this node could not send.")
SERVICE_FAILURES = _counter(
    "oban_service_failures", "Failures of the services of this node, which try again.", "service"
)
LISTENING = _gauge(
    "oban_listening", "livemin", "1 while notifications reach this node, 0 while it only polls for jobs."
)
LISTENER_DISCONNECTS = _counter(
    "oban_listener_disconnects", "How often the listener of this node has lost its connection."
)
LOOP_BLOCKS = _counter("oban_loop_blocks", "How often the event loop was blocked for more than a second.")
LOOP_BLOCKED = _counter(
    "oban_loop_blocked_seconds", "For how long the event loop was blocked in these cases."
)
CHILD_PROCESSES = _gauge(
    "oban_child_processes", "livesum", "Child processes of this node, for executor='process'."
)
CHILD_PROCESS_ENDS = _counter("oban_child_process_ends", "Child processes of this node that have ended.")

PROCESS = (
    *(JOBS_ENQUEUED, JOBS_DUPLICATE, ENQUEUE_DURATION, JOBS_CHANGED, EXECUTING, ATTEMPTS, ATTEMPT_DURATION),
    *(QUEUE_TIME, UNREADABLE, REPLACED, JOBS_FETCHED, FETCH_DURATION, STORE_DURATION, JOBS_STAGED),
    *(JOBS_RESCUED, JOBS_EXHAUSTED, JOBS_PRUNED, PERIODIC_INSERTED, PERIODIC_FAILURES, QUEUE_COMMANDS),
    *(QUEUE_LIMIT, QUEUE_PAUSED, NODE_RUNNING, LEADER, NODES_DIED, LAST_HEARTBEAT, HEARTBEAT_FAILURES),
    *(SERVICE_FAILURES, LISTENING),
    *(LISTENER_DISCONNECTS, LOOP_BLOCKS, LOOP_BLOCKED, CHILD_PROCESSES, CHILD_PROCESS_ENDS),
)

# -- the whole instance, from the database -------------------------------------------------------------

UP = _sampled("oban_up", "1 if the database has answered the last time; 0 if it did not, or takes long.")
SAMPLE_AGE = _sampled("oban_sample_age_seconds", "Age of the numbers from the database.")
SAMPLE_DURATION = _sampled("oban_sample_duration_seconds", "Time that it took to read them.")
JOBS = _sampled(
    "oban_jobs", "Jobs in the table, up to oban_jobs_count_limit of each series.", "queue", "state"
)
COUNT_LIMIT = _sampled("oban_jobs_count_limit", "Up to how many jobs of each queue and state are counted.")
OLDEST_AVAILABLE = _sampled(
    "oban_oldest_available_age_seconds",
    "For how long the oldest available job has been due; 0 without one.",
    "queue",
)
DUE = _sampled(
    "oban_due_jobs", "Scheduled and retryable jobs that are due and not available yet, up to the limit."
)
QUEUE_NODES = _sampled("oban_queue_nodes", "Live nodes that run the queue.", "queue")
QUEUE_PAUSED_NODES = _sampled("oban_queue_paused_nodes", "Live nodes on which the queue is paused.", "queue")
QUEUE_CAPACITY = _sampled("oban_queue_capacity", "Jobs that the live nodes run at once, together.", "queue")
NODES = _sampled("oban_nodes", "Nodes of the instance that are alive, or dead and not cleared yet.", "status")
HAS_LEADER = _sampled("oban_has_leader", "1 if a node leads the instance.")

SAMPLED = (
    *(UP, SAMPLE_AGE, SAMPLE_DURATION, JOBS, COUNT_LIMIT, OLDEST_AVAILABLE, DUE, QUEUE_NODES),
    *(QUEUE_PAUSED_NODES, QUEUE_CAPACITY, NODES, HAS_LEADER),
)

#: Only if `oban start` runs several processes.
PROCESS_UP = Definition(
    "oban_process_up", "gauge", "1 if the process of the node has answered.", ("oban_node",)
)

#: The names that queries can use, each with its labels.
SERIES: dict[str, tuple[str, ...]] = {
    name: labels
    for definition in (*PROCESS, *SAMPLED, PROCESS_UP)
    for name, labels in definition.series.items()
}
