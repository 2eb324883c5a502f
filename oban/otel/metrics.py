"""Metrics of clients and attempts, with a bounded number of label values."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.semconv._incubating.metrics.messaging_metrics import (
    MESSAGING_CLIENT_CONSUMED_MESSAGES,
    MESSAGING_CLIENT_SENT_MESSAGES,
    create_messaging_client_operation_duration,
    create_messaging_process_duration,
)

from oban.models import Job
from oban.otel import attributes
from oban.otel.attributes import ERROR_TYPE, OUTCOME, QUEUE, WORKER
from oban.telemetry import JobEnded, JobView

#: How many values of a label are kept apart, and the value that stands for all further ones.
MAX_VALUES = 200
OTHER = "_OTHER"

_Labels = dict[str, str]


class Metrics:
    """The instruments. Jobs of other programs can have any queue and worker, so labels are bounded."""

    def __init__(self, meter: Meter) -> None:
        self._queues, self._workers, self._errors = (Bounded(MAX_VALUES) for _ in range(3))
        self._sent = Total(meter, MESSAGING_CLIENT_SENT_MESSAGES, "Jobs that were enqueued.")
        self._consumed = Total(meter, MESSAGING_CLIENT_CONSUMED_MESSAGES, "Attempts that were started.")
        self._enqueue_duration = create_messaging_client_operation_duration(meter)
        self._process_duration = create_messaging_process_duration(meter)
        self._queue_time = meter.create_histogram(
            "oban.job.queue_time", "s", "Time from when a job was due until it was fetched."
        )

    def enqueued(
        self,
        inserted: Sequence[Job],
        jobs: Sequence[Job],
        queue: str | None,
        duration: float,
        error_type: str | None,
    ) -> None:
        """Record a call that inserted jobs, or failed to. `queue` is that of all of its jobs."""
        labels: _Labels = {**attributes.ENQUEUEING}
        if error_type is not None:
            labels[ERROR_TYPE] = self._errors(error_type)
        counted = jobs if error_type is not None else inserted
        queues = Counter(job.__dict__["queue"] for job in counted) if queue is None else {queue: len(counted)}
        for name, count in queues.items():
            self._sent.add(count, {**labels, QUEUE: self._queues(name)})
        if queue is not None:
            labels[QUEUE] = self._queues(queue)
        self._enqueue_duration.record(duration, labels)

    def started(self, job: JobView, queue_time: float) -> None:
        """Record that an attempt starts."""
        labels = self._of_job(job)
        self._consumed.add(1, labels)
        self._queue_time.record(queue_time, labels)

    def ended(self, event: JobEnded) -> None:
        """Record how an attempt has ended."""
        labels = self._of_job(event.job)
        labels[OUTCOME] = event.outcome
        if event.outcome in ("failed", "discarded"):
            type_ = event.error_type or event.outcome
            labels[ERROR_TYPE] = self._errors(attributes.short_type(type_))
        self._process_duration.record(event.duration, labels)

    def close(self) -> None:
        """Report nothing more."""
        self._sent.close()
        self._consumed.close()

    def _of_job(self, job: JobView) -> _Labels:
        return {
            **attributes.PROCESSING,
            QUEUE: self._queues(job.queue),
            WORKER: self._workers(job.worker),
        }


class Bounded:
    """Replaces the values of a label that come after the first `limit` ones."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value in self._known:
            return value
        if len(self._known) < self._limit:
            self._known.add(value)
            return value
        return OTHER


class Total:
    """A counter that is read when metrics are collected, so that to add costs less than with the SDK's."""

    def __init__(self, meter: Meter, name: str, description: str) -> None:
        self._lock = threading.Lock()
        self._totals: dict[tuple[tuple[str, str], ...], int] = {}
        self._is_closed = False
        observe: Callable[[CallbackOptions], Iterable[Observation]] = self._observe
        meter.create_observable_counter(name, [observe], "{message}", description)

    def add(self, count: int, labels: _Labels) -> None:
        key = tuple(labels.items())
        with self._lock:
            self._totals[key] = self._totals.get(key, 0) + count

    def close(self) -> None:
        self._is_closed = True

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        if self._is_closed:
            return
        with self._lock:
            totals = [*self._totals.items()]
        for key, total in totals:
            yield Observation(total, dict(key))
