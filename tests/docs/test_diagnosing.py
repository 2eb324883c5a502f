"""Every snippet of `docs/guides/diagnosing.md` runs unchanged and has the documented effect."""

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import URL, text

from oban import JobState, Oban, Thresholds
from oban.cli import main
from oban.diagnosis.health import CODES
from tests.docs.snippets import fenced
from tests.docs.stage import JOB, Page, Snippet, Stage
from tests.support.explaining import now, scene
from tests.support.processes import ROOT
from tests.support.rows import TABLE, row
from tests.support.schema import sync_engine

PAGE = Page("guides/diagnosing.md")


@pytest.fixture
def url(sqlite_url: URL) -> URL:
    return sqlite_url


@pytest.fixture
def stage(oban: Oban) -> Stage:
    return Stage(oban)


@PAGE.shows("oban.stats()")
async def test_statistics_tell_the_state_of_queues(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.set("completed", job="scheduled", queue="mail")
    await stage.run(snippet)
    assert capsys.readouterr().out.splitlines() == ["mail idle 0 None", "0 0", "[] None"]


@PAGE.shows("count_limit=10_000")
async def test_statistics_count_up_to_a_limit(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.set("completed", queue="mail")
    await stage.run(snippet)
    assert capsys.readouterr().out.splitlines() == ["3 ()"]


@PAGE.shows("oban.why(job)")
async def test_a_job_is_explained(stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]) -> None:
    await stage.set("completed", job="suspended")
    await stage.run(snippet)
    assert capsys.readouterr().out.splitlines() == [
        "suspended ['suspended']",
        "It is suspended: it waits until somebody retries it. Retry it to let it run:",
        f"    oban jobs retry {JOB}",
    ]


async def test_the_command_explains_the_job_of_the_page(stage: Stage, url: URL) -> None:
    await stage.set("completed", queue="mail", worker="app.Mailer")
    await stage.oban.pause_queue("mail")
    command, *shown = of_check("console", f"why {JOB}").splitlines()
    async with Oban(stage.oban.engine, node="worker-1", queues={"mail": 1}):
        # The command has an event loop of its own.
        arguments = [*shlex.split(command)[2:], "--database-url", url.render_as_string(False)]
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    printed = re.sub(r"\([^(]* UTC\)", "(2026-03-01 18:00:00 UTC)", result.output)
    assert (printed.splitlines(), result.exit_code) == (shown, 0)


async def test_the_command_explains_the_job_that_is_stuck(oban: Oban, url: URL) -> None:
    command, *shown = of_check("console", "why 1002").splitlines()
    async with scene(oban, url) as stage:
        await stage.leader()
        began, owner = now() - timedelta(minutes=6), await stage.heartbeat(age=310)
        await stage.executing(owner, id=1002, worker="app.Mailer", attempted_at=began)
        arguments = [*shlex.split(command)[2:], "--database-url", url.render_as_string(False)]
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    printed = re.sub(r"[0-9-]{10} [0-9:]{8} UTC", "2026-03-01 18:00:00 UTC", result.output)
    assert (printed.splitlines(), result.exit_code) == (shown, 0)
    codes = re.findall(
        r"^\| `(\w+)` \|", PAGE.text.partition("## Job stuck")[2].partition("\n## ")[0], re.MULTILINE
    )
    assert {*codes} <= {*re.findall(r"`(\w+)`", PAGE.text.partition("These are the codes:")[2])}


async def test_the_command_explains_the_job_whose_node_sent_a_heartbeat(oban: Oban, url: URL) -> None:
    command, *shown = of_check("console", "why 1003").splitlines()
    async with scene(oban, url) as stage:
        await stage.leader()
        await stage.heartbeat("worker-2")
        began, owner = now() - timedelta(minutes=40), await stage.heartbeat(age=8, running=None)
        await stage.executing(owner, id=1003, worker="app.Mailer", attempted_at=began)
        arguments = [*shlex.split(command)[2:], "--database-url", url.render_as_string(False)]
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    printed = re.sub(r"[0-9-]{10} [0-9:]{8} UTC", "2026-03-01 18:00:00 UTC", result.output)
    # A second can be over before the command reads them.
    seconds = re.compile(r"\d+ seconds")
    expected = [seconds.sub("#", line) for line in shown]
    assert (seconds.sub("#", printed).splitlines(), result.exit_code) == (expected, 0)


@PAGE.shows("oban.health()")
async def test_the_health_of_the_instance_is_checked(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.run(snippet)
    assert capsys.readouterr().out == ""
    await stage.set("available", queue="mail", scheduled_at=datetime.now(UTC) - timedelta(hours=2))
    await stage.run(snippet)
    assert capsys.readouterr().out.startswith("critical unserved_queue No live node runs the queue mail")


@PAGE.shows("strict")
async def test_thresholds_can_be_stricter(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    assert stage.names["health"].severity == "ok"
    assert "bloat" not in {finding.code for finding in stage.names["health"].findings}


def of_check(language: str, part: str) -> str:
    """The only block of a language that contains a text."""
    (block,) = (block for block in fenced("docs/guides/diagnosing.md", language) if part in block)
    return block


def let_a_job_wait(url: URL) -> None:
    with sync_engine(url).begin() as connection:
        old = datetime.now(UTC) - timedelta(hours=2)
        connection.execute(TABLE.insert(), [row(queue="mail", scheduled_at=old)])
        connection.execute(text("DROP INDEX oban_jobs_staging_index"))


def test_the_command_finds_the_problems_of_the_page(url: URL) -> None:
    let_a_job_wait(url)
    command, *shown = of_check("console", "CRITICAL").splitlines()
    arguments = [*shlex.split(command)[2:], "--database-url", url.render_as_string(False)]
    result = CliRunner().invoke(main, arguments)
    assert (result.output.splitlines(), result.exit_code) == (shown, 2)


def test_every_check_and_threshold_has_a_row_with_its_default() -> None:
    section = PAGE.text.partition("## Is it healthy?")[2].partition("## Statistics")[0]
    assert tuple(re.findall(r"^\| ([a-z_]+) \|", section, re.MULTILINE)[1:-1]) == (*CODES,)
    for warning, critical, defaults in re.findall(
        r"^\| `--([\w-]+)`, `--([\w-]+)` \| (.*?) \w+ \|", section, re.MULTILINE
    ):
        expected = [getattr(Thresholds(), option.replace("-", "_")) for option in (warning, critical)]
        assert [float(figure.replace(",", "")) for figure in defaults.split(", ")] == expected


@pytest.mark.slow
def test_the_examples_for_monitoring_run(url: URL, tmp_path: Path) -> None:
    (tmp_path / "oban.toml").write_text(f"database_url = {json.dumps(url.render_as_string(False))}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(command: str) -> tuple[int, str]:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    cron = of_check("console", "/tmp/oban-check").removeprefix("$ ").replace("/tmp/", f"{tmp_path}/")
    nagios = of_check("text", "check_oban").partition("command_line")[2].partition("\n")[0]
    nagios = nagios.replace("/srv/app/.venv/bin/", "").replace("/srv/app/", "")
    probe = json.loads(of_check("yaml", "startupProbe").partition("command: ")[2].partition("\n")[0])
    assert run(cron) == (0, "")
    assert run(nagios)[1].startswith("OK: ")
    let_a_job_wait(url)
    # The mail of cron, and only a warning for the probe.
    assert run(cron)[1].startswith("CRITICAL: ")
    assert run(probe[2]) == (0, run(f"{probe[2].partition(' ||')[0]}")[1])


def test_every_code_has_a_row() -> None:
    listed = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE.text, re.MULTILINE)
    codes = {code for cell in listed for code in re.findall(r"`(\w+)`", cell)}
    used = set(JobState) - {"available", "executing"}
    for module in (ROOT / "oban/diagnosis").glob("*.py"):
        used.update(re.findall(r"Reason\(\s*\"(\w+)\"", module.read_text()))
    assert codes == used


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
