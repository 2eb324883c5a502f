"""Every snippet of `docs/guides/managing_jobs.md` runs unchanged and has the documented effect."""

import asyncio
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Job, Oban, Unique, UniqueConflict
from tests.docs.stage import JOB, NUMBERED, Page, Snippet, Stage
from tests.support.rows import TABLE, delete_rows, insert_row, just_now, lasting_url, read_row, row
from tests.support.waiting import eventually

PAGE = Page("guides/managing_jobs.md")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture(autouse=True)
async def emptied(oban: Oban) -> None:
    await delete_rows(oban.engine)


@pytest.fixture
def stage(oban: Oban) -> Stage:
    return Stage(oban)


def test_the_page_has_fifteen_snippets_and_each_of_them_is_run_by_one_test() -> None:
    assert len(PAGE.snippets) == 15
    assert PAGE.text.count("```python") == 15
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets


@PAGE.shows("oban.cancel_job(123)")
async def test_a_job_is_cancelled_by_its_id_and_by_its_instance(stage: Stage, snippet: Snippet) -> None:
    await stage.set("available", job="scheduled")
    await stage.run(snippet)
    for job in (await stage.job(123), await stage.job(JOB), stage.names["job"]):
        assert job.state == "cancelled"
        assert just_now(job.cancelled_at)
    assert await stage.states() == ["cancelled", "available", "available"]


@PAGE.shows("class MyWorker(Worker)")
async def test_a_worker_that_checks_stops_at_a_safe_point_once_its_job_is_cancelled(
    stage: Stage, snippet: Snippet, url: URL
) -> None:
    begun: list[int] = []
    finished: list[int] = []

    async def process_item(item: int) -> None:
        begun.append(item)
        await asyncio.sleep(0.001)
        finished.append(item)

    stage.names |= {"dataset": itertools.count(), "process_item": process_item}
    await stage.run(snippet)
    job: Job = await stage.oban.enqueue(stage.names["MyWorker"].new())
    async with Oban(url, queues={"default": 1}):
        await eventually(lambda: len(finished) >= 3)
        assert (await stage.job(job.id)).state == "executing"
        assert await stage.oban.cancel_job(job)
        told = await stage.job(job.id)
        assert told.state == "cancelled"
        assert just_now(told.cancelled_at)
        # The dataset is endless: only the worker's check ends the loop.
        ended = await eventually(lambda: _with_errors(stage.oban, job.id))
    # Every item that was started was finished.
    assert begun == finished == list(range(len(begun)))
    assert [(entry["attempt"], entry["error"]) for entry in ended.errors] == [(1, "Job was cancelled")]
    assert (ended.state, ended.attempt) == ("cancelled", 1)
    assert (ended.cancelled_at, ended.completed_at) == (told.cancelled_at, None)


async def _with_errors(oban: Oban, id_: int) -> Job | None:
    job = await oban.get_job(id_)
    return job if job is not None and job.errors else None


@PAGE.shows("oban.cancel_many_jobs([123, 456, 789])")
async def test_many_jobs_are_cancelled_and_counted(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.set("scheduled", "executing", "completed")
    await stage.run(snippet)
    assert stage.names["count"] == 2
    assert capsys.readouterr().out == "Cancelled 2 jobs\n"
    assert await stage.states() == ["cancelled", "cancelled", "completed"]
    assert just_now((await stage.job(123)).cancelled_at)
    assert just_now((await stage.job(456)).cancelled_at)
    assert (await stage.job(789)).cancelled_at is None


@PAGE.shows("oban.retry_job(123)")
async def test_a_job_is_retried_by_its_id_and_by_its_instance(stage: Stage, snippet: Snippet) -> None:
    await stage.set("discarded", job="cancelled", attempt=5, max_attempts=5)
    await stage.run(snippet)
    for job in (await stage.job(123), await stage.job(JOB), stage.names["job"]):
        assert (job.state, job.attempt, job.max_attempts) == ("available", 5, 6)
        assert just_now(job.scheduled_at)
        assert job.discarded_at is None
        assert job.cancelled_at is None
    assert await stage.states() == ["available", "discarded", "discarded"]


@PAGE.shows("oban.retry_many_jobs([123, 456, 789])")
async def test_many_jobs_are_retried_and_counted(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.set("completed", "executing", "retryable")
    await stage.run(snippet)
    assert stage.names["count"] == 2
    assert capsys.readouterr().out == "Retried 2 jobs\n"
    assert await stage.states() == ["available", "executing", "available"]


@PAGE.shows("schedule_in=60, queue=")
async def test_jobs_are_retried_later_and_in_another_queue(stage: Stage, snippet: Snippet) -> None:
    await stage.set("discarded")
    await stage.run(snippet)
    job = await stage.job(123)
    assert just_now(job.scheduled_at - timedelta(minutes=1))
    assert (job.queue, job.priority) == ("slow", 9)
    assert (await stage.job(789)).scheduled_at == datetime(2091, 7, 1, 8, 30, tzinfo=UTC)
    assert await stage.states() == ["scheduled"] * 3


def unique_columns(args: dict[str, Any]) -> dict[str, Any]:
    made = row(args=args)
    return {"args": args, "unique_key": Unique().key(made), "unique_rule": Unique().rule()}


@PAGE.shows("outcomes=outcomes")
async def test_a_retry_says_which_job_is_in_the_way(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.set("available", "discarded", "discarded", job="completed")
    for id_, number in ((123, 1), (456, 1), (789, 2), (JOB, 2)):
        async with stage.oban.engine.begin() as connection:
            statement = TABLE.update().where(TABLE.c.id == id_).values(unique_columns({"id": number}))
            await connection.execute(statement)
    await stage.run(snippet)
    expected = "".join(
        f"Job {id_} was not retried: job {other} is in its way\n" for id_, other in ((456, 123), (789, JOB))
    )
    assert capsys.readouterr().out == expected
    assert stage.names["outcomes"][0] == (123, "unchanged", None)
    assert await stage.states() == ["available", "discarded", "discarded"]


@PAGE.shows("except UniqueConflict")
async def test_an_update_that_makes_a_duplicate_is_refused(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await insert_row(stage.oban.engine, "scheduled", id=123, **unique_columns({"account_id": 1}))
    await stage.run(snippet)
    assert capsys.readouterr().out == ""
    await insert_row(stage.oban.engine, "scheduled", id=456, **unique_columns({"account_id": 1}))
    stage.names["UniqueConflict"] = UniqueConflict
    await stage.oban.update_job(123, {"args": {"account_id": 8}})
    await stage.oban.update_job(456, {"args": {"account_id": 7}})
    await stage.run(snippet)
    assert capsys.readouterr().out == "Job 456 has these args already\n"
    assert (await stage.job(123)).args == {"account_id": 8}


@PAGE.shows("oban.delete_job(123)")
async def test_a_job_is_deleted_by_its_id_and_by_its_instance(stage: Stage, snippet: Snippet) -> None:
    await stage.set("completed", job="available")
    await stage.run(snippet)
    assert await stage.oban.get_job(JOB) is None
    assert await read_row(stage.oban.engine, JOB) is None
    assert await stage.states() == ["gone", "completed", "completed"]


@PAGE.shows("oban.delete_many_jobs([123, 456, 789])")
async def test_many_jobs_are_deleted_and_counted(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.set("available", "cancelled", "executing")
    await stage.run(snippet)
    assert stage.names["count"] == 2
    assert capsys.readouterr().out == "Deleted 2 jobs\n"
    assert await stage.states() == ["gone", "gone", "executing"]
    assert await read_row(stage.oban.engine, JOB) is not None


@PAGE.shows('{"priority": 0, "tags": ["urgent"]}')
async def test_a_job_is_updated_by_its_instance_and_by_its_id(stage: Stage, snippet: Snippet) -> None:
    await stage.set("available", tags=["old"], priority=5)
    await stage.run(snippet)
    for job in (await stage.job(JOB), stage.names["job"]):
        assert (job.priority, job.tags, job.queue) == (0, ["urgent"], "default")
    numbered = await stage.job(123)
    assert (numbered.priority, numbered.tags, numbered.queue) == (5, ["old"], "critical")
    assert (await stage.job(456)).queue == "default"


@PAGE.shows('{"schedule_in": 0}')
async def test_a_scheduled_job_is_made_to_run_right_away(stage: Stage, snippet: Snippet) -> None:
    await stage.set("scheduled", job="scheduled")
    await stage.run(snippet)
    for job in (await stage.job(JOB), stage.names["job"]):
        assert job.state == "available"
        assert just_now(job.scheduled_at)
    assert await stage.states() == ["scheduled"] * 3


@PAGE.shows('job.tags + ["processed"]')
async def test_a_callable_gets_the_job_as_it_is_now(stage: Stage, snippet: Snippet) -> None:
    await stage.set("available", tags=["old"], meta={"by": "old"})
    # Changes the row, but not `job`, which still shows the old values.
    await stage.oban.update_job(JOB, {"tags": ["fresh"], "meta": {"by": "fresh"}})
    assert stage.names["job"].tags == ["old"]
    before = datetime.now()
    await stage.run(snippet)
    for job in (await stage.job(JOB), stage.names["job"]):
        assert job.tags == ["fresh", "processed"]
        assert job.meta.keys() == {"by", "reviewed_at"}
        assert job.meta["by"] == "fresh"
        assert before <= datetime.fromisoformat(job.meta["reviewed_at"]) <= datetime.now()


@PAGE.shows('[123, 456, 789], {"priority": 0}')
async def test_many_jobs_get_the_same_update(stage: Stage, snippet: Snippet) -> None:
    await stage.set("available", "completed", "executing", priority=7)
    await stage.run(snippet)
    assert [(job.id, job.priority) for job in stage.names["jobs"]] == [(id_, 0) for id_ in NUMBERED]
    assert [(await stage.job(id_)).priority for id_ in NUMBERED] == [0, 0, 0]
    assert await stage.states() == ["available", "completed", "executing"]
    assert (await stage.job(JOB)).priority == 7


@PAGE.shows('{**job.meta, "batch_id": batch_id}')
async def test_a_callable_updates_each_job_by_its_own_state(stage: Stage, snippet: Snippet) -> None:
    await stage.set("available")
    for id_ in NUMBERED:
        await stage.oban.update_job(id_, {"meta": {"own": id_}})
    await stage.run(snippet)
    expected: list[dict[str, Any]] = [{"own": id_, "batch_id": "batch-7"} for id_ in NUMBERED]
    assert [job.meta for job in stage.names["jobs"]] == expected
    assert [(await stage.job(id_)).meta for id_ in NUMBERED] == expected
    assert (await stage.job(JOB)).meta == {}


async def test_a_snippet_that_fails_fails_its_test(stage: Stage) -> None:
    await insert_row(stage.oban.engine, "scheduled", id=123, scheduled_at=datetime.now(UTC) + timedelta(1))
    with pytest.raises(LookupError, match="456"):
        await stage.run(Snippet("a page", 1, 'await oban.update_many_jobs([123, 456], {"priority": 0})\n'))
    assert (await stage.job(123)).priority == 3
