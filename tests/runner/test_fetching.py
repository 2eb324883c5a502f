"""A queue starts the right jobs, in the right order, and no more than its limit at once."""

import asyncio
from datetime import UTC, datetime, timedelta

from sqlalchemy import URL, text

from oban import Job, JobState, Oban, QueueOptions, Worker
from tests.support.jobs import reaches, row_of
from tests.support.options import BRIEF, FAST_POLLING
from tests.support.waiting import eventually, quiet
from tests.support.workers import Noop, Runs


async def test_jobs_start_by_priority_then_time_then_id(url: URL) -> None:
    order: list[str] = []

    class Notes(Worker):
        async def process(self, job: Job) -> None:
            order.append(job.args["as"])

    now = datetime.now(UTC)
    jobs = [
        Notes.new({"as": "last"}, priority=9),
        Notes.new({"as": "third"}, priority=1, scheduled_at=now - timedelta(minutes=1)),
        Notes.new({"as": "second"}, priority=1, scheduled_at=now - timedelta(hours=1)),
        Notes.new({"as": "fourth"}, priority=1, scheduled_at=now - timedelta(minutes=1)),
        Notes.new({"as": "first"}),
    ]
    client = Oban(url)
    enqueued = await client.enqueue_many(jobs)
    await client.stop()
    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        await reaches(oban, enqueued[0], JobState.COMPLETED)
    assert order == ["first", "second", "third", "fourth", "last"]


async def test_jobs_of_one_fetch_start_in_order_too(url: URL) -> None:
    order: list[int] = []

    class NotesPriority(Worker):
        async def process(self, job: Job) -> None:
            order.append(job.priority)

    async with Oban(url) as client:
        await client.enqueue_many([NotesPriority.new(priority=n) for n in (5, 0, 9, 3, 7, 1, 8, 2, 6, 4)])
    async with Oban(url, queues={"default": 10}, **BRIEF):
        await eventually(lambda: len(order) == 10)
    assert order == list(range(10))


async def test_never_more_jobs_run_than_the_limits_allow(url: URL) -> None:
    running = {"default": 0, "media": 0}
    most = dict(running)

    class Counts(Worker):
        async def process(self, job: Job) -> None:
            running[job.queue] += 1
            most[job.queue] = max(most[job.queue], running[job.queue])
            # Jobs end at different moments, so slots become free one at a time.
            await asyncio.sleep(0.001 * (job.id % 5))
            running[job.queue] -= 1

    async with Oban(url, queues={"default": 4, "media": QueueOptions(limit=1)}, **FAST_POLLING) as oban:
        jobs = [Counts.new(queue="media" if n % 4 == 0 else "default") for n in range(120)]
        for start in range(0, 120, 30):
            await oban.enqueue_many(jobs[start : start + 30])
        for job in jobs:
            await reaches(oban, job, JobState.COMPLETED)
    assert most == {"default": 4, "media": 1}
    assert running == {"default": 0, "media": 0}


async def test_a_slot_that_becomes_free_is_filled_at_once(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 2}, poll_interval=300, **BRIEF) as oban:
        await oban.enqueue_many([runs.worker.new() for _ in range(4)])
        await runs.begun(2)
        await quiet()
        assert len(runs.jobs) == 2
        runs.finish(1)
        await runs.begun(3)
        runs.finish(2)
        await runs.begun(4)
        runs.finish_all()


async def test_queues_do_not_take_or_hold_up_each_others_jobs(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 1, "media": 1}, **FAST_POLLING) as oban:
        stuck = await oban.enqueue_many([runs.worker.new(queue="media") for _ in range(3)])
        elsewhere = await oban.enqueue(Noop.new(queue="nobody"))
        await runs.begun(1)
        quick = await oban.enqueue_many([Noop.new() for _ in range(5)])
        for job in quick:
            await reaches(oban, job, JobState.COMPLETED)
        states = [(await row_of(oban, job)).state for job in [*stuck, elsewhere]]
        assert states == [JobState.EXECUTING, *[JobState.AVAILABLE] * 3]
        assert len(runs.jobs) == 1
        runs.finish_all()


async def test_jobs_that_can_never_run_do_not_block_those_behind_them(url: URL) -> None:
    async with Oban(url) as client:
        async with client.engine.begin() as connection:
            for _ in range(5):
                await connection.execute(
                    text("INSERT INTO oban_jobs (worker, attempt, max_attempts) VALUES ('any', 3, 3)")
                )
        behind = await client.enqueue_many([Noop.new(priority=9) for _ in range(3)])
        stuck = [job for job in await client.list_jobs() if job.worker == "any"]
    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        for job in behind:
            await reaches(oban, job, JobState.COMPLETED)
        assert [(await row_of(oban, job)).attempt for job in stuck] == [3] * 5


async def test_suspended_and_ended_jobs_do_not_start(url: URL) -> None:
    runs = Runs()
    kept = [state for state in JobState if state not in (JobState.AVAILABLE, JobState.EXECUTING)]
    kept = [state for state in kept if state not in (JobState.SCHEDULED, JobState.RETRYABLE)]
    async with Oban(url) as client:
        jobs = await client.enqueue_many([runs.worker.new() for _ in kept])
        async with client.engine.begin() as connection:
            for job, state in zip(jobs, kept, strict=True):
                await connection.execute(
                    text(
                        f"UPDATE oban_jobs SET state = '{state}', scheduled_at = '2020-01-01' WHERE id = :id"
                    ),
                    {"id": job.id},
                )
    async with Oban(url, queues={"default": 10}, **FAST_POLLING) as oban:
        await reaches(oban, await oban.enqueue(Noop.new(priority=9)), JobState.COMPLETED)
        await quiet()
        assert runs.jobs == []
        assert [(await row_of(oban, job)).state for job in jobs] == kept


async def test_two_nodes_of_one_process_share_a_queue(url: URL) -> None:
    ran: list[int] = []

    class NotesId(Worker):
        async def process(self, job: Job) -> None:
            ran.append(job.id)

    async with (
        Oban(url, node="first", queues={"default": 7}, **BRIEF) as first,
        Oban(url, node="second", queues={"default": 7}, **BRIEF),
    ):
        jobs = await first.enqueue_many([NotesId.new() for _ in range(500)])
        await eventually(lambda: len(ran) >= 500)
        for job in jobs[-14:]:
            await reaches(first, job, JobState.COMPLETED)
    assert sorted(ran) == sorted(job.id for job in jobs)
