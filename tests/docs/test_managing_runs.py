"""Sentences of `docs/guides/managing_jobs.md` about running jobs hold for a real runner."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Job, Oban, Worker
from tests.docs.stage import Page
from tests.support.rows import delete_rows, insert_row, just_now, lasting_url, read_row
from tests.support.waiting import eventually, within

PAGE = Page("guides/managing_jobs.md")
#: With intervals this long, a runner acts in time only if it is woken.
PATIENT: dict[str, Any] = {"poll_interval": 60, "stage_interval": 60}


class Notes(Worker):
    """Records which jobs ran, with their contents."""

    ran: list[Job]

    async def process(self, job: Job) -> None:
        self.ran.append(job)


class Stubborn(Worker):
    """Never checks whether it was cancelled."""

    going: asyncio.Event
    leave: asyncio.Event
    ended: bool

    async def process(self, job: Job) -> None:
        self.going.set()
        await self.leave.wait()
        type(self).ended = True


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture(autouse=True)
async def emptied(oban: Oban) -> None:
    await delete_rows(oban.engine)


@pytest.fixture(autouse=True)
def fresh_workers() -> None:
    Notes.ran = []
    Stubborn.going, Stubborn.leave, Stubborn.ended = asyncio.Event(), asyncio.Event(), False


async def settled(oban: Oban) -> None:
    """Wait until the runner has polled once; after that, it only acts if it is woken."""
    job = await oban.enqueue(Notes.new())

    async def completed() -> bool:
        row = await read_row(oban.engine, job.id)
        return row is not None and row["state"] == "completed"

    await eventually(completed)
    Notes.ran.clear()


async def test_a_cancelled_job_does_not_run(oban: Oban, url: URL) -> None:
    PAGE.says("Cancel a job to prevent it from running")
    stopped, other = await oban.enqueue_many(Notes.new(), Notes.new())
    assert await oban.cancel_job(stopped)
    async with Oban(url, queues={"default": 1}):
        await eventually(lambda: Notes.ran)
    assert [job.id for job in Notes.ran] == [other.id]
    row = await read_row(oban.engine, stopped.id)
    assert row is not None
    assert (row["state"], row["attempt"]) == ("cancelled", 0)


async def test_cancelling_changes_the_row_at_once_and_kills_no_task(oban: Oban, url: URL) -> None:
    PAGE.says("the database state is updated immediately, but _the running task isn't forcefully terminated_")
    job = await oban.enqueue(Stubborn.new())
    async with Oban(url, queues={"default": 1}):
        await within(Stubborn.going.wait(), 10)
        assert await oban.cancel_job(job.id)
        cancelled = await read_row(oban.engine, job.id)
        assert cancelled is not None
        assert cancelled["state"] == "cancelled"
        assert just_now(cancelled["cancelled_at"])
        assert not Stubborn.ended
        Stubborn.leave.set()
    # The task ran to its end, and its result changed nothing.
    assert Stubborn.ended
    assert await read_row(oban.engine, job.id) == cancelled


@pytest.mark.parametrize("state", ["scheduled", "discarded"])
async def test_a_retried_job_is_ready_for_immediate_execution(oban: Oban, url: URL, state: str) -> None:
    PAGE.says("changes the job's status to `available`, making it ready for immediate execution")
    id_ = await insert_row(oban.engine, state, worker=Notes.worker_name, attempt=2, max_attempts=2)
    async with Oban(url, queues={"default": 1}, **PATIENT):
        await settled(oban)
        assert await oban.retry_job(id_)
        await eventually(lambda: Notes.ran)
    assert [(job.id, job.attempt, job.max_attempts) for job in Notes.ran] == [(id_, 3, 3)]


async def test_an_executing_job_is_deleted_after_it_was_cancelled(oban: Oban, url: URL) -> None:
    PAGE.says("If you need to stop an executing job, cancel it first and then delete it afterwards")
    job = await oban.enqueue(Stubborn.new())
    async with Oban(url, queues={"default": 1}):
        await within(Stubborn.going.wait(), 10)
        assert not await oban.delete_job(job)
        assert await oban.cancel_job(job)
        assert await oban.delete_job(job)
        assert await oban.get_job(job.id) is None
        Stubborn.leave.set()
    # The attempt, which ended later, did not restore the row.
    assert await oban.list_jobs() == []


async def test_reprioritizing_decides_which_job_runs_first(oban: Oban, url: URL) -> None:
    PAGE.says("**Reprioritizing**: Bump a job's priority")
    PAGE.says("Job priority (0-9, lower is higher priority)")
    first, bumped = await oban.enqueue_many(Notes.new(priority=5), Notes.new(priority=9))
    await oban.update_job(bumped, {"priority": 0})
    async with Oban(url, queues={"default": 1}):
        await eventually(lambda: len(Notes.ran) == 2)
    assert [job.id for job in Notes.ran] == [bumped.id, first.id]


async def test_rescheduling_delays_a_job(oban: Oban, url: URL) -> None:
    PAGE.says("**Rescheduling**: Delay a job")
    delayed, other = await oban.enqueue_many(Notes.new(), Notes.new())
    await oban.update_job(delayed, {"scheduled_at": datetime.now(UTC) + timedelta(hours=1)})
    async with Oban(url, queues={"default": 1}):
        await eventually(lambda: Notes.ran)
    assert [job.id for job in Notes.ran] == [other.id]
    row = await read_row(oban.engine, delayed.id)
    assert row is not None
    assert (row["state"], row["attempt"]) == ("scheduled", 0)


async def test_reassigning_moves_a_job_to_another_queue(oban: Oban, url: URL) -> None:
    PAGE.says("**Reassigning**: Move a job to a different queue")
    async with Oban(url, queues={"default": 1, "other": 1}, **PATIENT):
        await settled(oban)
        job = await oban.enqueue(Notes.new(queue="nobody"))
        await oban.update_job(job, {"queue": "other"})
        await eventually(lambda: Notes.ran)
    assert [(ran.id, ran.queue) for ran in Notes.ran] == [(job.id, "other")]


async def test_annotating_adds_metadata_that_the_worker_sees(oban: Oban, url: URL) -> None:
    PAGE.says("**Annotating**: Add metadata")
    job = await oban.enqueue(Notes.new(meta={"trace": "t-1"}))
    await oban.update_job(job, lambda job: {"meta": {**job.meta, "by": "ann"}})
    async with Oban(url, queues={"default": 1}):
        await eventually(lambda: Notes.ran)
    assert Notes.ran[0].meta == {"trace": "t-1", "by": "ann"}


async def test_schedule_in_0_makes_a_scheduled_job_run_right_away(oban: Oban, url: URL) -> None:
    PAGE.says("you can use `schedule_in` (or `scheduled_in`) instead of `scheduled_at`")
    async with Oban(url, queues={"default": 1}, **PATIENT):
        await settled(oban)
        job = await oban.enqueue(Notes.new(schedule_in=3600))
        assert job.state == "scheduled"
        await oban.update_job(job, {"schedule_in": 0})
        await eventually(lambda: Notes.ran)
    assert [ran.id for ran in Notes.ran] == [job.id]


async def test_an_executing_job_can_be_updated_and_is_still_completed(oban: Oban, url: URL) -> None:
    PAGE.says("Use caution when updating jobs that are currently executing")
    job = await oban.enqueue(Stubborn.new({"version": 1}))
    async with Oban(url, queues={"default": 1}):
        await within(Stubborn.going.wait(), 10)
        await oban.update_job(job, {"args": {"version": 2}, "meta": {"seen": True}})
        Stubborn.leave.set()
    row = await read_row(oban.engine, job.id)
    assert row is not None
    assert (row["state"], row["args"], row["meta"]) == ("completed", {"version": 2}, {"seen": True})
