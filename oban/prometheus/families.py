"""`Families`: the metrics of a process in a registry, which all clients of the process share."""

import os
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from oban.prometheus.catalog import PROCESS, Definition

Labels: TypeAlias = tuple[str, ...]


class Families:
    """Changes the metrics of a process. A series is created when it is first changed.

    Args:
        registry: The registry that shows them.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._families = {definition.name: _make(definition, registry) for definition in PROCESS}
        #: The results of `labels()`, which takes longer than a change of its result.
        self._series: dict[tuple[str, Labels], Counter | Gauge | Histogram] = {}

    def count(self, definition: Definition, labels: Labels, number: float = 1) -> None:
        """Add to a counter or a gauge."""
        self._of(definition, labels).inc(number)  # type: ignore[union-attr]

    def set(self, definition: Definition, labels: Labels, value: float) -> None:
        """Set a gauge."""
        self._of(definition, labels).set(value)  # type: ignore[union-attr]

    def observe(self, definition: Definition, labels: Labels, value: float) -> None:
        """Add a value to a histogram."""
        self._of(definition, labels).observe(value)  # type: ignore[union-attr]

    def remove(self, labels: Labels) -> None:
        """Remove the series whose labels begin with these."""
        for name, found in [key for key in self._series if key[1][: len(labels)] == labels]:
            del self._series[name, found]
            # Files that several processes share keep what is in them, so that it would only warn.
            if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
                self._families[name].remove(*found)

    def _of(self, definition: Definition, labels: Labels) -> Counter | Gauge | Histogram:
        key = (definition.name, labels)
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = self._families[definition.name].labels(*labels)
        return found


def _make(definition: Definition, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    name, text, labels = definition.name, definition.help, definition.labels
    if definition.kind == "counter":
        return Counter(name, text, labels, registry=registry)
    if definition.kind == "histogram":
        return Histogram(name, text, labels, registry=registry, buckets=definition.buckets)
    return Gauge(name, text, labels, registry=registry, multiprocess_mode=definition.combination)
