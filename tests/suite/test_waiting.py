"""`wait` returns when a job has ended, and `wait_until_empty` when a queue has nothing to do."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from oban import Job, JobNotFound, JobState, Oban, Record, Worker, current_job
from oban.errors import InvalidArgument, InvalidJob, InvalidTarget, NotEnqueued, WouldDeadlock
from tests.support.jobs import row_of
from tests.support.rows import STATES, insert_row, insert_rows, row, shown
from tests.support.waiting import eventually, within

ENDED = ("completed", "cancelled", "discarded")
#: Seconds, for what happens at once on an idle machine.
LONG = 60


class Doubles(Worker):
    """Fails the first time, and then records twice its number."""

    async def process(self, job: Job) -> object:
        if job.attempt == 1:
            raise ValueError("the first attempt fails")
        return Record({"value": 2 * job.args["n"]})

    def backoff(self, job: Job) -> float:
        return 0


class AsksAnother(Worker):
    """Enqueues a job, waits for it, and records what it recorded."""

    async def process(self, job: Job) -> object:
        oban = Oban.get_instance()
        return Record((await oban.wait(await oban.enqueue(Doubles.new({"n": 4})), timeout=LONG)).recorded)


class AsksAfterWriting(Worker):
    """Waits for a job while its own session keeps every other writer waiting."""

    async def process(self, job: Job, session: AsyncSession) -> object:
        other = await Oban.get_instance().enqueue(Doubles.new({"n": 4}))
        await session.execute(text("UPDATE oban_jobs SET priority = 1 WHERE id = -1"))
        try:
            await Oban.get_instance().wait(other, timeout=LONG)
        except WouldDeadlock:
            return Record("refused")
        return Record("waited")


async def test_the_recorded_value_is_there_once_the_job_has_ended(url: URL) -> None:
    async with Oban(url, queues={"default": 2}, stage_interval=0.02) as oban:
        job = await oban.enqueue(Doubles.new({"n": 21}))
        assert await oban.wait(job, timeout=LONG) is job
        assert (job.recorded, job.state, job.attempt) == ({"value": 42}, JobState.COMPLETED, 2)
        assert shown(job) == shown(await row_of(oban, job))
        by_id = await oban.wait(job.id)
        assert by_id is not job
        assert by_id.recorded == {"value": 42}


async def test_a_job_can_wait_for_another_one(url: URL) -> None:
    async with Oban(url, queues={"default": 2}, stage_interval=0.02) as oban:
        job = await oban.wait(await oban.enqueue(AsksAnother.new(max_attempts=1)), timeout=LONG)
        assert (job.recorded, job.errors) == ({"value": 8}, [])
        assert current_job() is None


async def test_a_job_does_not_wait_for_one_that_waits_for_its_own_lock(url: URL) -> None:
    async with Oban(url, queues={"default": 2}, stage_interval=0.02) as oban:
        job = await oban.wait(await oban.enqueue(AsksAfterWriting.new(max_attempts=1)), timeout=LONG)
        assert job.recorded == ("refused" if url.get_backend_name() == "sqlite" else "waited")


async def test_only_the_final_states_end_the_wait(oban: Oban) -> None:
    for state in STATES:
        id_ = await insert_row(oban.engine, state, meta={"recorded": True, "return": state})
        if state in ENDED:
            job = await oban.wait(id_, timeout=0)
            assert (job.state, job.recorded) == (state, state)
        else:
            with pytest.raises(TimeoutError, match=f"^job {id_} has not ended after 0 seconds$"):
                await oban.wait(id_, timeout=0)


async def test_a_job_is_awaited_until_it_is_cancelled_deleted_or_too_late(oban: Oban) -> None:
    first, second = await oban.enqueue_many(Doubles.new() for _ in range(2))
    with pytest.raises(TimeoutError, match=r"after 0\.05 seconds"):
        await oban.wait(first, timeout=timedelta(seconds=0.05))
    assert first.state == "available"
    waiting = [asyncio.create_task(oban.wait(job)) for job in (first, second)]
    await asyncio.sleep(0.02)
    async with AsyncSession(oban.engine) as session:
        await oban.cancel_job(first.id, session)
        await oban.delete_job(second.id, session)
        await session.commit()
    assert (await within(waiting[0])).state == first.state == "cancelled"
    with pytest.raises(JobNotFound, match=f"no job has the id {second.id}"):
        await within(waiting[1])


async def test_nothing_is_kept_between_two_looks(url: URL) -> None:
    # With a timeout, SQLAlchemy 2.0 uses asyncio.wait_for, which can lose a connection on Python 3.11 if the
    # task that waits for it is cancelled.
    engine = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=None)
    oban = Oban(engine)
    jobs = await oban.enqueue_many(Doubles.new() for _ in range(20))
    waiting = [asyncio.create_task(oban.wait(job)) for job in jobs]
    await asyncio.sleep(0.05)
    waiting[0].cancel()
    assert isinstance((await asyncio.gather(waiting[0], return_exceptions=True))[0], asyncio.CancelledError)
    assert await within(oban.cancel_many_jobs(jobs), LONG) == 20
    ended = await within(asyncio.gather(*waiting[1:]), LONG)
    assert ended == jobs[1:]
    await eventually(lambda: engine.pool.checkedout() == 0)  # type: ignore[attr-defined]
    await engine.dispose()


async def test_unflushed_changes_of_an_instance_stay(oban: Oban) -> None:
    async with AsyncSession(oban.engine, expire_on_commit=False) as session:
        session.add(job := Doubles.new())
        await session.commit()
        await oban.cancel_job(job.id)
        job.priority = 5
        assert await oban.wait(job, timeout=0) is job
        assert (job.state, job.priority) == ("cancelled", 5)
        await session.commit()
    assert (await row_of(oban, job)).priority == 5


async def test_what_cannot_be_awaited_is_refused(oban: Oban) -> None:
    for unknown in (404, 0, -1, 2**63):
        with pytest.raises(JobNotFound):
            await oban.wait(unknown)
    new = Doubles.new()
    assert new.recorded is None
    with pytest.raises(NotEnqueued):
        await oban.wait(new)
    wrong: Any = "1"
    with pytest.raises(InvalidTarget):
        await oban.wait(wrong)
    with pytest.raises(InvalidArgument, match="timeout must be seconds or a timedelta"):
        await oban.wait(1, timeout=wrong)
    with pytest.raises(InvalidArgument, match="timeout must not be negative"):
        await oban.wait_until_empty(timeout=-1)
    with pytest.raises(InvalidJob, match="is not a queue name"):
        await oban.wait_until_empty("no name")


PAST = datetime(2024, 1, 1, tzinfo=UTC)


async def test_a_queue_is_empty_without_jobs_that_run_or_are_due(oban: Oban) -> None:
    await insert_rows(
        oban.engine, *(row(state) for state in STATES if state not in ("available", "executing"))
    )
    await oban.wait_until_empty(timeout=0)
    busy = [row(state, scheduled_at=PAST) for state in ("available", "executing", "scheduled", "retryable")]
    for each in busy:
        (id_,) = await insert_rows(oban.engine, {**each, "queue": "media"})
        with pytest.raises(TimeoutError, match="the queue media is not empty after 0 seconds"):
            await oban.wait_until_empty("media", timeout=0)
        with pytest.raises(TimeoutError, match="the queues are not empty after 0 seconds"):
            await oban.wait_until_empty(timeout=0)
        await oban.wait_until_empty("default", timeout=0)
        await oban.cancel_job(id_)
        await oban.wait_until_empty("media", timeout=0)


async def test_a_queue_is_empty_when_its_jobs_have_run(url: URL) -> None:
    async with Oban(url, queues={"default": 3}, stage_interval=0.02) as oban:
        jobs = await oban.enqueue_many(Doubles.new({"n": n}) for n in range(20))
        later = await oban.enqueue(Doubles.new({"n": 1}, schedule_in=3600))
        await oban.wait_until_empty("default", timeout=LONG)
        ended = [(await row_of(oban, job)).recorded for job in jobs]
        assert ended == [{"value": 2 * n} for n in range(20)]
        assert (await row_of(oban, later)).state == "scheduled"
