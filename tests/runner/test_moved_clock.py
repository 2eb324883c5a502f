"""A running node follows a clock that the test moves, but does not take anybody for dead because of it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL, update

from oban import Job, JobState, Oban, Snooze, Worker, clock
from oban.config import Retention
from oban.models import Producer
from oban.repository import cluster, poll, rescue
from tests.support.internals import database_of, runner_of
from tests.support.jobs import acknowledged, reaches, row_of
from tests.support.options import NO_POLLING
from tests.support.waiting import eventually
from tests.support.workers import Noop, Runs

pytestmark = pytest.mark.either_driver

START = datetime(2031, 5, 1, 12, 30, tzinfo=UTC)
DAY = timedelta(days=1)


class Later(Worker):
    """Fails at first, then snoozes, then completes; it waits for a day in between."""

    async def process(self, job: Job) -> Snooze | None:
        if job.attempt == 1:
            raise ValueError("out of tea")
        return None if job.meta.get("snoozed") else Snooze(DAY.total_seconds())

    def backoff(self, job: Job) -> float:
        return DAY.total_seconds()


@pytest.fixture
def moving() -> Iterator[clock.MovableClock]:
    with clock.use(clock.MovableClock(START)) as moving:
        yield moving


@asynccontextmanager
async def node(url: URL, **options: Any) -> AsyncIterator[Oban]:
    """A node that would look by itself only after the end of the test."""
    async with Oban(url, queues={"default": 2}, **NO_POLLING, prune_interval=30, **options) as running:
        yield running


async def test_a_job_runs_when_the_clock_reaches_its_time(url: URL, moving: clock.MovableClock) -> None:
    async with node(url) as oban:
        job = await oban.enqueue(Noop.new(schedule_in=DAY))
        assert (job.state, job.scheduled_at) == (JobState.SCHEDULED, START + DAY)
        moving.advance(days=1, seconds=-1)
        await acknowledged(oban)
        assert (await row_of(oban, job)).state == JobState.SCHEDULED
        moving.advance(1)
        row = await reaches(oban, job, JobState.COMPLETED)
    assert row.inserted_at == START
    assert row.scheduled_at == row.attempted_at == row.completed_at == START + DAY


async def test_backoff_and_snooze_follow_the_clock(url: URL, moving: clock.MovableClock) -> None:
    async with node(url) as oban:
        job = await oban.enqueue(Later.new())
        row = await reaches(oban, job, JobState.RETRYABLE)
        assert (row.scheduled_at, row.errors[0]["at"]) == (START + DAY, "2031-05-01T12:30:00.000000Z")
        moving.move_to(row.scheduled_at)
        row = await reaches(oban, job, JobState.SCHEDULED)
        assert row.scheduled_at == START + 2 * DAY
        moving.move_to(row.scheduled_at)
        row = await reaches(oban, job, JobState.COMPLETED)
        assert row.completed_at == START + 2 * DAY


async def test_a_node_notices_a_clock_that_another_thread_moves(
    emptied_postgresql: URL, moving: clock.MovableClock
) -> None:
    async with node(emptied_postgresql) as oban:
        job = await oban.enqueue(Noop.new(scheduled_at=START + DAY))
        await asyncio.to_thread(moving.advance, DAY)
        await reaches(oban, job, JobState.COMPLETED)


async def test_a_node_that_was_started_before_notices_when_the_clock_is_replaced(sqlite_url: URL) -> None:
    async with node(sqlite_url) as oban:
        job = await oban.enqueue(Noop.new(scheduled_at=START))
        assert job.state == JobState.SCHEDULED
        with clock.use(clock.MovableClock(START)):
            await reaches(oban, job, JobState.COMPLETED)
    # A node that has stopped leaves nothing to wake.
    with clock.use(clock.MovableClock(START)) as moving:
        moving.advance(DAY)


async def test_jobs_are_pruned_when_the_clock_reaches_the_end_of_their_retention(
    url: URL, moving: clock.MovableClock
) -> None:
    async with node(url, retention=Retention(completed=DAY.total_seconds())) as oban:
        job = await oban.enqueue(Noop.new())
        await reaches(oban, job, JobState.COMPLETED)
        moving.advance(days=1, seconds=-1)
        await runner_of(oban).pruner.tick()
        assert await oban.get_job(job.id) is not None
        moving.advance(1)

        async def is_pruned() -> bool:
            return await oban.get_job(job.id) is None

        await eventually(is_pruned)


@pytest.mark.parametrize("days", [400, -4000])
async def test_a_node_keeps_its_jobs_and_its_lead_however_the_clock_is_moved(
    url: URL, moving: clock.MovableClock, days: int
) -> None:
    runs = Runs()
    async with node(url) as oban:
        runner = runner_of(oban)
        job = await oban.enqueue(runs.worker.new())
        await runs.begun(1)
        await eventually(lambda: runner.leader.leads)
        moving.advance(days=days)
        database, options = database_of(oban), oban.options
        assert await database.write(rescue.rescue, options.lease, options.rescue_after) == []
        assert await database.write(rescue.delete_stale_producers, options.lease) == set()
        left = await database.write(cluster.lease_of_another, options.name, "another node")
        assert 0 < left <= options.lease
        assert await database.write(cluster.elect, options.name, "another node", options.lease) is not None
        for service in (runner.lifeline, runner.leader):
            await service.tick()
        assert runner.leader.leads
        assert (await row_of(oban, job)).state == JobState.EXECUTING
        runs.finish(1)
        row = await reaches(oban, job, JobState.COMPLETED)
        assert (row.attempt, len(runs.jobs)) == (1, 1)
        assert row.completed_at == START + timedelta(days=days)


async def test_a_job_of_a_dead_node_is_rescued_when_its_lease_has_passed_by_both_clocks(
    url: URL, moving: clock.MovableClock
) -> None:
    async with Oban(url) as oban:
        job = await oban.enqueue(Noop.new())
        owner = uuid4()
        heartbeat = cluster.Heartbeat(owner, "Oban", "elsewhere", "default", {"lease": 60})
        database = database_of(oban)
        await database.write(cluster.heartbeat, [heartbeat])
        values = {"state": JobState.EXECUTING, "attempt": 1, "attempted_by": ["elsewhere", str(owner)]}
        async with oban.engine.begin() as connection:
            await connection.execute(update(Job).values(attempted_at=moving.now(), **values))
        moving.advance(120)
        assert await database.write(rescue.rescue, 60, 3600) == []
        async with oban.engine.begin() as connection:
            # As if the machine had waited.
            await connection.execute(
                update(Producer).values(updated_at=datetime.now(UTC) - timedelta(seconds=120))
            )
        (rescued,) = await database.write(rescue.rescue, 60, 3600)
        assert rescued.id == job.id


async def test_a_change_of_a_queue_is_visible_to_a_poll_although_the_clock_stands_still(
    oban: Oban, moving: clock.MovableClock
) -> None:
    async def version() -> tuple[int, str | None]:
        return (await database_of(oban).read(poll.poll, "Oban", ())).settings

    await oban.scale_queue("default", limit=3)
    before = await version()

    async def is_newer() -> bool:
        # SQLite has the same version for two commands of one millisecond.
        await oban.scale_queue("default", limit=4)
        return await version() != before

    await eventually(is_newer)
