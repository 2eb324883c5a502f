"""`docs/guides/health.md`: its commands answer what it says, and its files fit together."""

import ast
import asyncio
import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from sqlalchemy import URL

from tests.docs.commands import OBAN
from tests.docs.snippets import fenced
from tests.support.processes import ROOT
from tests.support.schema import render

PAGE = "docs/guides/health.md"
TEXT = (ROOT / PAGE).read_text()
START, ASKED = fenced(PAGE, "console")
[WATCHDOG] = fenced(PAGE, "ini")
[UNIT] = fenced("docs/guides/deploying.md", "ini")
[DOCKERFILE] = fenced("docs/guides/containers.md", "dockerfile")
[APPLICATION] = fenced(PAGE, "python")
JOBS = (
    'import os\nfrom oban import Oban\noban = Oban(os.environ["OBAN_DATABASE_URL"], queues={"default": 10})\n'
)
PORT = "8080"


@pytest.fixture
def port(url: URL, tmp_path: Path) -> Iterator[int]:
    """The port of a node that the command of the page has started."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "jobs.py").write_text(JOBS)
    [command] = START.splitlines()
    arguments = shlex.split(command.removeprefix("$ oban "))
    assert arguments[-2:] == ["--health-port", PORT]
    with subprocess.Popen(
        [*OBAN, *arguments[:-1], "0"],
        cwd=tmp_path,
        env={**os.environ, "OBAN_DATABASE_URL": render(url)},
        stderr=subprocess.PIPE,
        text=True,
    ) as node:
        try:
            assert node.stderr is not None
            lines: list[str] = []
            for line in node.stderr:
                lines.append(line)
                if "runs default:10" in line:
                    break
            found = re.search(r"http://127\.0\.0\.1:(\d+)/live", "".join(lines))
            assert found is not None, lines
            yield int(found[1])
        finally:
            node.kill()


def test_the_endpoints_answer_what_the_page_shows(port: int) -> None:
    [check] = re.findall(r'CMD (\["python".*\])', DOCKERFILE)
    lines = ASKED.splitlines()
    shown = list(zip(lines[::2], lines[1::2], strict=True))
    assert len(shown) == 3
    with httpx.Client(transport=httpx.HTTPTransport(retries=3)) as client:
        for command, expected in shown:
            url = command.removeprefix("$ curl ").replace(PORT, str(port))
            # The listener hears its first probe just after the start.
            for _ in range(100):
                answer = client.get(url)
                if answer.status_code == 200:
                    break
            assert (answer.status_code, answer.text.rstrip()) == (200, expected)
    _, *arguments = json.loads(check.replace(PORT, str(port)))
    subprocess.run([sys.executable, *arguments], check=True)


def test_the_check_of_docker_fails_where_no_node_answers() -> None:
    [check] = re.findall(r'CMD (\["python".*\])', DOCKERFILE)
    _, *arguments = json.loads(check.replace(PORT, "1"))
    assert subprocess.run([sys.executable, *arguments], check=False, capture_output=True).returncode != 0


def test_every_problem_of_the_library_is_in_the_table() -> None:
    explained = re.findall(r"^\| (?!problem|---)([^|]+) \| (yes|no) \|", TEXT, re.MULTILINE)
    texts = dict(explained)
    assert len(texts) == len(explained) == 11
    sources = [
        "runner/node_check.py",
        "runner/node.py",
        "cli/node.py",
        "cli/status.py",
        "cli/supervisor.py",
        "cli/reports.py",
    ]
    written = set()
    for source in sources:
        for node in ast.walk(ast.parse((ROOT / "oban" / source).read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                written.add(node.value)
    for text in texts:
        start = re.split(r" \d", text)[0]
        assert any(part.startswith(start) for part in written), text


def test_the_drop_in_adds_a_watchdog_to_the_unit_of_a_node_that_notifies() -> None:
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(UNIT)
    before = dict(parsed["Service"])
    # As systemd reads a drop-in, after the unit.
    parsed.read_string(WATCHDOG)
    assert dict(parsed["Service"]) == before | {"WatchdogSec": "60"}
    assert before["Type"] == "notify"
    assert "`systemctl edit shop-jobs`" in TEXT


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="without systemd")
def test_systemd_accepts_the_unit_with_the_drop_in(tmp_path: Path) -> None:
    unit = UNIT.replace("/srv/shop/.venv/bin/oban", "/bin/true").replace("User=shop\n", "")
    unit = unit.replace("WorkingDirectory=/srv/shop\n", "").replace("[Install]", f"{WATCHDOG}\n[Install]")
    (tmp_path / "shop-jobs.service").write_text(unit)
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "shop-jobs.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "shop-jobs.service" not in checked.stderr, checked.stderr


def test_the_probes_wait_as_long_as_the_page_says() -> None:
    objects = [
        each for block in fenced("docs/guides/containers.md", "yaml") for each in yaml.safe_load_all(block)
    ]
    (probe,) = (
        container["livenessProbe"]
        for each in objects
        if each.get("kind") == "Deployment"
        for container in each["spec"]["template"]["spec"]["containers"]
        if "livenessProbe" in container
    )
    assert (probe["failureThreshold"], probe["periodSeconds"]) == (3, 10)
    assert "Three failed probes in a row, 10 seconds apart" in TEXT


async def test_the_application_answers_whether_its_node_is_ready(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OBAN_DATABASE_URL", render(url))
    names: dict[str, Any] = {}
    exec(APPLICATION, names)
    transport = httpx.ASGITransport(names["app"])
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        answer = await client.get("/ready")
        expected = {"ready": False, "problems": ["the node has not started"]}
        assert (answer.status_code, answer.json()) == (503, expected)
        async with names["app"].router.lifespan_context(names["app"]):
            for _ in range(200):
                answer = await client.get("/ready")
                if answer.status_code == 200:
                    break
                await asyncio.sleep(0.02)
            assert (answer.status_code, answer.json()) == (200, {"ready": True, "problems": []})
