"""`oban start --metrics-port`, with one process and with several."""

import importlib.util
import os
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.support.commands import invoke, node, text, until
from tests.support.processes import ROOT
from tests.support.scraping import OPENMETRICS, Scrape
from tests.support.starts import make_impatient


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


@pytest.fixture
def target(sqlite_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An application whose `Oban` has no name for its node, and which makes the metrics itself."""
    (tmp_path / "metered.py").write_text(
        "from oban import Oban\n"
        "from oban.prometheus import ObanMetrics\n"
        f"oban = Oban({text(sqlite_url)!r}, queues={{'default': 10}})\n"
        "metrics = ObanMetrics(oban)\n"
    )
    monkeypatch.chdir(tmp_path)
    return "metered:oban"


def test_a_node_serves_metrics_on_the_port_of_its_health_endpoints(target: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    with node(target, "--health-port", port, "--metrics-port", port, "--node", "web") as process:
        until(process, "node web runs")
        metrics = f"http://127.0.0.1:{port}/metrics"
        assert is_true_soon(metrics, "oban_node_running", 1, oban_node="web")
        found = fetched(metrics, OPENMETRICS)
        assert (found.value("oban_up"), found.value("oban_queue_limit", queue="default")) == (1, 10)
        # The name that the command gives is the only one.
        assert found.labels("oban_node") == {"web"}
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/live", timeout=30) as response:
            assert response.status == 200


@pytest.mark.slow
def test_a_supervisor_serves_the_metrics_of_its_processes(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_impatient(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    with node(target, "--metrics-port", "0", "--processes", "2", "--node", "web") as process:
        lines = until(process, "the metrics are at ")
        metrics = lines[-1].split()[-1]
        for name in ("web-1", "web-2"):
            assert is_true_soon(metrics, "oban_node_running", 1, oban_node=name)
        found = fetched(metrics)
        assert found.value("oban_up") == 1
        assert found.labels("oban_node") == {"web-1", "web-2"}
        lines = until(process, "node web-2 runs")
        started = re.search(r"web-2  oban  starting, process (\d+)", "".join(lines))
        assert started is not None
        killed = int(started[1])
        os.kill(killed, signal.SIGSTOP)
        # One that is silent, and one that is gone.
        assert is_true_soon(metrics, "oban_process_up", 0, oban_node="web-2")
        assert is_true_soon(metrics, "oban_process_up", 1, oban_node="web-1")
        os.kill(killed, signal.SIGKILL)
        assert is_true_soon(metrics, "oban_process_up", 1, oban_node="web-2")
        process.terminate()
        assert process.wait(30) == 0


def test_the_option_needs_the_extra(sqlite_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *more: None if name == "prometheus_client" else find(name, *more),
    )
    monkeypatch.setattr("oban.stop_signals.exit_on_signals", lambda: None)
    done = invoke("start", "--database-url", text(sqlite_url), "--metrics-port", "0")
    assert done.exit_code == 1
    assert "--metrics-port needs the package prometheus-client" in done.output


def test_one_port_has_one_address(sqlite_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    monkeypatch.setattr("oban.stop_signals.exit_on_signals", lambda: None)
    ports = ("--health-port", port, "--metrics-port", port)
    done = invoke("start", "--database-url", text(sqlite_url), *ports, "--metrics-host", "0.0.0.0")
    assert done.exit_code == 1
    assert "--metrics-host is 0.0.0.0 and --health-host is 127.0.0.1: choose one address" in done.output


def test_the_files_of_the_package_are_printed() -> None:
    for command in ("dashboard", "alerts"):
        assert invoke("metrics", command).stdout
