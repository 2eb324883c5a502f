"""The snippets of `docs/guides/progress.md` run unchanged."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Job, JobState, Oban, Worker
from oban.runner.execution import report
from tests.docs.stage import Page, Snippet, Stage
from tests.support.databases import SQLiteFactory
from tests.support.jobs import reaches
from tests.support.options import FAST_POLLING

PAGE = Page("guides/progress.md")


@pytest.fixture
async def stage(sqlite_factory: SQLiteFactory) -> AsyncIterator[Stage]:
    url: URL = sqlite_factory.create()
    options: dict[str, Any] = {**FAST_POLLING, "progress_interval": 0.02}
    async with Oban(url, queues={"default": 2, "imports": 1}, **options) as oban:
        stage = Stage(oban)
        stage.names |= {"Worker": Worker, "Job": Job}
        yield stage
    sqlite_factory.drop(url)


@PAGE.shows("class Import")
async def test_a_worker_reports_and_logs(
    stage: Stage, snippet: Snippet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", logger="oban.job")
    reported: list[tuple[Any, ...]] = []
    progress = Job.progress

    def recording(job: Job, *values: Any) -> None:
        reported.append(values)
        progress(job, *values)

    monkeypatch.setattr(Job, "progress", recording)
    stored: list[str] = []
    stage.names |= {"read": lambda path: ["a", "b"], "store": stored.append}
    await stage.run(snippet)
    job = await stage.oban.enqueue(stage.names["Import"].new({"path": "rows.csv"}))
    row = await reaches(stage.oban, job, JobState.COMPLETED)
    assert stored == ["a", "b"]
    # The last one is the same if the number and the total are exchanged.
    assert reported == [(1, 2, "storing"), (2, 2, "storing")]
    assert row.last_progress is not None
    assert (row.last_progress.done, row.last_progress.message) == (2, "storing")
    (record,) = (record for record in caplog.records if record.name == "oban.job")
    assert record.getMessage() == "stored 2 rows of rows.csv"
    assert vars(record).items() >= {"job_id": job.id, "queue": "imports", "attempt": 1}.items()


@PAGE.shows("job.progress(3)")
async def test_the_arguments_can_be_left_out(stage: Stage, snippet: Snippet) -> None:
    code = "\n        ".join(snippet.code.splitlines())
    source = f"class Reports(Worker):\n    async def process(self, job):\n        {code}\n"
    await stage.run(Snippet(snippet.page, 1, source))
    job = await stage.oban.enqueue(stage.names["Reports"].new())
    row = await reaches(stage.oban, job, JobState.COMPLETED)
    assert row.last_progress is not None
    assert (row.last_progress.done, row.last_progress.total, row.last_progress.message) == (3, 10, "reading")


@PAGE.shows("job.current_progress")
async def test_progress_is_read(stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]) -> None:
    class Reports(Worker, name="docs.progress.Reports"):
        async def process(self, job: Job) -> None:
            job.progress(3, 10, "reading")

    job = await stage.oban.enqueue(Reports.new())
    await reaches(stage.oban, job, JobState.COMPLETED)
    stage.names["job_id"] = job.id
    await stage.run(snippet)
    assert capsys.readouterr().out == "3 of 10: reading\n"


@PAGE.shows("class Export")
async def test_the_next_attempt_goes_on(stage: Stage, snippet: Snippet) -> None:
    exported: list[int] = []

    async def export(page: int) -> None:
        exported.append(page)
        if exported == [0, 1, 2]:
            raise ConnectionError("lost")

    stage.names |= {"PAGES": 5, "export": export}
    await stage.run(snippet)
    job = await stage.oban.enqueue(stage.names["Export"].new())
    await reaches(stage.oban, job, JobState.RETRYABLE)
    await stage.oban.retry_job(job)
    await reaches(stage.oban, job, JobState.COMPLETED)
    assert exported == [0, 1, 2, 2, 3, 4]


@PAGE.shows("class Fetch")
async def test_a_warning_has_a_traceback(
    stage: Stage, snippet: Snippet, caplog: pytest.LogCaptureFixture
) -> None:
    async def fetch(url: str) -> None:
        raise TimeoutError("too slow")

    stage.names["fetch"] = fetch
    await stage.run(snippet)
    job = await stage.oban.enqueue(stage.names["Fetch"].new({"urls": ["a", "b"]}))
    await reaches(stage.oban, job, JobState.COMPLETED)
    texts = [record.getMessage() for record in caplog.records if record.name == "oban.job"]
    assert texts == ["a does not answer", "b does not answer"]


@PAGE.shows("list_attempts")
async def test_lines_are_read(stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]) -> None:
    class Logs(Worker, name="docs.progress.Logs"):
        async def process(self, job: Job) -> None:
            job.log.info("half of it")

    job = await stage.oban.enqueue(Logs.new())
    stage.names["job"] = await reaches(stage.oban, job, JobState.COMPLETED)
    await stage.run(snippet)
    number, _, *line = capsys.readouterr().out.split()
    assert (number, line) == ("1", ["INFO", "half", "of", "it"])


def test_the_limits_are_those_of_the_code() -> None:
    assert (report.MAX_LINE, report.MAX_LOG, report.DEFAULT_LINES) == (8 * 1024, 16 * 1024, 100)
    PAGE.says("up to 16 KB. A line is cut after 8 KB.")


def test_every_snippet_runs() -> None:
    assert sorted(PAGE.shown, key=lambda shown: shown.line) == PAGE.snippets
