"""`Recorder`: turns the events of one client into metrics of its process."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from oban import telemetry
from oban.label_values import sanitize
from oban.prometheus import catalog
from oban.prometheus.catalog import Definition
from oban.prometheus.families import Families
from oban.prometheus.labels import Pairs
from oban.telemetry import Event, Telemetry

#: The value of the label `state` for an attempt whose outcome does not count.
LOST = "lost"
#: The outcomes and states whose counters begin at 0 with the first job of a worker.
_USUAL = (("completed", "completed"), ("failed", "retryable"), ("failed", "discarded"))
_CHANGES = {
    telemetry.JobsCancelled: "cancelled",
    telemetry.JobsRetried: "retried",
    telemetry.JobsUpdated: "updated",
    telemetry.JobsDeleted: "deleted",
}


class Recorder:
    """Records the events of a client until it is closed.

    Args:
        families: The metrics.
        source: The client's telemetry.
        pairs: The values of the labels `queue` and `worker`.
    """

    def __init__(self, families: Families, source: Telemetry, pairs: Pairs) -> None:
        self._families = families
        self._source = source
        self._labels = (sanitize(source.instance), sanitize(source.node))
        self._pairs = pairs
        #: The label of the queue of each attempt that runs.
        self._running: dict[tuple[int, int], str] = {}
        #: The limits of the node's queues, and whether they are paused.
        self._queues: dict[str, tuple[int, bool]] = {}
        #: The queues and workers whose usual series exist.
        self._known: set[tuple[str, str]] = set()
        #: An object that has to live as long as the handlers.
        self.owner: object = None
        #: The attached handlers, as functions that detach them.
        self._attached = [source.attach(handler, *events) for handler, *events in self._handlers()]
        source.on_rename.append(self._rename)
        self._begin_at_zero()

    def _rename(self) -> None:
        """Show the new name of a node that has not started yet, instead of its old one."""
        self._families.remove(self._labels)
        self._labels = (sanitize(self._source.instance), sanitize(self._source.node))

    def _begin_at_zero(self) -> None:
        """Create the counters without further labels, so that the first event is an increase."""
        for definition in catalog.PROCESS:
            if definition.kind == "counter" and definition.labels == catalog.PROCESS_LABELS:
                self._count(definition, number=0)
        for change in _CHANGES.values():
            self._count(catalog.JOBS_CHANGED, change, number=0)

    def close(self) -> None:
        """Record nothing from now on, and show that nothing runs."""
        for detach in self._attached:
            detach()
        if self._rename in self._source.on_rename:
            self._source.on_rename.remove(self._rename)
        self._clear()

    def node(self, *, is_running: bool, leads: bool) -> None:
        """Show whether a node runs, and whether it leads."""
        self._set(catalog.NODE_RUNNING, is_running)
        self._set(catalog.LEADER, leads)

    def queue(self, queue: str, limit: int, paused: bool) -> None:
        """Show the settings of a queue of this node, or with the limit 0 that it does not run."""
        if limit:
            self._queues[queue] = (limit, paused)
        else:
            self._queues.pop(queue, None)
        # Several queues can share the label `other`.
        label = self._pairs.queues.label(queue)
        found = [
            settings for name, settings in self._queues.items() if self._pairs.queues.label(name) == label
        ]
        self._set(catalog.QUEUE_LIMIT, sum(limit for limit, _ in found), label)
        self._set(catalog.QUEUE_PAUSED, any(paused for _, paused in found), label)

    def _handlers(self) -> tuple[tuple[Any, ...], ...]:
        return (
            (self._enqueued, telemetry.JobsEnqueued),
            (self._started, telemetry.JobStarted),
            (self._ended, telemetry.JobEnded),
            (self._changed, *_CHANGES),
            (self._fetched, telemetry.JobsFetched),
            (self._stored, telemetry.OutcomesStored),
            (self._rescued, telemetry.JobsRescued),
            (self._counts(catalog.JOBS_STAGED), telemetry.JobsStaged),
            (self._counts(catalog.JOBS_EXHAUSTED), telemetry.JobsDiscarded),
            (self._pruned, telemetry.JobsPruned),
            (self._periodic, telemetry.PeriodicInserted),
            (self._counts_one(catalog.PERIODIC_FAILURES), telemetry.PeriodicFailed),
            (self._unreadable, telemetry.JobUnreadable),
            (self._counts_one(catalog.REPLACED), telemetry.OutcomeReplaced),
            (self._commanded, telemetry.QueueChanged),
            (self._queue_set, telemetry.QueueStarted, telemetry.QueueAdjusted),
            (self._queue_stopped, telemetry.QueueStopped),
            (self._node_started, telemetry.NodeStarted),
            (self._node_stopped, telemetry.NodeStopped),
            (self._sets(catalog.LEADER, 1), telemetry.LeaderElected),
            (self._sets(catalog.LEADER, 0), telemetry.LeaderLost, telemetry.LeaderResigned),
            (self._counts_one(catalog.NODES_DIED), telemetry.NodeDied),
            (self._heartbeat, telemetry.HeartbeatSent),
            (self._counts_one(catalog.HEARTBEAT_FAILURES), telemetry.HeartbeatFailed),
            (self._failed, telemetry.ServiceFailed),
            (self._sets(catalog.LISTENING, 1), telemetry.ListenerConnected, telemetry.ListenerHears),
            (self._sets(catalog.LISTENING, 0), telemetry.ListenerDisconnected, telemetry.ListenerDeaf),
            (self._counts_one(catalog.LISTENER_DISCONNECTS), telemetry.ListenerDisconnected),
            (self._counts_one(catalog.LOOP_BLOCKS), telemetry.LoopBlocked),
            (self._unblocked, telemetry.LoopUnblocked),
            (self._children, telemetry.ChildProcessStarted, telemetry.ChildProcessEnded),
            (self._counts_one(catalog.CHILD_PROCESS_ENDS), telemetry.ChildProcessEnded),
        )

    # -- jobs ----------------------------------------------------------------------------------------

    def _enqueued(self, event: telemetry.JobsEnqueued) -> None:
        numbers = Counter(self._pairs.labels(job.queue, job.worker) for job in event.jobs)
        for pair, number in numbers.items():
            self._count(catalog.JOBS_ENQUEUED, *pair, number=number)
        if event.duplicates:
            self._count(catalog.JOBS_DUPLICATE, number=event.duplicates)
        self._observe(catalog.ENQUEUE_DURATION, event.duration)

    def _started(self, event: telemetry.JobStarted) -> None:
        job = event.job
        queue, worker = pair = self._pairs.labels(job.queue, job.worker)
        if pair not in self._known:
            self._known.add(pair)
            for outcome, state in _USUAL:
                self._count(catalog.ATTEMPTS, queue, worker, outcome, state, number=0)
        self._running[job.id, job.attempt] = queue
        self._count(catalog.EXECUTING, queue)
        self._observe(catalog.QUEUE_TIME, event.queue_time, queue)

    def _ended(self, event: telemetry.JobEnded) -> None:
        job = event.job
        # The attempt may have started before this recorder was made.
        queue = self._running.pop((job.id, job.attempt), None)
        if queue is not None:
            self._count(catalog.EXECUTING, queue, number=-1)
        pair = self._pairs.labels(job.queue, job.worker)
        state = LOST if event.state is None else event.state.value
        self._count(catalog.ATTEMPTS, *pair, event.outcome, state)
        self._observe(catalog.ATTEMPT_DURATION, event.duration, *pair)

    def _changed(self, event: Any) -> None:
        self._count(catalog.JOBS_CHANGED, _CHANGES[type(event)], number=event.count)

    def _unreadable(self, event: telemetry.JobUnreadable) -> None:
        self._count(catalog.UNREADABLE, self._pairs.queues.label(event.queue))

    # -- what a node does ----------------------------------------------------------------------------

    def _fetched(self, event: telemetry.JobsFetched) -> None:
        queue = self._pairs.queues.label(event.queue)
        if event.count:
            self._count(catalog.JOBS_FETCHED, queue, number=event.count)
        self._observe(catalog.FETCH_DURATION, event.duration, queue)

    def _stored(self, event: telemetry.OutcomesStored) -> None:
        self._observe(catalog.STORE_DURATION, event.duration, self._pairs.queues.label(event.queue))

    def _rescued(self, event: telemetry.JobsRescued) -> None:
        numbers = Counter((self._pairs.queues.label(job.queue), job.state.value) for job in event.jobs)
        for labels, number in numbers.items():
            self._count(catalog.JOBS_RESCUED, *labels, number=number)

    def _pruned(self, event: telemetry.JobsPruned) -> None:
        self._count(catalog.JOBS_PRUNED, event.state.value, number=event.count)

    def _periodic(self, event: telemetry.PeriodicInserted) -> None:
        self._count(catalog.PERIODIC_INSERTED, self._pairs.queues.label(event.queue))

    def _commanded(self, event: telemetry.QueueChanged) -> None:
        self._count(catalog.QUEUE_COMMANDS, event.action)

    def _queue_set(self, event: telemetry.QueueStarted | telemetry.QueueAdjusted) -> None:
        self.queue(event.queue, event.limit, event.paused)

    def _queue_stopped(self, event: telemetry.QueueStopped) -> None:
        self.queue(event.queue, 0, False)

    def _node_started(self, event: telemetry.NodeStarted) -> None:
        self._set(catalog.NODE_RUNNING, 1)

    def _node_stopped(self, event: telemetry.NodeStopped) -> None:
        self._clear()

    def _clear(self) -> None:
        self.node(is_running=False, leads=False)
        for queue in list(self._queues):
            self.queue(queue, 0, False)
        # The attempts of a node whose event loop has ended send no `JobEnded`.
        while self._running:
            _, queue = self._running.popitem()
            self._count(catalog.EXECUTING, queue, number=-1)

    def _heartbeat(self, event: telemetry.HeartbeatSent) -> None:
        self._set(catalog.LAST_HEARTBEAT, time.time())

    def _failed(self, event: telemetry.ServiceFailed) -> None:
        # The service of each queue is called after it.
        service = "producer" if event.service.startswith("producer") else event.service
        self._count(catalog.SERVICE_FAILURES, service)

    def _unblocked(self, event: telemetry.LoopUnblocked) -> None:
        self._count(catalog.LOOP_BLOCKED, number=event.seconds)

    def _children(self, event: telemetry.ChildProcessStarted | telemetry.ChildProcessEnded) -> None:
        self._set(catalog.CHILD_PROCESSES, event.count)

    # -- changes of metrics --------------------------------------------------------------------------

    def _counts(self, definition: Definition) -> Callable[[Any], None]:
        """A handler that adds the `count` of an event."""
        return lambda event: self._count(definition, number=event.count)

    def _counts_one(self, definition: Definition) -> Callable[[Event], None]:
        """A handler that counts events."""
        return lambda event: self._count(definition)

    def _sets(self, definition: Definition, value: float) -> Callable[[Event], None]:
        """A handler that sets a gauge."""
        return lambda event: self._set(definition, value)

    def _count(self, definition: Definition, *labels: str, number: float = 1) -> None:
        self._families.count(definition, (*self._labels, *labels), number)

    def _set(self, definition: Definition, value: float, *labels: str) -> None:
        self._families.set(definition, (*self._labels, *labels), value)

    def _observe(self, definition: Definition, value: float, *labels: str) -> None:
        self._families.observe(definition, (*self._labels, *labels), value)
