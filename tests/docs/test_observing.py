"""`docs/guides/observing.md`: its settings start a node, its rules exist, and its table names real extras."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from click.testing import CliRunner

from oban import Oban
from oban.cli import main, settings
from tests.docs.snippets import fenced
from tests.support.processes import ROOT
from tests.support.starts import record_starts

PAGE = "docs/guides/observing.md"
TEXT = (ROOT / PAGE).read_text()
[SETTINGS] = fenced(PAGE, "toml")
START, ALERTS = fenced(PAGE, "console")
[PROMETHEUS] = fenced(PAGE, "yaml")


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Oban]:
    """The instances that `oban start` would run in a folder with the file of the page."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "jobs.py").write_text("from oban import Oban\noban = Oban('sqlite+aiosqlite://')\n")
    (tmp_path / "oban.toml").write_text(SETTINGS)
    monkeypatch.chdir(tmp_path)
    return record_starts(monkeypatch)


def run(block: str) -> Any:
    command, _, _ = block.strip().removeprefix("$ oban ").partition(" > ")
    return CliRunner().invoke(main, shlex.split(command))


def test_the_settings_start_a_node_that_answers_on_one_port(started: list[Oban]) -> None:
    values = settings.load({}).values
    expected = {"log_format": "json", "health_port": 9394, "metrics_port": 9394, "health_host": "0.0.0.0"}
    assert {name: values[name] for name in expected} == expected
    assert values["metrics_host"] == values["health_host"]
    assert run(START).exit_code == 0
    assert len(started) == 1


def test_prometheus_scrapes_the_port_and_loads_the_rules() -> None:
    configuration = yaml.safe_load(PROMETHEUS)
    [scraped] = configuration["scrape_configs"]
    port = tomllib.loads(SETTINGS)["metrics_port"]
    assert all(target.endswith(f":{port}") for target in scraped["static_configs"][0]["targets"])
    # The rules are written to the file that the configuration names.
    assert configuration["rule_files"] == [ALERTS.split()[-1]]
    rules = yaml.safe_load(run(ALERTS).output)
    assert rules["groups"][0]["rules"]


def test_the_extras_of_the_table_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"`\[(\w+)\]`", TEXT)
    assert len(named) == 4
    assert {*named} <= {*extras}
