"""A job that is cancelled while it runs stays cancelled, however its run ends."""

import threading

import pytest
from sqlalchemy import URL

from oban import Cancel, Job, JobState, Oban, Record, Snooze, Worker
from tests.support.jobs import acknowledged, reaches, row_of
from tests.support.options import BRIEF, NO_POLLING
from tests.support.waiting import eventually, quiet
from tests.support.workers import Runs


async def test_a_cancelled_job_is_told_and_not_stopped_by_force(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 2}, **NO_POLLING) as oban:
        job = await oban.enqueue(runs.worker.new())
        running = await runs.begun(1)
        assert not running.cancelled()
        assert await oban.cancel_job(job) is True
        row = await row_of(oban, job)
        assert row.state is JobState.CANCELLED
        assert row.cancelled_at is not None
        await eventually(running.cancelled)
        assert (runs.ended, runs.interrupted) == ([], [])
        runs.finish(1)
        await acknowledged(oban)
        assert (await row_of(oban, job)).state is JobState.CANCELLED
    assert runs.interrupted == []


async def test_a_cancelled_job_is_told_in_its_thread(url: URL) -> None:
    begun = threading.Event()

    class Polls(Worker):
        def process(self, job: Job) -> Cancel:
            begun.set()
            stop = threading.Event()
            while not job.cancelled():
                stop.wait(0.01)
            return Cancel("saw it")

    async with Oban(url, queues={"default": 2}, **NO_POLLING) as oban:
        job = await oban.enqueue(Polls.new())
        await eventually(begun.is_set)
        await oban.cancel_job(job)

        async def appended() -> bool:
            return bool((await row_of(oban, job)).errors)

        await eventually(appended)
        row = await row_of(oban, job)
    assert row.state is JobState.CANCELLED
    assert [entry["error"] for entry in row.errors] == ["saw it"]


async def test_a_run_that_ends_normally_leaves_its_job_cancelled(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 4}, **BRIEF) as oban:
        jobs = await oban.enqueue_many([runs.worker.new() for _ in range(3)])
        await runs.begun(3)
        assert await oban.cancel_many_jobs(jobs) == 3
        before = [await row_of(oban, job) for job in jobs]
        runs.finish(1, "done")
        runs.finish(2, Record("kept?"))
        runs.finish(3, Snooze(60))
        await runs.over(1, 2, 3)
        await acknowledged(oban)
        for job, earlier in zip(jobs, before, strict=True):
            row = await row_of(oban, job)
            assert row.state is JobState.CANCELLED
            assert (row.errors, row.meta, row.attempt) == ([], {}, 1)
            assert (row.cancelled_at, row.scheduled_at) == (earlier.cancelled_at, earlier.scheduled_at)
            assert row.completed_at is None


@pytest.mark.parametrize(
    ("end", "error"), [(ValueError("too late"), "ValueError: too late"), (Cancel("why"), "why")]
)
async def test_the_reason_or_error_of_a_cancelled_run_is_stored_once(
    url: URL, end: object, error: str
) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 2}, **BRIEF) as oban:
        job = await oban.enqueue(runs.worker.new(max_attempts=1))
        await runs.begun(1)
        await oban.cancel_job(job)
        cancelled = await row_of(oban, job)
        if isinstance(end, Exception):
            runs.fail(1, end)
        else:
            runs.finish(1, end)
        await runs.over(1)
        await acknowledged(oban)
        row = await row_of(oban, job)
    assert row.state is JobState.CANCELLED
    (entry,) = row.errors
    assert entry["attempt"] == 1
    assert entry["error"].endswith(error)
    assert (row.cancelled_at, row.discarded_at) == (cancelled.cancelled_at, None)


async def test_a_cancelled_run_that_fails_does_not_run_again(url: URL) -> None:
    class FailsWhenCancelled(Worker):
        async def process(self, job: Job) -> None:
            await eventually(job.cancelled)
            raise RuntimeError("stopped because of the cancel")

        def backoff(self, job: Job) -> float:
            return 0

    async with Oban(url, queues={"default": 2}, **BRIEF) as oban:
        job = await oban.enqueue(FailsWhenCancelled.new())
        await reaches(oban, job, JobState.EXECUTING)
        await oban.cancel_job(job)

        async def appended() -> bool:
            return bool((await row_of(oban, job)).errors)

        await eventually(appended)
        await quiet()
        row = await row_of(oban, job)
    assert (row.state, row.attempt, len(row.errors)) == (JobState.CANCELLED, 1, 1)


async def test_a_job_that_has_finished_can_no_longer_be_cancelled(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 2}, **BRIEF) as oban:
        job = await oban.enqueue(runs.worker.new())
        await runs.begun(1)
        runs.finish(1)
        row = await reaches(oban, job, JobState.COMPLETED)
        assert await oban.cancel_job(job) is False
        after = await row_of(oban, job)
    assert after.state is JobState.COMPLETED
    assert (after.completed_at, after.cancelled_at) == (row.completed_at, None)


async def test_a_cancelled_job_that_does_not_run_is_never_started(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        blocking, waiting = await oban.enqueue_many([runs.worker.new() for _ in range(2)])
        await runs.begun(1)
        assert await oban.cancel_job(waiting) is True
        runs.finish(1)
        await reaches(oban, blocking, JobState.COMPLETED)
        await acknowledged(oban)
        row = await row_of(oban, waiting)
    assert (row.state, row.attempt) == (JobState.CANCELLED, 0)
    assert len(runs.jobs) == 1


async def test_a_run_whose_job_was_deleted_after_a_cancel_ends_without_a_trace(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 2}, **NO_POLLING) as oban:
        job = await oban.enqueue(runs.worker.new())
        running = await runs.begun(1)
        assert await oban.delete_job(job) is False
        await oban.cancel_job(job)
        assert await oban.delete_job(job) is True
        await eventually(running.cancelled)
        runs.fail(1, ValueError("late"))
        await runs.over(1)
        await acknowledged(oban)
        assert await oban.get_job(job.id) is None
