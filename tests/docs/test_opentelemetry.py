"""`docs/guides/opentelemetry.md`: the spans that the node of the page prints, and the names in the tables."""

import importlib
import json
import re
import tomllib
from typing import Any

import pytest

from oban import Job, Oban
from oban.otel import ObanInstrumentor, attributes, metrics
from tests.docs.log_tools import run_jobs
from tests.docs.snippets import fenced
from tests.support.databases import SQLiteFactory
from tests.support.processes import ROOT

PAGE = "docs/guides/opentelemetry.md"
TEXT = (ROOT / PAGE).read_text()
TRACE = "0af7651916cd43dd8448eb211c80319c"


def spans_in(printed: str) -> list[dict[str, Any]]:
    """The spans that the console exporter has printed, each as indented JSON."""
    return [json.loads(text) for text in re.findall(r"^\{$.*?^\}$", printed, re.MULTILINE | re.DOTALL)]


@pytest.fixture(scope="module")
def spans(sqlite_factory: SQLiteFactory, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The spans of the node of the page."""
    url, folder = sqlite_factory.create(), tmp_path_factory.mktemp("opentelemetry")
    job = Job(worker="app.jobs.Charge", meta={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
    printed = run_jobs(PAGE, folder, url, [job], lambda printed: printed.count('"trace_id"') == 2)
    sqlite_factory.drop(url)
    return spans_in(printed)


def test_a_job_and_what_it_does_continue_the_trace(spans: list[dict[str, Any]]) -> None:
    own, process = spans
    assert (own["name"], process["name"]) == ("ask the bank", "process default")
    assert own["parent_id"] == process["context"]["span_id"]
    assert process["parent_id"] == "0xb7ad6b7169203331"
    assert own["context"]["trace_id"] == process["context"]["trace_id"] == f"0x{TRACE}"
    assert process["attributes"]["oban.outcome"] == "failed"
    [event] = process["events"]
    assert event["attributes"]["exception.message"] == "the bank does not answer"


async def test_the_functions_of_the_page_work(oban: Oban) -> None:
    _, _, traces, only = fenced(PAGE, "python")
    namespace: dict[str, Any] = {"oban": oban, "Oban": Oban, "ObanInstrumentor": ObanInstrumentor}
    namespace["provider"] = None
    exec(traces, namespace)
    exec(only, namespace)
    ObanInstrumentor().instrument()
    namespace["trace_only"](oban)
    try:
        assert oban.telemetry.observes_attempts
        job = await oban.enqueue(Job(worker="nobody"))
        assert await namespace["traces"](job.id) == []
    finally:
        ObanInstrumentor().uninstrument_client(oban)
    assert not oban.telemetry.observes_attempts


def test_every_attribute_and_metric_has_a_row() -> None:
    cells = [line.split(" | ")[0] for line in TEXT.splitlines() if line.startswith("| `")]
    rows = {name for cell in cells for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", cell)}
    names = {value for key, value in vars(attributes).items() if key.isupper() and isinstance(value, str)}
    instruments = set(re.findall(r"`((?:messaging|oban)\.[a-z_.]+)` \| [a-z]", TEXT))
    recorded = {
        "messaging.client.sent.messages",
        "messaging.client.consumed.messages",
        "messaging.client.operation.duration",
        "messaging.process.duration",
        "oban.job.queue_time",
    }
    assert recorded <= instruments
    assert rows == {name for name in names if "." in name} | recorded
    assert f"After {metrics.MAX_VALUES} different" in TEXT
    assert f"`{metrics.OTHER}`" in TEXT


def test_the_entry_point_is_the_instrumentor() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["entry-points"]["opentelemetry_instrumentor"]["oban"].partition(":")
    assert getattr(importlib.import_module(module), name) is ObanInstrumentor


def test_these_tests_use_every_block_of_the_page() -> None:
    # The others install packages, or need the package `opentelemetry-distro`.
    assert (len(fenced(PAGE, "python")), len(fenced(PAGE, "console"))) == (4, 3)
