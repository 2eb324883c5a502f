"""The time zones of the machine and of the database have no effect."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import create_async_engine

from oban import Job, JobState, Oban, Snooze, Worker
from tests.support.jobs import reaches
from tests.support.options import NO_POLLING
from tests.support.workers import Noop

FAR = "America/New_York"
NEAR = timedelta(seconds=5)


class FailsThenSnoozes(Worker):
    async def process(self, job: Job) -> object:
        if job.attempt == 1:
            raise ValueError("bad")
        return None if job.meta.get("snoozed") else Snooze(0.1)

    def backoff(self, job: Job) -> float:
        return 0.1


@pytest.fixture
def far_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the time zone of this process to New York."""
    monkeypatch.setenv("TZ", FAR)
    time.tzset()
    assert time.timezone == 5 * 3600
    yield
    monkeypatch.undo()
    time.tzset()


async def set_far(url: URL) -> None:
    """Set the time zone of every session of a PostgreSQL database to New York."""
    if url.get_backend_name() != "postgresql":
        return
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.execute(text(f"ALTER DATABASE {url.database} SET timezone = '{FAR}'"))
    await engine.dispose()


@pytest.mark.usefixtures("far_machine")
async def test_jobs_start_at_their_times_and_read_back_in_utc(fresh_url: URL) -> None:
    await set_far(fresh_url)
    async with Oban(fresh_url, queues={"default": 5}, **NO_POLLING) as oban:
        begun = datetime.now(UTC)
        scheduled = await oban.enqueue(Noop.new(schedule_in=0.3))
        at = begun + timedelta(seconds=0.3)
        fixed = await oban.enqueue(Noop.new(scheduled_at=at))
        assert fixed.scheduled_at == at
        later = await oban.enqueue(Noop.new(schedule_in=3600))
        again = await oban.enqueue(FailsThenSnoozes.new())
        for job in (scheduled, fixed, again):
            row = await reaches(oban, job, JobState.COMPLETED)
            for stamp in (row.inserted_at, row.scheduled_at, row.attempted_at, row.completed_at):
                assert stamp is not None
                assert stamp.utcoffset() == timedelta(0)
                assert begun - NEAR < stamp < datetime.now(UTC) + NEAR
            assert row.attempted_at is not None
            assert row.scheduled_at <= row.attempted_at
        noted = datetime.fromisoformat(row.errors[0]["at"])
        assert begun - NEAR < noted < datetime.now(UTC) + NEAR

        await oban.update_job(later, {"priority": 1})
        row = await reaches(oban, later, JobState.SCHEDULED)
        assert timedelta(minutes=59) < row.scheduled_at - begun < timedelta(minutes=61)
        assert await oban.cancel_job(later)
        row = await reaches(oban, later, JobState.CANCELLED)
        assert row.cancelled_at is not None
        assert abs(row.cancelled_at - datetime.now(UTC)) < NEAR
