"""With every driver, the times that the database sets in jobs are those of a clock that the test moves."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from oban import Job, JobState, clock
from tests.drivers.callers import Application
from tests.support.rows import just_now
from tests.support.statements import recorded

#: Neither the machine nor the server is here.
START = datetime(2031, 5, 1, 12, 30, 0, 250_000, UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def moving() -> Iterator[clock.MovableClock]:
    with clock.use(clock.MovableClock(START)) as moving:
        yield moving


def times(*jobs: Job) -> list[tuple[JobState, datetime, datetime]]:
    return [(job.state, job.inserted_at, job.scheduled_at) for job in jobs]


async def test_new_jobs_get_their_times_from_the_clock(
    application: Application, moving: clock.MovableClock
) -> None:
    due_now = (JobState.AVAILABLE, START, START)
    due_later = (JobState.SCHEDULED, START, START + MINUTE)
    one, later = Job(worker="w"), Job(worker="w", schedule_in=60)
    await application.oban.enqueue(one)
    await application.oban.enqueue(later)
    assert times(one, later) == [due_now, due_later]
    many = [Job(worker="w"), Job(worker="w", schedule_in=60), Job(worker="w", scheduled_at=START)]
    await application.oban.enqueue_many(many)
    assert times(*many) == [due_now, due_later, due_now]
    added = [Job(worker="w"), Job(worker="w", schedule_in=60), Job(worker="w")]
    added[2].inserted_at = START - MINUTE
    async with application.session(expire_on_commit=False) as session:
        session.add(*added)
        await session.commit()
        rows = (await session.execute(select(Job).order_by(Job.id))).scalars().all()
        assert times(*rows[:5]) == times(one, later, *many)
        assert times(*rows[5:]) == [due_now, due_later, (JobState.AVAILABLE, START - MINUTE, START)]


async def test_a_statement_that_is_repeated_takes_the_new_time(
    application: Application, moving: clock.MovableClock
) -> None:
    for _ in range(4):
        in_own_transaction, in_session = Job(worker="w"), Job(worker="w")
        await application.oban.enqueue(in_own_transaction)
        async with application.session(expire_on_commit=False) as session:
            await application.oban.enqueue(in_session, session=session.own)
            await session.commit()
        for job in (in_own_transaction, in_session):
            assert times(job) == [(JobState.AVAILABLE, moving.now(), moving.now())]
        moving.advance(hours=1)


async def test_jobs_are_changed_at_the_time_of_the_clock(
    application: Application, moving: clock.MovableClock
) -> None:
    job = Job(worker="w", schedule_in=7200)
    await application.oban.enqueue(job)
    at: Any = moving.advance(hours=1)
    await application.oban.retry_job(job)
    assert (await application.oban.get_job(job.id)).scheduled_at == at
    await application.oban.cancel_job(job)
    assert (await application.oban.get_job(job.id)).cancelled_at == at
    at = moving.advance(hours=1)
    await application.oban.retry_job(job, schedule_in=60)
    assert times(await application.oban.get_job(job.id)) == [(JobState.SCHEDULED, START, at + MINUTE)]
    await application.oban.update_job(job, {"schedule_in": 120})
    assert (await application.oban.get_job(job.id)).scheduled_at == at + 2 * MINUTE
    await application.oban.update_job(job, {"scheduled_at": at})
    assert (await application.oban.get_job(job.id)).state == JobState.AVAILABLE


async def test_the_database_has_its_own_time_before_and_after(application: Application) -> None:
    before, during, after = Job(worker="w"), Job(worker="w"), Job(worker="w")
    began = datetime.now(UTC)
    await application.oban.enqueue(before)
    with clock.use(clock.MovableClock(START)):
        await application.oban.enqueue(during)
    await application.oban.enqueue(after)
    assert during.inserted_at == START
    assert just_now(before.inserted_at, began)
    assert just_now(after.inserted_at, before.inserted_at)


class WrongClock(clock.Clock):
    """The clock of a machine that is an hour fast."""

    def now(self) -> datetime:
        return super().now() + timedelta(hours=1)


async def test_without_a_movable_clock_statements_take_the_time_of_the_database(
    application: Application,
) -> None:
    async def sent() -> list[str]:
        with recorded(application.engine) as statements:
            await application.oban.enqueue(Job(worker="w"))
            await application.oban.enqueue_many([Job(worker="w", schedule_in=60), Job(worker="w")])
            async with application.session() as session:
                session.add(job := Job(worker="w"))
                await session.commit()
                await application.oban.cancel_job(job, session=session.own)
                await application.oban.retry_job(job, session=session.own)
        return statements

    as_usual = await sent()
    with clock.use(clock.MovableClock(START)):
        moved = await sent()
    with clock.use(WrongClock()):
        assert await sent() == as_usual
    assert await sent() == as_usual
    assert len(moved) == len(as_usual)
    assert moved != as_usual
