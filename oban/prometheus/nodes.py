"""`NodesCollector`: the metrics of several node processes, for their supervisor."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from oban.prometheus.catalog import PROCESS_UP, SAMPLED

#: The label that tells the processes apart.
NODE = "oban_node"
_SAMPLED = {definition.name for definition in SAMPLED}

#: Returns the metrics of a node in OpenMetrics, by its name, with or without the samples of the database.
Fetch = Callable[[str, bool], str]


class NodesCollector:
    """Asks all processes at once. Only one of them adds the samples of the database, which all of them share.

    Args:
        names: The names of the nodes.
        fetch: Asks one of them. It raises an exception if the process does not answer.
    """

    def __init__(self, names: Sequence[str], fetch: Fetch) -> None:
        self._names = names
        self._fetch = fetch
        self._source = names[0]

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that a registry does not ask the nodes for the names of their metrics."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics of all processes."""
        found = self._ask(self._source)
        answered = [name for name, families in found.items() if families is not None]
        if self._source not in answered and answered:
            # Another process adds the samples of the database, in this scrape and from now on.
            self._source = answered[0]
            found[self._source] = self._families(self._source, self._source)
        merged: dict[str, Metric] = {}
        for name in answered:
            for family in found[name] or []:
                _merge(merged, family, name)
        up = GaugeMetricFamily(PROCESS_UP.name, PROCESS_UP.help, labels=PROCESS_UP.labels)
        for name in found:
            up.add_metric([name], name in answered)
        yield from [*merged.values(), up]

    def _ask(self, source: str) -> dict[str, list[Metric] | None]:
        with ThreadPoolExecutor(len(self._names), "oban-metrics") as pool:
            found = pool.map(partial(self._families, source=source), self._names)
            return dict(zip(self._names, found, strict=True))

    def _families(self, name: str, source: str) -> list[Metric] | None:
        """The metrics of a node, with samples of the database if it is the source; None without an answer."""
        try:
            parse: Any = text_string_to_metric_families
            return list(parse(self._fetch(name, name == source)))
        # Its process ends or has just begun, or a metric of the application is not valid in OpenMetrics.
        except Exception:
            return None


def _merge(merged: dict[str, Metric], family: Metric, node: str) -> None:
    target = merged.setdefault(
        family.name, Metric(family.name, family.documentation, family.type, family.unit)
    )
    if family.name in _SAMPLED:
        target.samples += family.samples
        return
    for sample in family.samples:
        labels = {NODE: node, **sample.labels}
        target.samples.append(sample._replace(labels=labels))
