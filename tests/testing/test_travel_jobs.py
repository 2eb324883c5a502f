"""Schedules, retries, unique periods, periodic jobs and retention follow `travel` in a test's transaction."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oban import Job, JobState, Snooze, Worker
from oban.config import Retention
from oban.repository.prune import prune, rules
from oban.testing import travel
from tests.support.internals import database_of
from tests.testing.applications import Application, Awaited, with_clients

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture(autouse=True)
def at_new_year() -> Iterator[None]:
    with travel(NEW_YEAR):
        yield


class Noop(Worker):
    """Does nothing."""

    async def process(self, job: Job) -> None:
        """Nothing."""


class Fails(Worker, max_attempts=3):
    """Fails, and waits longer each time."""

    async def process(self, job: Job) -> None:
        raise ValueError("no luck")

    def backoff(self, job: Job) -> timedelta:
        return job.attempt * HOUR


class Sleeps(Worker):
    """Snoozes until the next day."""

    def process(self, job: Job) -> Snooze | None:
        return None if job.meta.get("snoozed") else Snooze(DAY)


async def ended(app: Application) -> dict[str, int]:
    """Drain what is due now, and return the counts that are not zero."""
    drained = await app.testing.drain_queue(with_scheduled=False, with_safety=True)
    return {state: count for state, count in drained.items() if count}


@with_clients
async def test_a_scheduled_job_runs_at_its_time(app: Application) -> None:
    in_two_hours = await app.oban.enqueue(Noop.new(schedule_in=2 * HOUR))
    at = await app.oban.enqueue(Noop.new(scheduled_at=NEW_YEAR + DAY))
    assert (in_two_hours.inserted_at, in_two_hours.scheduled_at) == (NEW_YEAR, NEW_YEAR + 2 * HOUR)
    with travel(hours=2) as moving:
        moving.advance(-0.001)
        assert await ended(app) == {}
        moving.advance(0.001)
        assert await ended(app) == {"completed": 1}
        assert (await app.oban.get_job(in_two_hours.id)).completed_at == NEW_YEAR + 2 * HOUR
    await app.testing.assert_enqueued(id=at.id, scheduled_in=DAY)
    with travel(days=1):
        await app.testing.assert_enqueued(id=at.id, scheduled_in=0)
        assert await ended(app) == {"completed": 1}


@with_clients
async def test_a_job_that_fails_is_retried_after_its_backoff(app: Application) -> None:
    job = await app.oban.enqueue(Fails.new())
    seen = []
    with travel() as moving:
        for hours in (0, 0.9, 0.1, 1, 1):
            moving.advance(hours=hours)
            seen.append(await ended(app))
    assert seen == [{"retryable": 1}, {}, {"retryable": 1}, {}, {"discarded": 1}]
    stored = await app.oban.get_job(job.id)
    assert (stored.attempt, stored.discarded_at) == (3, NEW_YEAR + 3 * HOUR)
    times = [datetime.fromisoformat(error["at"]) for error in stored.errors]
    assert times == [NEW_YEAR, NEW_YEAR + HOUR, NEW_YEAR + 3 * HOUR]


@with_clients
async def test_a_snoozed_job_sleeps_until_its_time(app: Application) -> None:
    await app.oban.enqueue(Sleeps.new())
    assert [await ended(app), await ended(app)] == [{"scheduled": 1}, {}]
    with travel(days=1):
        assert await ended(app) == {"completed": 1}


@with_clients
async def test_a_unique_period_ends(app: Application) -> None:
    async def enqueue() -> Job:
        job: Job = await app.oban.enqueue(Noop.new(unique={"period": 3600}))
        return job

    first = await enqueue()
    with travel() as moving:
        moving.advance(minutes=59, seconds=59)
        assert (await enqueue()).id == first.id
        moving.advance(seconds=2)
        assert not (second := await enqueue()).conflict
        assert (await enqueue()).id == second.id


@with_clients(name="Cron")
async def test_a_periodic_job_is_inserted_and_run_each_day(app: Application, own_registry: None) -> None:
    class Nightly(Worker, oban="Cron", cron="0 3 * * *", timezone="Europe/Berlin"):
        async def process(self, job: Job) -> None:
            """Nothing."""

    inserted = []
    with travel() as moving:
        for hours in (0, 1, 1, 1, 20, 1, 1, 1):
            moving.advance(hours=hours)
            inserted += await app.testing.insert_periodic_jobs()
            await ended(app)
    ran = [await app.oban.get_job(job.id) for job in inserted]
    assert [job.worker for job in ran] == [Nightly.worker_name] * 2
    # In winter, this zone is an hour ahead of UTC.
    assert [job.completed_at for job in ran] == [NEW_YEAR + 2 * HOUR, NEW_YEAR + DAY + 2 * HOUR]


@with_clients
async def test_a_job_is_pruned_after_its_retention(app: Application) -> None:
    job = await app.oban.enqueue(Noop.new())
    client: Any = app.client
    database = Awaited(database_of(client))

    async def pruned() -> int:
        return sum([await database.run(None, prune, rule, 10) for rule in rules(Retention())])

    assert [await ended(app), await pruned()] == [{"completed": 1}, 0]
    with travel(hours=23.9):
        assert await pruned() == 0
    with travel(days=1):
        assert [await pruned(), await app.oban.get_job(job.id)] == [1, None]


@with_clients
async def test_times_of_a_ticking_clock_go_on(app: Application) -> None:
    with travel(days=1, ticking=True):
        job = await app.oban.enqueue(Noop.new())
        assert await ended(app) == {"completed": 1}
    stored = await app.oban.get_job(job.id)
    assert NEW_YEAR + DAY <= job.inserted_at <= stored.attempted_at <= stored.completed_at
    assert (stored.state, stored.completed_at < NEW_YEAR + DAY + HOUR) == (JobState.COMPLETED, True)
