"""`ObanMetrics`: the metrics of one client."""

import math
import os
from weakref import WeakSet

from prometheus_client import REGISTRY, CollectorRegistry

from oban import display
from oban.client import Oban
from oban.errors import ConfigError
from oban.prometheus.collector import Collector
from oban.prometheus.labels import Pairs
from oban.prometheus.recorder import Recorder
from oban.prometheus.sampler import Sampler
from oban.sync_client import SyncOban

_all: "WeakSet[ObanMetrics]" = WeakSet()


class ObanMetrics:
    """The metrics of a client, in a registry of `prometheus_client`.

    They count the events of the client and its node, and read the numbers of jobs from the database when
    they are scraped. They live as long as the client. Clients of different names can share a registry.

    Args:
        oban: An `Oban` or a `SyncOban` that was created with an engine or a URL.
        registry: The registry (default: `prometheus_client.REGISTRY`).
        max_label_values: How many queues and how many workers have series of their own, at least 1. The rest
            has the label `other`.
        refresh_interval: Seconds for which numbers from the database are new enough, at least 1. If it takes
            long to read them, that is done less often.
        count_limit: Up to how many jobs of each queue and state are counted.

    Raises:
        ConfigError: A value is wrong, the client was created with a session or connection, or it has metrics
            in this registry already.
    """

    def __init__(
        self,
        oban: Oban | SyncOban,
        *,
        registry: CollectorRegistry | None = None,
        max_label_values: int = 200,
        refresh_interval: float = 15.0,
        count_limit: int = 10_000,
    ) -> None:
        if not isinstance(oban, (Oban, SyncOban)):
            raise ConfigError(f"metrics need an Oban or a SyncOban, not {display.shown(oban)}")
        for name, value in (("max_label_values", max_label_values), ("count_limit", count_limit)):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
                raise ConfigError(f"{name} must be a positive integer, not {display.shown(value)}")
        is_number = isinstance(refresh_interval, (int, float)) and not isinstance(refresh_interval, bool)
        if not is_number or not 1 <= refresh_interval < math.inf:
            raise ConfigError(
                f"refresh_interval must be at least 1 second, not {display.shown(refresh_interval)}"
            )
        self.registry: CollectorRegistry = REGISTRY if registry is None else registry
        self.instance: str = oban.options.name
        self._collector = Collector.of(self.registry)
        if self.of(oban, self.registry) is not None:
            raise ConfigError(
                f"this client of {self.instance!r} has metrics in the registry already; use its ObanMetrics"
            )
        self._client = oban
        self.sampler: Sampler = Sampler(oban, float(refresh_interval), count_limit)
        self.pairs: Pairs = Pairs(max_label_values)
        self._recorder = Recorder(self._collector.families, oban.telemetry, self.pairs)
        self._show_node()
        # The client has the handlers, and keeps this object with them.
        self._recorder.owner = self
        self._collector.members.add(self)
        _all.add(self)

    @classmethod
    def of(cls, oban: Oban | SyncOban, registry: CollectorRegistry = REGISTRY) -> "ObanMetrics | None":
        """The metrics of a client in a registry; None if it has none."""
        members = list(Collector.of(registry).members)
        return next((member for member in members if member._client is oban), None)

    def close(self) -> None:
        """Record nothing from now on. Counters stay in the registry as they are."""
        self._collector.members.discard(self)
        _all.discard(self)
        self._recorder.close()

    def _show_node(self) -> None:
        """Show a node that has started already."""
        queues = self._client.check_all_queues() if isinstance(self._client, Oban) else []
        if queues:
            self._recorder.node(is_running=True, leads=self._client.is_leader)
        for queue in queues:
            self._recorder.queue(queue.queue, queue.limit or 0, queue.paused)


def _renew_all() -> None:
    for metrics in list(_all):
        metrics.sampler.renew()
        metrics.pairs.renew_lock()


os.register_at_fork(after_in_child=_renew_all)
