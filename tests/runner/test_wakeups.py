"""Jobs start as soon as they are due, although no service polls for 30 seconds."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, JobState, Oban, Snooze, Worker
from oban.repository import stage
from tests.support.internals import runner_of
from tests.support.jobs import reaches, row_of
from tests.support.options import NO_POLLING
from tests.support.waiting import quiet, within
from tests.support.workers import Noop, Runs

SOON = 0.4


class Once(Worker):
    """Ends its first run as its args say."""

    async def process(self, job: Job) -> object:
        if job.attempt == 1 and not job.meta.get("snoozed"):
            match job.args["first"]:
                case "fail":
                    raise ValueError("bad")
                case "snooze":
                    return Snooze(SOON)
        return None

    def backoff(self, job: Job) -> float:
        return job.args.get("backoff", SOON)  # type: ignore[no-any-return]


def was_prompt(row: Job) -> None:
    """Whether a job started when it was due. Both times are the database's."""
    assert row.attempted_at is not None
    late = row.attempted_at - row.scheduled_at
    assert timedelta(0) <= late < timedelta(seconds=5)


async def test_an_enqueued_job_starts_at_once(url: URL) -> None:
    async with Oban(url, queues={"default": 5}, **NO_POLLING) as oban:
        await quiet()
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
        await quiet()
        jobs = await oban.enqueue_many([Noop.new() for _ in range(20)])
        for job in jobs:
            await reaches(oban, job, JobState.COMPLETED)


async def test_a_job_starts_when_the_transaction_that_enqueued_it_commits(url: URL) -> None:
    async with Oban(url, queues={"default": 5}, **NO_POLLING) as oban:
        await quiet()
        async with AsyncSession(oban.engine, expire_on_commit=False) as session:
            job = await oban.enqueue(Noop.new(), session=session)
            await session.commit()
            await reaches(oban, job, JobState.COMPLETED)
        await quiet()
        async with oban.engine.begin() as connection:
            job = await oban.enqueue(Noop.new(), session=connection)
        await reaches(oban, job, JobState.COMPLETED)
        await quiet()
        async with AsyncSession(oban.engine, expire_on_commit=False) as session:
            added = Noop.new()
            session.add(added)
            await session.commit()
        await reaches(oban, added, JobState.COMPLETED)


async def test_a_job_of_another_client_or_of_plain_sql_starts_at_once(url: URL) -> None:
    async with (
        Oban(url, queues={"default": 5}, **NO_POLLING) as oban,
        Oban(url, name="client") as client,
    ):
        await quiet()
        await reaches(oban, await client.enqueue(Noop.new()), JobState.COMPLETED)
        await quiet()
        async with client.engine.begin() as connection:
            inserted = await connection.execute(
                text("INSERT INTO oban_jobs (worker) VALUES (:name) RETURNING id"),
                {"name": Noop.worker_name},
            )
            id_ = inserted.scalar_one()
        await reaches(oban, id_, JobState.COMPLETED)


async def test_scheduled_jobs_start_at_their_times(url: URL) -> None:
    async with Oban(url, queues={"default": 5}, **NO_POLLING) as oban:
        await quiet()
        jobs = await oban.enqueue_many([Noop.new(schedule_in=SOON + n * 0.01) for n in range(20)])
        assert {job.state for job in jobs} == {JobState.SCHEDULED}
        for job in jobs:
            was_prompt(await reaches(oban, job, JobState.COMPLETED))


async def test_a_job_that_is_due_before_another_does_not_wait_for_it(url: URL) -> None:
    async with Oban(url, queues={"default": 5}, **NO_POLLING) as oban:
        await oban.enqueue(Noop.new(schedule_in=20))
        await quiet()
        at = datetime.now(UTC) + timedelta(seconds=SOON)
        was_prompt(await reaches(oban, await oban.enqueue(Noop.new(scheduled_at=at)), JobState.COMPLETED))


async def test_a_job_that_a_transaction_scheduled_starts_at_its_time(url: URL) -> None:
    async with Oban(url, queues={"default": 5}, **NO_POLLING) as oban:
        await quiet()
        async with AsyncSession(oban.engine, expire_on_commit=False) as session:
            job = await oban.enqueue(Noop.new(schedule_in=SOON), session=session)
            # Notifications from before the commit have been handled by then.
            await quiet()
            await session.commit()
        was_prompt(await reaches(oban, job, JobState.COMPLETED))


async def test_a_job_that_waits_for_its_next_run_starts_at_its_time(url: URL) -> None:
    async with Oban(url, queues={"default": 5}, **NO_POLLING) as oban:
        for first, attempt in [("fail", 2), ("snooze", 1)]:
            await quiet()
            row = await reaches(oban, await oban.enqueue(Once.new({"first": first})), JobState.COMPLETED)
            was_prompt(row)
            assert row.attempt == attempt


async def test_a_retried_job_starts_at_once(url: URL) -> None:
    async with Oban(url, queues={"default": 5}, **NO_POLLING) as oban:
        job = await oban.enqueue(Once.new({"first": "fail", "backoff": 3600}))
        await reaches(oban, job, JobState.RETRYABLE)
        await quiet()
        assert await oban.retry_job(job)
        assert (await reaches(oban, job, JobState.COMPLETED)).attempt == 2
        await quiet()
        assert await oban.retry_job(job)
        await quiet()
        assert (await reaches(oban, job, JobState.COMPLETED)).attempt == 3


async def test_a_job_that_is_retried_later_or_in_another_queue_starts_then(url: URL) -> None:
    async with (
        Oban(url, queues={"default": 5, "moved": 5}, **NO_POLLING) as oban,
        Oban(url, name="client") as client,
    ):
        job = await oban.enqueue(Once.new({"first": "fail", "backoff": 3600}))
        await reaches(oban, job, JobState.RETRYABLE)
        await quiet()
        assert await client.retry_job(job, schedule_in=0.3, queue="moved")
        assert job.state is JobState.SCHEDULED
        row = await reaches(oban, job, JobState.COMPLETED)
        was_prompt(row)
        assert (row.attempt, row.queue) == (2, "moved")
        await quiet()
        assert await client.retry_job(job, queue="default")
        await reaches(oban, job, JobState.COMPLETED)


@pytest.mark.parametrize("by", ["itself", "another"])
async def test_a_job_that_an_update_makes_due_starts_then(url: URL, by: str) -> None:
    async with (
        Oban(url, queues={"default": 5}, **NO_POLLING) as oban,
        Oban(url, name="client") as other,
    ):
        client = oban if by == "itself" else other
        for seconds in (0, SOON):
            scheduled = await oban.enqueue(Noop.new(schedule_in=3600))
            retryable = await oban.enqueue(Once.new({"first": "fail", "backoff": 3600}))
            await reaches(oban, retryable, JobState.RETRYABLE)
            for job in (scheduled, retryable):
                await quiet()
                await client.update_job(job.id, {"schedule_in": seconds})
                was_prompt(await reaches(oban, job, JobState.COMPLETED))


async def test_an_update_in_a_transaction_takes_effect_at_its_commit(url: URL) -> None:
    async with Oban(url, queues={"default": 5}, **NO_POLLING) as oban:
        job = await oban.enqueue(Noop.new(schedule_in=3600))
        await quiet()
        async with AsyncSession(oban.engine, expire_on_commit=False) as session:
            await oban.update_job(job.id, {"schedule_in": 0}, session=session)
            assert (await row_of(oban, job)).state is JobState.SCHEDULED
            await session.commit()
        was_prompt(await reaches(oban, job, JobState.COMPLETED))


async def test_a_job_that_an_update_moves_to_another_queue_starts_there_at_once(url: URL) -> None:
    async with Oban(url, queues={"default": 5}, **NO_POLLING) as oban:
        job = await oban.enqueue(Noop.new(queue="nobody"))
        await quiet()
        await oban.update_job(job, {"queue": "default"})
        await reaches(oban, job, JobState.COMPLETED)


async def test_a_job_that_a_stopping_node_puts_back_starts_elsewhere_at_once(url: URL) -> None:
    runs = Runs()
    options = {**NO_POLLING, "shutdown_grace_period": 0}
    first = Oban(url, node="first", queues={"default": 1}, **options)
    await first.start()
    job = await first.enqueue(runs.worker.new())
    await runs.begun(1)
    async with Oban(url, node="second", queues={"default": 1}, **NO_POLLING) as second:
        await quiet()
        await first.stop()
        assert (await runs.begun(2)).attempted_by[0] == "second"
        runs.finish(2)
        assert (await reaches(second, job, JobState.COMPLETED)).attempt == 1
    assert runs.interrupted == [1]


async def test_a_job_that_is_scheduled_while_the_stager_queries_is_not_missed(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueues, looking, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with Oban(url, queues={"default": 5}, **NO_POLLING) as oban:
        read = runner_of(oban).database.read

        async def slow_read(function: Any, *args: Any, **kwargs: Any) -> Any:
            is_about_job = enqueues.is_set()
            result = await read(function, *args, **kwargs)
            if function is stage.seconds_until_due and result is None and is_about_job:
                # The stager has seen that nothing is due, and has not yet decided how long to sleep.
                looking.set()
                await go_on.wait()
            return result

        monkeypatch.setattr(runner_of(oban).database, "read", slow_read)
        # So the stager runs because of the time, and not because it is woken.
        enqueues.set()
        await oban.enqueue(Noop.new(schedule_in=SOON))
        await within(looking.wait(), 10)
        job = await oban.enqueue(Noop.new(schedule_in=SOON))
        await quiet()
        go_on.set()
        was_prompt(await reaches(oban, job, JobState.COMPLETED))
