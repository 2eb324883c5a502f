"""`docs/guides/logging.md`: its messages are those that are logged, and its snippets run unchanged."""

import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL

from oban import JobState, Oban
from oban.cli.logs import json_formatter
from tests.docs.stage import Page, Snippet, Stage
from tests.support.databases import SQLiteFactory
from tests.support.ending_workers import OnLoop
from tests.support.jobs import reaches
from tests.support.options import FAST_POLLING
from tests.support.processes import ROOT

PAGE = Page("guides/logging.md")
EXECUTOR = logging.getLogger("oban.executor")


@pytest.fixture
async def oban(sqlite_factory: SQLiteFactory) -> AsyncIterator[Oban]:
    """A node on SQLite, as records do not depend on the database."""
    url: URL = sqlite_factory.create()
    async with Oban(url, node="here", queues={"default": 2}, **FAST_POLLING) as running:
        yield running
    sqlite_factory.drop(url)


def without_numbers(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "N", text)


async def test_the_table_has_the_level_and_the_message_of_each_record(
    oban: Oban, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="oban.executor")
    for do, state, attempts in [
        ("complete", JobState.COMPLETED, 20),
        ("snooze", JobState.SCHEDULED, 20),
        ("raise cancel", JobState.CANCELLED, 20),
        ("key", JobState.RETRYABLE, 20),
        ("key", JobState.DISCARDED, 1),
    ]:
        await reaches(oban, await oban.enqueue(OnLoop.new({"do": do}, max_attempts=attempts)), state)
    rows = re.findall(r"^\| ([A-Z]+) \| .* \| `(.+)` \|$", PAGE.text, re.MULTILINE)
    documented = {(level, without_numbers(message)) for level, message in rows}
    logged = {
        (record.levelname, without_numbers(record.getMessage().partition(") ")[2]))
        for record in caplog.records
        if record.name == "oban.executor"
    }
    assert len(logged) == 6
    assert logged <= documented
    shown = re.findall(r"^([A-Z]+) oban\.executor: job \d+ \(.+?\) (.+)$", PAGE.text, re.MULTILINE)
    assert len(shown) == 2
    assert {(level, without_numbers(message)) for level, message in shown} <= logged


async def test_the_fields_are_those_of_a_record(oban: Oban, caplog: pytest.LogCaptureFixture) -> None:
    job = await oban.enqueue(OnLoop.new({"do": "key"}))
    await reaches(oban, job, JobState.RETRYABLE)
    (record,) = (record for record in caplog.records if record.name == "oban.executor")
    section = PAGE.text.partition("## Fields")[2].partition("## Loggers")[0]
    names = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)))
    plain = set(logging.makeLogRecord({}).__dict__) | {"message", "taskName"}
    assert set(record.__dict__) - plain == set(names)


@PAGE.shows("async def print_errors(")
async def test_the_errors_of_a_job_are_printed(
    oban: Oban, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(oban)
    await stage.run(snippet)
    job = await oban.enqueue(OnLoop.new({"do": "key"}))
    await reaches(oban, job, JobState.RETRYABLE)
    await stage.names["print_errors"](oban, job.id)
    printed = capsys.readouterr().out
    assert printed.startswith("retryable 1 20\n1 20")
    assert printed.endswith("KeyError: 'a'\n")
    PAGE.says("`await oban.retry_job(10)` runs the job again")
    assert await oban.retry_job(job.id)


@PAGE.shows("logging.Formatter(")
async def test_a_formatter_shows_the_fields(oban: Oban, snippet: Snippet, capsys: Any) -> None:
    stage = Stage(oban)
    await stage.run(snippet)
    logger, handler = logging.getLogger("oban"), stage.names["handler"]
    try:
        await reaches(oban, await oban.enqueue(OnLoop.new({"do": "key"})), JobState.RETRYABLE)
        logger.warning("something else")
    finally:
        logger.removeHandler(handler)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"WARNING job \d+ .* KeyError: 'a' \[default on here, [\d.]+ s\]", lines[0])
    assert lines[-1] == "WARNING something else [- on -, - s]"


def test_every_logger_is_listed_and_every_snippet_is_run() -> None:
    used = {
        name
        for path in Path(ROOT / "oban").rglob("*.py")
        for name in re.findall(r'getLogger\("(oban\.\w+)"\)', path.read_text())
    }
    section = PAGE.text.partition("## Loggers")[2]
    assert set(re.findall(r"`(oban\.\w+)`", " ".join(re.findall(r"^\|.*$", section, re.MULTILINE)))) == used
    assert PAGE.shown == PAGE.snippets


def test_the_fields_of_json_are_those_of_a_record(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise KeyError("a")
    except KeyError:
        EXECUTOR.exception("failed", stack_info=True)
    logged = json.loads(json_formatter("here").format(caplog.records[-1]))
    section = PAGE.text.partition("## The log of `oban start`")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(logged)
