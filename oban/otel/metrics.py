"""Metrics of clients and attempts, with a bounded number of label values."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.semconv._incubating.metrics.messaging_metrics import (
    MESSAGING_CLIENT_CONSUMED_MESSAGES,
    MESSAGING_CLIENT_SENT_MESSAGES,
    create_messaging_client_operation_duration,
    create_messaging_process_duration,
)

from oban.label_values import LabelValues
from oban.models import Job
from oban.otel.attributes import ENQUEUEING, ERROR_TYPE, OUTCOME, PROCESSING, QUEUE, WORKER, short_type
from oban.telemetry import JobEnded, JobView

#: How many values of a label have series of their own, and the value that all further ones share.
MAX_VALUES = 200
OTHER = "_OTHER"

#: The values of some labels, in a fixed order, each of which can be missing.
_Values = tuple[str | None, ...]


class Metrics:
    """The instruments. Jobs of other programs can have any queue and worker, so labels are bounded."""

    def __init__(self, meter: Meter) -> None:
        bounded = {name: LabelValues(MAX_VALUES, OTHER) for name in (QUEUE, WORKER, ERROR_TYPE)}
        self._enqueues = Labels(ENQUEUEING, bounded, (QUEUE, ERROR_TYPE))
        self._starts = Labels(PROCESSING, bounded, (QUEUE, WORKER))
        self._ends = Labels(PROCESSING, bounded, (QUEUE, WORKER, OUTCOME, ERROR_TYPE))
        self._sent = Total(meter, MESSAGING_CLIENT_SENT_MESSAGES, "Jobs that were enqueued.", self._enqueues)
        self._consumed = Total(
            meter, MESSAGING_CLIENT_CONSUMED_MESSAGES, "Attempts that were started.", self._starts
        )
        self._enqueue_duration = create_messaging_client_operation_duration(meter)
        self._process_duration = create_messaging_process_duration(meter)
        self._queue_time = meter.create_histogram(
            "oban.job.queue_time", "s", "Time from when a job was due until it was fetched."
        )

    def enqueued(
        self, jobs: Sequence[Job], queue: str | None, duration: float, error_type: str | None
    ) -> None:
        """Record a call that inserted these jobs, or failed to. `queue` is that of all of its jobs."""
        if queue is not None:
            self._sent.add(len(jobs), (queue, error_type))
        else:
            for name, count in Counter(job.__dict__["queue"] for job in jobs).items():
                self._sent.add(count, (name, error_type))
        self._enqueue_duration.record(duration, self._enqueues.of((queue, error_type)))

    def started(self, job: JobView, queue_time: float) -> None:
        """Record that an attempt starts."""
        values = (job.queue, job.worker)
        self._consumed.add(1, values)
        self._queue_time.record(queue_time, self._starts.of(values))

    def ended(self, event: JobEnded) -> None:
        """Record how an attempt has ended."""
        error_type = None
        if event.outcome in ("failed", "discarded"):
            error_type = short_type(event.error_type or event.outcome)
        values = (event.job.queue, event.job.worker, event.outcome, error_type)
        self._process_duration.record(event.duration, self._ends.of(values))

    def close(self) -> None:
        """Report nothing more."""
        self._sent.close()
        self._consumed.close()


class Labels:
    """Makes the labels of an instrument, and caches them."""

    #: The most entries of the cache.
    MAX_CACHED = 1000

    def __init__(
        self, common: Mapping[str, str], bounded: Mapping[str, LabelValues], names: tuple[str, ...]
    ) -> None:
        self._common = common
        self._bounded = bounded
        self._names = names
        self._cache: dict[_Values, dict[str, str]] = {}

    def of(self, values: _Values) -> dict[str, str]:
        """The labels with these values. Callers must not change the dict."""
        if (cached := self._cache.get(values)) is not None:
            return cached
        labels = {**self._common}
        for name, value in zip(self._names, values, strict=True):
            if value is not None:
                values_of = self._bounded.get(name)
                labels[name] = value if values_of is None else values_of.label(value)
        if len(self._cache) < self.MAX_CACHED:
            self._cache[values] = labels
        return labels


class Total:
    """A counter that is read when metrics are collected. Adding to it costs less than with the SDK's own."""

    def __init__(self, meter: Meter, name: str, description: str, labels: Labels) -> None:
        self._labels = labels
        self._lock = threading.Lock()
        self._totals: Counter[tuple[tuple[str, str], ...]] = Counter()
        #: The sums since the last collection, by values that are not bounded yet.
        self._added: dict[_Values, int] = {}
        self._is_closed = False
        observe: Callable[[CallbackOptions], Iterable[Observation]] = self._observe
        meter.create_observable_counter(name, [observe], "{message}", description)

    def add(self, count: int, values: _Values) -> None:
        with self._lock:
            self._added[values] = self._added.get(values, 0) + count
            if len(self._added) > Labels.MAX_CACHED:
                self._sum_up()

    def close(self) -> None:
        self._is_closed = True

    def _sum_up(self) -> None:
        for values, count in self._added.items():
            self._totals[tuple(self._labels.of(values).items())] += count
        self._added = {}

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        if self._is_closed:
            return
        with self._lock:
            self._sum_up()
            totals = [*self._totals.items()]
        for key, total in totals:
            yield Observation(total, dict(key))
