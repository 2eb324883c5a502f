"""Every snippet of `docs/guides/waiting.md` runs unchanged and has the documented effect."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import URL

from oban import Cancel, Job, Oban, Record, Worker
from tests.docs.stage import Page, Snippet, Stage
from tests.support.rows import delete_rows, insert_rows, lasting_url, read_rows, row

PAGE = Page("guides/waiting.md")


class Refuses(Worker):
    async def process(self, job: Job) -> object:
        return Cancel("no such price")


class Plays(Worker, queue="media"):
    async def process(self, job: Job) -> None: ...


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture
async def stage(url: URL) -> AsyncIterator[Stage]:
    async with Oban(url, queues={"default": 5, "media": 5}) as oban:
        await delete_rows(oban.engine)
        stage = Stage(oban)
        stage.names |= {"Worker": Worker, "Record": Record}
        yield stage


@PAGE.shows("class Price")
async def test_the_recorded_value_is_read(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.run(snippet)
    assert capsys.readouterr().out == "completed {'total': 42}\n"


@PAGE.shows('job.state != "completed"')
async def test_the_reason_of_another_ending_is_read(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.names["job_id"] = (await stage.oban.enqueue(Refuses.new())).id
    await stage.run(snippet)
    assert capsys.readouterr().out == "no such price\n"


@PAGE.shows("wait_until_empty")
async def test_a_queue_is_emptied(stage: Stage, snippet: Snippet) -> None:
    await stage.oban.enqueue_many(Plays.new() for _ in range(5))
    await insert_rows(stage.oban.engine, row("retryable", queue="media"), row(queue="another"))
    await stage.run(snippet)
    states = [found["state"] for found in (await read_rows(stage.oban.engine)).values()]
    assert states == [*["completed"] * 5, "retryable", "available"]


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
