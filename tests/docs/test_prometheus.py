"""`docs/guides/prometheus.md` and `docs/guides/alerts.md`: their examples, tables and queries."""

import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY

from oban import Job
from oban.diagnosis.health import CODES
from oban.prometheus import catalog
from oban.prometheus.catalog import Definition
from tests.docs.snippets import fenced
from tests.support.databases import SQLiteFactory
from tests.support.processes import ROOT
from tests.support.promql import labels_of
from tests.support.scraping import Scrape

PAGE, ALERTS = "docs/guides/prometheus.md", "docs/guides/alerts.md"


def rules() -> dict[str, dict[str, Any]]:
    document = yaml.safe_load((ROOT / "oban/prometheus/alerts.yaml").read_text())
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}


def test_the_python_of_the_page(sqlite_factory: SQLiteFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    url = sqlite_factory.create()
    monkeypatch.setenv("OBAN_DATABASE_URL", url.render_as_string())
    monkeypatch.setenv("OBAN_SYNC_DATABASE_URL", url.set(drivername="sqlite").render_as_string())
    names: dict[str, Any] = {"__name__": "app.jobs"}
    for block in fenced(PAGE, "python"):
        exec(compile(block, PAGE, "exec"), names)
    try:
        with TestClient(names["app"]) as client:
            response = client.get("/metrics")
            over_asgi = Scrape(response.text, response.headers["content-type"])
        names["sync_oban"].enqueue(Job(worker="app.jobs.Ship", args={}))
        response = names["flask_app"].test_client().get("/metrics")
        over_wsgi = Scrape(response.text, response.headers["Content-Type"])
        for found in (over_asgi, over_wsgi):
            assert found.value("oban_up", oban_instance="Oban") == 1
            assert found.value("shop_orders_shipped_total") == 0
        assert over_wsgi.value("oban_jobs_enqueued_total", worker="app.jobs.Ship") == 1
        # The registry of the last example has the metrics of its client only.
        assert names["registry"].get_sample_value("oban_up", {"oban_instance": "mail"}) is not None
        assert over_wsgi.labels("oban_instance") == {"Oban"}
    finally:
        REGISTRY.unregister(names["ORDERS"])
        names["sync_oban"].stop()
        sqlite_factory.drop(url)


def table(definitions: tuple[Definition, ...], base: tuple[str, ...]) -> str:
    """The rows of the page about these metrics."""
    rows = []
    for one in definitions:
        name = f"{one.name}_total" if one.kind == "counter" else one.name
        labels = ", ".join(f"`{label}`" for label in one.labels if label not in base)
        rows.append(f"| `{name}` | {one.kind} | {labels} | {one.help} |")
    return "\n".join(rows)


def test_the_tables_have_every_metric() -> None:
    text = (ROOT / PAGE).read_text()
    place = catalog.PROCESS.index(catalog.JOBS_FETCHED)
    for definitions, base in (
        (catalog.PROCESS[:place], catalog.PROCESS_LABELS),
        (catalog.PROCESS[place:], catalog.PROCESS_LABELS),
        (catalog.SAMPLED, catalog.DATABASE_LABELS),
    ):
        assert f"| --- | --- | --- | --- |\n{table(definitions, base)}\n\n" in text
    assert f"`{catalog.PROCESS_UP.name}`" in text


def test_each_query_of_the_page_names_what_exists() -> None:
    queries = fenced(PAGE, "promql")
    assert len(queries) == 4
    assert all(labels_of(query) for query in queries)


def test_each_alert_is_explained_with_its_rule() -> None:
    sections = re.split(r"^### ", (ROOT / ALERTS).read_text(), flags=re.MULTILINE)[1:]
    explained = {section.partition("\n")[0]: section for section in sections}
    assert list(explained) == list(rules())
    queries = fenced(ALERTS, "promql")
    for (name, rule), query in zip(rules().items(), queries, strict=True):
        text = explained[name]
        assert query.split() == rule["expr"].split(), name
        when = f", if it is true for {rule['for']}" if "for" in rule else ""
        assert f"\n\n`{rule['labels']['severity']}`{when}. " in text
        assert "\n\n**Threshold.** " in text
        assert "\n\n**First.** " in text


def test_the_commands_and_alerts_that_the_page_names_exist() -> None:
    text = (ROOT / ALERTS).read_text()
    assert set(re.findall(r"`(Oban[A-Z]\w+)`", text)) <= set(rules())
    last = text.partition("## Without Prometheus")[2]
    assert tuple(re.findall(r"^\| (\w+) \| (?:`|none)", last, re.MULTILINE)) == CODES
