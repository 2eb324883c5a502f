"""`--metrics-port`: the metrics of a node, and those of several processes as one."""

import importlib.util
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.exposition import generate_latest
from sqlalchemy import URL

from oban import SyncOban, telemetry
from oban.cli import main
from oban.prometheus import ObanMetrics
from oban.prometheus.app import RegistryApp
from oban.prometheus.collector import without_samples
from oban.prometheus.nodes import NodesCollector
from tests.cli.support import node, text, until
from tests.support.databases import SQLiteFactory
from tests.support.scraping import OPENMETRICS, Scrape, scrape_wsgi


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


def test_the_option_needs_the_extra(sync_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *more: None if name == "prometheus_client" else find(name, *more),
    )
    monkeypatch.setattr("oban.stop_signals.exit_on_signals", lambda: None)
    url = sync_url.set(drivername="sqlite+aiosqlite").render_as_string()
    done = CliRunner().invoke(main, ["start", "--database-url", url, "--metrics-port", "0"])
    assert done.exit_code == 1
    assert "--metrics-port needs the package prometheus-client" in done.output


def fetched(url: str, accept: str = "") -> Scrape:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as response:
        return Scrape(response.read().decode(), response.headers["Content-Type"])


def is_true_soon(url: str, name: str, value: float, **labels: str) -> bool:
    """Whether a metric has a value within half a minute."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if fetched(url).value(name, **labels) == value:
                return True
        # No node has begun to serve its metrics yet.
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
        time.sleep(0.05)
    return False


def test_a_node_serves_metrics_on_the_port_of_its_health_endpoints(sync_url: URL) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    url = text(sync_url.set(drivername="sqlite+aiosqlite"))
    with node(
        "--database-url", url, "--health-port", port, "--metrics-port", port, "--node", "web"
    ) as process:
        until(process, "node web runs")
        metrics = f"http://127.0.0.1:{port}/metrics"
        assert is_true_soon(metrics, "oban_node_running", 1, oban_node="web")
        found = fetched(metrics, OPENMETRICS)
        assert (found.value("oban_up"), found.value("oban_queue_limit", queue="default")) == (1, 10)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/live", timeout=30) as response:
            assert response.status == 200


@pytest.mark.slow
def test_a_supervisor_serves_the_metrics_of_its_processes(sync_url: URL) -> None:
    url = text(sync_url.set(drivername="sqlite+aiosqlite"))
    with node("--database-url", url, "--metrics-port", "0", "--processes", "2", "--node", "web") as process:
        lines = until(process, "the metrics are at ")
        metrics = lines[-1].split()[-1]
        for name in ("web-1", "web-2"):
            assert is_true_soon(metrics, "oban_node_running", 1, oban_node=name)
        assert fetched(metrics).value("oban_up") == 1
        lines = until(process, "node web-2 runs")
        started = re.search(r"web-2  oban  starting, process (\d+)", "".join(lines))
        assert started is not None
        killed = int(started[1])
        os.kill(killed, signal.SIGSTOP)
        # One that is silent, and one that is gone.
        assert is_true_soon(metrics, "oban_process_up", 0, oban_node="web-2")
        assert fetched(metrics).value("oban_process_up", oban_node="web-1") == 1
        os.kill(killed, signal.SIGKILL)
        assert is_true_soon(metrics, "oban_process_up", 1, oban_node="web-2")
        process.terminate()
        assert process.wait(30) == 0
