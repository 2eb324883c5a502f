"""The snippets of `docs/guides/sharing.md` work; `tests/sharing` tests the statements about oban-py."""

import sys
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import URL

from oban import Job, JobState, Oban
from oban.registry import registry
from tests.docs.stage import Page, Snippet, Stage
from tests.support.jobs import reaches, row_of

PAGE = Page("guides/sharing.md")


@pytest.fixture
async def stage(url: URL) -> AsyncIterator[Stage]:
    """A node of this library that runs the shared queue."""
    async with Oban(url, queues={"images": 1}) as oban:
        stage = Stage(oban)
        stage.names |= {"Job": Job}
        yield stage


@PAGE.shows("shop.images.Resize")
async def test_a_worker_runs_under_the_name_that_oban_py_uses(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "shop" not in sys.modules
    await stage.run(snippet)
    job = await stage.oban.enqueue(Job(worker="shop.images.Resize", queue="images", args={"path": "a.png"}))
    await reaches(stage.oban, job, JobState.COMPLETED)
    assert capsys.readouterr().out == "resized a.png\n"


@PAGE.shows("shop.reports.Monthly")
async def test_a_job_for_a_worker_of_oban_py_stays_available(stage: Stage, snippet: Snippet) -> None:
    with pytest.raises(LookupError):
        registry["shop.reports.Monthly"]
    await stage.run(snippet)
    (job,) = await stage.oban.list_jobs()
    row = await row_of(stage.oban, job)
    assert (row.worker, row.queue, row.args, row.state) == (
        "shop.reports.Monthly",
        "reports",
        {"month": 5},
        JobState.AVAILABLE,
    )


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
