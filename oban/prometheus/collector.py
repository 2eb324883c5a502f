"""`Collector`: shows the samples of all instances that have metrics in a registry."""

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, ClassVar, TypeAlias
from weakref import WeakKeyDictionary, WeakSet

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from oban.database.loops import running_loop
from oban.label_values import sanitize
from oban.prometheus import catalog
from oban.prometheus.catalog import SAMPLED, Definition
from oban.prometheus.families import Families
from oban.prometheus.labels import OTHER

if TYPE_CHECKING:
    from oban.prometheus.metrics import ObanMetrics

Values: TypeAlias = dict[tuple[str, tuple[str, ...]], float]

_lock = threading.RLock()
#: Whether a scrape in this context leaves out the samples from the database.
without_samples: ContextVar[bool] = ContextVar("without_samples", default=False)


class Collector:
    """The only collector of a registry: the metrics of all instances have the same names."""

    _of: ClassVar[WeakKeyDictionary[CollectorRegistry, "Collector"]] = WeakKeyDictionary()

    def __init__(self, registry: CollectorRegistry) -> None:
        self.families: Families = Families(registry)
        self.members: WeakSet[ObanMetrics] = WeakSet()
        registry.register(self)

    @classmethod
    def of(cls, registry: CollectorRegistry) -> "Collector":
        """The collector of a registry."""
        with _lock:
            if (found := cls._of.get(registry)) is None:
                found = cls._of[registry] = cls(registry)
            return found

    def describe(self) -> Iterable[Metric]:
        """The metrics without values, as the registry asks for their names."""
        return [_family(definition) for definition in SAMPLED]

    def collect(self) -> Iterator[Metric]:
        """The metrics. A new sample is read if it is time for one."""
        if without_samples.get():
            return
        members = list(self.members)
        for member in members:
            # On an event loop, nothing must wait. Our own application has waited before.
            member.sampler.begin() if running_loop() is not None else member.sampler.refresh()
        # If two clients have the same instance, the newer sample is shown.
        members.sort(key=lambda member: (not member.sampler.is_up, member.sampler.age or 0.0))
        by_name = {member.instance: member for member in reversed(members)}
        families = {definition.name: _family(definition) for definition in SAMPLED}
        for name, member in sorted(by_name.items()):
            for (metric, labels), value in _values(member).items():
                families[metric].add_metric((sanitize(name), *labels), value)
        yield from families.values()


def _family(definition: Definition) -> GaugeMetricFamily:
    return GaugeMetricFamily(definition.name, definition.help, labels=definition.labels)


def _values(member: "ObanMetrics") -> Values:
    """The values of an instance, by the name of the metric and its other labels."""
    sampler = member.sampler
    values: Values = {
        (catalog.UP.name, ()): sampler.is_up,
        (catalog.COUNT_LIMIT.name, ()): sampler.count_limit,
    }
    if (sample := sampler.sample) is None:
        return values
    values[catalog.SAMPLE_AGE.name, ()] = sampler.age or 0.0
    values[catalog.SAMPLE_DURATION.name, ()] = sampler.duration or 0.0
    values[catalog.DUE.name, ()] = sample.due
    values[catalog.HAS_LEADER.name, ()] = sample.is_led
    values[catalog.NODES.name, ("alive",)] = sample.alive
    values[catalog.NODES.name, ("dead",)] = sample.dead
    jobs: Counter[tuple[str, ...]] = Counter(
        {(OTHER, state): number for state, number in sample.rest.items()}
    )
    # The queues of nodes come first, and then those with the most jobs.
    order = sorted(sample.queues.items(), key=lambda item: (not item[1].nodes, -item[1].counts.total()))
    for queue, found in order:
        label = member.pairs.queues.label(queue)
        for state, number in found.counts.items():
            jobs[label, state] += number
        for definition, value in (
            (catalog.QUEUE_NODES, found.nodes),
            (catalog.QUEUE_PAUSED_NODES, found.paused_nodes),
            (catalog.QUEUE_CAPACITY, found.limit),
        ):
            values[definition.name, (label,)] = values.get((definition.name, (label,)), 0) + value
        oldest = (catalog.OLDEST_AVAILABLE.name, (label,))
        values[oldest] = max(values.get(oldest, 0.0), found.oldest_available_age)
    values |= {(catalog.JOBS.name, labels): number for labels, number in jobs.items()}
    return values
