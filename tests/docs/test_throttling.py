"""Every snippet of `docs/guides/throttling.md` runs unchanged and has the documented effect."""

import random
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import URL, text

from oban import JobState, Oban, Snooze, Worker
from tests.docs.stage import Page, Snippet, Stage
from tests.support.jobs import reaches
from tests.support.options import FAST_POLLING
from tests.support.rows import delete_rows, lasting_url

PAGE = Page("guides/throttling.md")
#: The table for the middleware that counts.
TABLE = "CREATE TABLE crm_calls (minute bigint PRIMARY KEY, calls integer NOT NULL)"

pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture
async def stage(oban: Oban) -> Stage:
    await delete_rows(oban.engine)
    stage = Stage(oban)
    names = {"Oban": Oban, "Snooze": Snooze, "Worker": Worker, "engine": oban.engine, "random": random}
    stage.names |= {"__name__": "app", "text": text, "time": time, "timedelta": timedelta, **names}
    return stage


def containing(part: str) -> Snippet:
    (snippet,) = (snippet for snippet in PAGE.snippets if part in snippet.code)
    return snippet


@PAGE.shows("class Recompute(", "class Index(", "class Publish(")
async def test_calls_within_the_period_make_one_job(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.run(snippet)
    assert capsys.readouterr().out in ("True False\n", "True 2 True\n")
    assert len(await stage.oban.list_jobs()) == (2 if "Recompute" in snippet.code else 1)


@PAGE.shows('node="calls-1"')
async def test_a_node_limits_a_queue(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    async with stage.names["oban"] as node:
        assert [(info.queue, info.limit) for info in node.check_all_queues()] == [("crm", 2)]


@pytest.fixture
async def node(stage: Stage) -> AsyncIterator[Oban]:
    async with Oban(stage.oban.engine, queues={"crm": 2}, **FAST_POLLING) as node:
        yield node


@PAGE.shows("class TooManyRequests")
async def test_a_job_waits_as_long_as_the_service_wants(stage: Stage, snippet: Snippet, node: Oban) -> None:
    async def update(customer: int) -> None:
        raise stage.names["TooManyRequests"](120)

    stage.names["crm"] = SimpleNamespace(update=update)
    await stage.run(snippet)
    job = await reaches(node, await stage.names["Sync"].enqueue({"customer": 7}), JobState.SCHEDULED)
    assert job.attempted_at is not None
    assert (job.scheduled_at - job.attempted_at).total_seconds() == pytest.approx(120, abs=9)
    assert job.attempt == 0


@PAGE.shows("number * 60 / 100")
async def test_jobs_are_spread_over_minutes(stage: Stage, snippet: Snippet) -> None:
    await stage.run(containing("class TooManyRequests"))
    await stage.run(snippet)
    jobs = await stage.oban.list_jobs()
    spread = (jobs[200].scheduled_at - jobs[100].scheduled_at).total_seconds()
    assert len(jobs) == 1000
    assert spread == pytest.approx(60, abs=2)


@PAGE.shows("at_most_100_per_minute(")
async def test_jobs_beyond_the_limit_are_put_off(
    stage: Stage, snippet: Snippet, node: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    PAGE.says(f"The table is `{TABLE}`")
    async with stage.oban.engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS crm_calls"))
        await connection.execute(text(TABLE))
    # All calls are within one minute.
    stage.names["time"] = SimpleNamespace(time=lambda: 60_000_030.0)
    await stage.run(snippet)
    stage.names["LIMIT"] = 3
    made = await stage.oban.enqueue_many(stage.names["Push"].new({"customer": each}) for each in range(4))
    ended = [await reaches(node, job, JobState.COMPLETED, JobState.SCHEDULED) for job in made]
    assert sorted(str(job.state) for job in ended) == ["completed"] * 3 + ["scheduled"]
    (late,) = (job for job in ended if job.state == "scheduled")
    assert late.attempted_at is not None
    assert 29 < (late.scheduled_at - late.attempted_at).total_seconds() < 60


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
