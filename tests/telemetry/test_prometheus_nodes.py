"""The metrics of several node processes, as their supervisor shows them."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.exposition import generate_latest
from sqlalchemy import URL

from oban import SyncOban, telemetry
from oban.prometheus import ObanMetrics
from oban.prometheus.app import RegistryApp
from oban.prometheus.collector import without_samples
from oban.prometheus.nodes import NodesCollector
from tests.support.databases import SQLiteFactory
from tests.support.scraping import OPENMETRICS, scrape_wsgi


@pytest.fixture
def sync_url(sqlite_factory: SQLiteFactory) -> Any:
    made = sqlite_factory.create()
    yield made.set(drivername="sqlite")
    sqlite_factory.drop(made)


class Nodes:
    """Two node processes, which are two registries here."""

    def __init__(self, url: URL) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.dead: set[str] = set()
        self.registries = {f"vm-{number}": CollectorRegistry() for number in (1, 2)}
        self.clients = {name: SyncOban(url, node=name) for name in self.registries}
        for name, client in self.clients.items():
            ObanMetrics(client, registry=self.registries[name])
            Counter("shop_orders", "Orders.", registry=self.registries[name]).inc(3)

    def fetch(self, name: str, with_samples: bool) -> str:
        self.asked.append((name, with_samples))
        if name in self.dead:
            raise ConnectionRefusedError
        token = without_samples.set(not with_samples)
        try:
            render: Any = generate_latest
            return str(render(self.registries[name]), "utf-8")
        finally:
            without_samples.reset(token)

    def stop(self) -> None:
        for client in self.clients.values():
            client.stop()


@pytest.mark.parametrize("accept", ["", OPENMETRICS], ids=["text", "openmetrics"])
def test_a_supervisor_shows_its_processes_as_one(sync_url: URL, accept: str) -> None:
    nodes = Nodes(sync_url)
    registry = CollectorRegistry()
    registry.register(NodesCollector(list(nodes.registries), nodes.fetch))
    app = RegistryApp(registry)
    for name, failures in (("vm-1", 1), ("vm-2", 4)):
        for _ in range(failures):
            nodes.clients[name].telemetry.emit(
                telemetry.HeartbeatFailed, error="the database is away", error_type="OSError"
            )
    found = scrape_wsgi(app.wsgi, accept)
    for name, failures in (("vm-1", 1), ("vm-2", 4)):
        assert found.value("oban_heartbeat_failures_total", oban_node=name) == failures
        assert found.value("shop_orders_total", oban_node=name) == 3
        assert found.value("oban_process_up", oban_node=name) == 1
    # One process has read the database.
    assert found.value("oban_up") == 1
    assert sorted(nodes.asked) == [("vm-1", True), ("vm-2", False)]
    nodes.stop()


def test_a_process_that_does_not_answer_is_down_and_another_one_reads_the_database(sync_url: URL) -> None:
    nodes = Nodes(sync_url)
    registry = CollectorRegistry()
    registry.register(NodesCollector(list(nodes.registries), nodes.fetch))
    app = RegistryApp(registry)
    nodes.dead.add("vm-1")
    for _ in range(2):
        found = scrape_wsgi(app.wsgi)
        assert found.value("oban_process_up", oban_node="vm-1") == 0
        assert found.value("oban_process_up", oban_node="vm-2") == 1
        assert found.value("oban_up") == 1
    nodes.dead.add("vm-2")
    assert scrape_wsgi(app.wsgi).labels("oban_node") == {"vm-1", "vm-2"}
    nodes.stop()
