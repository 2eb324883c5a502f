"""The dashboard and the alerts name metrics, labels and values that exist."""

import json
import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from oban.prometheus.catalog import SERIES
from tests.support.processes import ROOT
from tests.support.promql import labels_of


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "oban/prometheus/grafana.json").read_text())
    return found


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((ROOT / "oban/prometheus/alerts.yaml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_each_query_of_the_dashboard_names_what_exists() -> None:
    targets = [target for panel in dashboard()["panels"] for target in panel.get("targets", ())]
    assert len(targets) > 20
    for target in targets:
        labels = labels_of(target["expr"])
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels, target["expr"]


def test_the_variables_of_the_dashboard_are_those_of_its_queries() -> None:
    found = dashboard()
    variables = {variable["name"]: variable for variable in found["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(found))) - {"__rate_interval", "__all"}
    assert used == set(variables) == {"datasource", "instance", "queue"}
    for name in ("instance", "queue"):
        query = variables[name]["definition"]
        metric, label = re.fullmatch(r"label_values\((\w+).*, (\w+)\)", query).groups()  # type: ignore[union-attr]
        assert label in SERIES[metric]


def test_the_panels_of_the_dashboard_have_ids_and_places_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24
    assert all(panel["type"] == "row" or panel["description"] for panel in panels)


def test_each_alert_names_what_exists() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules()) > 10
    for rule in rules():
        labels = labels_of(rule["expr"])
        assert rule["alert"].startswith("Oban")
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        used = re.findall(r"{{ \$labels\.(\w+) }}", rule["annotations"]["summary"])
        assert used
        assert set(used) <= labels, rule["alert"]
        assert re.fullmatch(r"\d+[mh]", rule.get("for", "1m"))


@pytest.mark.parametrize(
    "query",
    [
        "oban_job",
        'oban_jobs{queues="mail"}',
        'oban_jobs{state="done"}',
        "sum by (worker) (oban_jobs)",
        "oban_up and oban_jobs",
        "rate(oban_attempts[5m])",
    ],
)
def test_a_query_about_what_does_not_exist_is_found(query: str) -> None:
    with pytest.raises(AssertionError):
        labels_of(query)
