"""Every snippet of `docs/guides/errors.md` runs unchanged and has the documented effect."""

import asyncio
import logging
import re
import shlex
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import URL, select

from oban import Job, JobState, Oban, Worker, backoff
from oban.cli import main
from oban.errors import ConfigError
from tests.docs.snippets import fenced
from tests.docs.stage import Page, Snippet, Stage
from tests.support.jobs import reaches
from tests.support.options import FAST_POLLING
from tests.support.rows import delete_rows, insert_rows, lasting_url, row

PAGE = Page("guides/errors.md")
pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


async def refuse(order: int) -> None:
    raise ConnectionError("the bank does not answer")


@pytest.fixture
async def stage(oban: Oban) -> AsyncIterator[Stage]:
    """A running node and the worker of the first snippet."""
    await delete_rows(oban.engine)
    stage = Stage(oban)
    stage.names |= {"__name__": "app", "asyncio": asyncio, "select": select}
    stage.names["bank"] = SimpleNamespace(charge=refuse)
    async with Oban(oban.engine, queues={"default": 2}, **FAST_POLLING):
        await stage.run(PAGE.snippets[0])
        yield stage


@PAGE.shows("class Charge(")
async def test_a_failure_is_logged_and_retried(
    stage: Stage, snippet: Snippet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="oban.executor")
    job = await stage.names["Charge"].enqueue({"order": 1})
    await reaches(stage.oban, job, JobState.RETRYABLE)
    (logged,) = (record.getMessage() for record in caplog.records if record.name == "oban.executor")
    (shown,) = fenced("docs/guides/errors.md", "text")
    # 17 seconds, and up to a tenth longer.
    logged = re.sub(r"in 1[789] s", "in 17 s", logged.replace(f"job {job.id} ", "job 1 "))
    assert logged == shown.strip()


def test_the_table_of_delays_is_that_of_the_library() -> None:
    header, _, delays = (
        [cell.strip() for cell in line.strip("|").split("|")][1:]
        for line in PAGE.text.partition("| after attempt")[2].partition("\n\n")[0].splitlines()
    )
    units = {"s": 1, "min": 60, "h": 3600, "days": 86400}
    for attempt, delay in zip(header, delays, strict=True):
        figure, unit = delay.split()
        assert round(backoff.exponential(int(attempt)) / units[unit]) == int(figure)
    assert round(sum(backoff.exponential(attempt) for attempt in range(1, 20)) / 86400) == 12
    PAGE.says("it takes 12 days until a job is discarded")


@PAGE.shows("raise Discard(")
async def test_outcomes_can_be_raised(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    made = stage.names["ChargeCard"]
    for card, state, error in [
        ("closed", JobState.CANCELLED, "the account is closed"),
        ("expired", JobState.DISCARDED, "the card has expired"),
        ("busy", JobState.SCHEDULED, None),
        ("good", JobState.COMPLETED, None),
    ]:
        row = await reaches(stage.oban, await made.enqueue({"card": card}), state)
        assert [entry["error"] for entry in row.errors] == ([error] if error else [])
        assert row.attempt == (card != "busy")


@PAGE.shows("class Export(")
async def test_a_snooze_leaves_a_note(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.run(snippet)
    job = await stage.names["Export"].enqueue()
    for page in (2, 3):
        row = await reaches(stage.oban, job, JobState.SCHEDULED)
        assert row.meta == {"page": page, "snoozed": page - 1}
        await stage.oban.retry_job(job)
    await reaches(stage.oban, job, JobState.COMPLETED)
    assert capsys.readouterr().out.splitlines() == [f"exported page {page}" for page in (1, 2, 3)]


@PAGE.shows("class Call(")
async def test_a_backoff_depends_on_the_exception(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    refused, other = [await stage.names["Call"].enqueue({"number": number}) for number in (112, 5)]
    for job, delay in ((refused, 120), (other, 10)):
        row = await reaches(stage.oban, job, JobState.RETRYABLE)
        assert row.attempted_at is not None
        assert (row.scheduled_at - row.attempted_at).total_seconds() == pytest.approx(delay, abs=9)


@PAGE.shows("class Deliver(")
async def test_exceptions_decide(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    made = stage.names["Deliver"]
    for error, state, delay in [
        ("limit", JobState.SCHEDULED, 300),
        ("address", JobState.DISCARDED, 0),
        ("down", JobState.RETRYABLE, 60),
        ("unknown", JobState.CANCELLED, 0),
    ]:
        row = await reaches(stage.oban, await made.enqueue({"error": error}), state)
        assert row.attempted_at is not None
        assert (row.scheduled_at - row.attempted_at).total_seconds() == pytest.approx(delay, abs=20)
    PAGE.says("a `ConnectionRefusedError` waits for 60 seconds here")


@PAGE.shows("class Fetch(")
async def test_an_attempt_that_exceeds_its_timeout_is_retried(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.run(snippet)
    fetched, rendered = await stage.names["Fetch"].enqueue(), stage.names["Render"]
    row = await reaches(stage.oban, fetched, JobState.RETRYABLE)
    assert "TimeoutError" in row.errors[-1]["error"]
    job = await rendered.enqueue({"pages": 7})
    await reaches(stage.oban, job, JobState.COMPLETED)
    assert capsys.readouterr().out == "rendering 7 pages\n"
    assert rendered().timeout(job) == 24


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discard_on": int}, "exception"),
        ({"retry_on": KeyError, "cancel_on": KeyError}, "KeyError"),
        ({"snooze_on": KeyError}, "snooze_on"),
    ],
)
def test_wrong_rules_are_refused_in_the_class_statement(options: dict[str, Any], message: str) -> None:
    PAGE.says("raise `ConfigError` when the worker is defined")
    with pytest.raises(ConfigError, match=message):

        class Wrong(Worker, **options):
            async def process(self, job: Job) -> None: ...


@PAGE.shows("oban.retry_many_jobs(failed)")
async def test_discarded_jobs_are_shown_and_retried(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    error = {"attempt": 5, "at": "2026-03-01T18:00:00Z", "error": "Traceback\nConnectionError: no answer"}
    failed = row("discarded", id=1, worker="app.Charge", attempt=5, max_attempts=5, errors=[error])
    # No node runs this queue.
    await insert_rows(stage.oban.engine, {**failed, "queue": "payments"})
    await stage.run(snippet)
    assert capsys.readouterr().out == "1 ConnectionError: no answer\n1 jobs run again\n"
    again = await stage.job(1)
    assert (again.state, again.max_attempts) == ("available", 6)


async def test_the_commands_show_and_retry_what_failed(stage: Stage, url: URL) -> None:
    await insert_rows(
        stage.oban.engine,
        row("discarded", id=1, worker="app.Charge", queue="payments", errors=[], attempt=20),
        row("discarded", id=2, worker="app.Mail", queue="payments", errors=[], attempt=20),
    )
    (block,) = fenced("docs/guides/errors.md", "console")
    outputs = []
    for line in block.splitlines():
        arguments = [*shlex.split(line)[2:], "--database-url", url.render_as_string(False)]
        # The command has an event loop of its own.
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
        assert result.exit_code == 0, result.output
        outputs.append(result.output)
    listed, showed, dry, retried = outputs
    assert "app.Charge" in listed
    assert "app.Mail" not in listed
    assert showed.startswith("Job 1 is discarded")
    assert dry.startswith("1 job would be retried")
    assert retried == "1 job was retried.\n"
    assert [(job.id, str(job.state)) for job in await stage.oban.list_jobs()] == [
        (1, "available"),
        (2, "discarded"),
    ]


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
