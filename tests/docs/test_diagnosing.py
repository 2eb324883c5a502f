"""Every snippet of `docs/diagnosing.md` runs unchanged and has the documented effect."""

import asyncio
import re
import shlex
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from sqlalchemy import URL

from oban import JobState, Oban
from oban.cli import main
from tests.docs.snippets import fenced
from tests.docs.stage import JOB, Page, Snippet, Stage
from tests.support.databases import SQLiteFactory
from tests.support.processes import ROOT

PAGE = Page("diagnosing.md")


@pytest.fixture
def url(sqlite_factory: SQLiteFactory) -> Iterator[URL]:
    made = sqlite_factory.create()
    yield made
    sqlite_factory.drop(made)


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
    ((command, *shown),) = (
        block.splitlines() for block in fenced("docs/diagnosing.md", "console") if " why " in block
    )
    async with Oban(stage.oban.engine, node="worker-1", queues={"mail": 1}):
        # The command has an event loop of its own.
        arguments = [*shlex.split(command)[2:], "--database-url", url.render_as_string(False)]
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    now = re.sub(r"\([^(]* UTC\)", "(2026-03-01 18:00:00 UTC)", result.output)
    assert (now.splitlines(), result.exit_code) == (shown, 0)


def test_every_code_has_a_row() -> None:
    listed = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE.text, re.MULTILINE)
    codes = {code for cell in listed for code in re.findall(r"`(\w+)`", cell)}
    used = set(JobState) - {"available", "executing"}
    for module in (ROOT / "oban/diagnosis").glob("*.py"):
        used.update(re.findall(r"Reason\(\s*\"(\w+)\"", module.read_text()))
    assert codes == used


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
