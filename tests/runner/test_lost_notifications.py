"""Everything works although every notification is lost."""

from typing import Any

import pytest
from sqlalchemy import URL

from oban import Cancel, Job, JobState, Oban, Worker
from oban.notifier.base import Notifier
from tests.support.jobs import reaches, row_of
from tests.support.options import FAST_POLLING
from tests.support.waiting import eventually, quiet
from tests.support.workers import Noop, Runs


@pytest.fixture(autouse=True)
def lost(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The channels of the lost notifications."""
    channels: list[str] = []

    def lose(_: Notifier, channel: str, __: dict[str, Any]) -> None:
        channels.append(channel)

    monkeypatch.setattr(Notifier, "dispatch", lose)
    return channels


class FailsOnce(Worker):
    async def process(self, job: Job) -> None:
        if job.attempt == 1:
            raise ValueError("bad")

    def backoff(self, job: Job) -> float:
        return 0.1


async def test_jobs_run_at_once_at_their_time_and_again(url: URL, lost: list[str]) -> None:
    async with (
        Oban(url, queues={"default": 3}, **FAST_POLLING) as oban,
        Oban(url, name="client") as client,
    ):
        jobs = await client.enqueue_many([Noop.new() for _ in range(20)])
        jobs += [await client.enqueue(Noop.new(schedule_in=0.2)), await client.enqueue(FailsOnce.new())]
        for job in jobs:
            row = await reaches(oban, job, JobState.COMPLETED)
            assert row.attempted_at is not None
            assert row.attempted_at >= row.scheduled_at
        assert await client.retry_job(jobs[0])
        row = await reaches(oban, jobs[0], JobState.COMPLETED)
    assert "insert" in lost


async def test_an_update_takes_effect(url: URL) -> None:
    async with (
        Oban(url, queues={"default": 3}, **FAST_POLLING) as oban,
        Oban(url, name="client") as client,
    ):
        later = await client.enqueue(Noop.new(schedule_in=3600))
        elsewhere = await client.enqueue(Noop.new(queue="nobody"))
        await quiet()
        await client.update_job(later, {"schedule_in": 0})
        await client.update_job(elsewhere, {"queue": "default"})
        for job in (later, elsewhere):
            await reaches(oban, job, JobState.COMPLETED)


async def test_a_cancel_reaches_the_running_job(url: URL) -> None:
    runs = Runs()
    async with (
        Oban(url, queues={"default": 3}, **FAST_POLLING) as oban,
        Oban(url, name="client") as client,
    ):
        job = await client.enqueue(runs.worker.new())
        running = await runs.begun(1)
        other = await client.enqueue(runs.worker.new())
        untouched = await runs.begun(2)
        assert await client.cancel_job(job)
        await eventually(running.cancelled)
        assert not untouched.cancelled()
        runs.finish(1, Cancel("saw it"))
        runs.finish(2)
        await reaches(oban, other, JobState.COMPLETED)

        async def appended() -> bool:
            return bool((await row_of(oban, job)).errors)

        await eventually(appended)


async def test_a_cancel_reaches_the_running_job_within_seconds_by_default(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 3}, shutdown_grace_period=0.5) as oban:
        job = await oban.enqueue(runs.worker.new())
        running = await runs.begun(1)
        await oban.cancel_job(job)
        await eventually(running.cancelled, timeout=3)
        runs.finish(1)
