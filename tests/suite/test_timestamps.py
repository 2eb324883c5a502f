"""Times in the database are UTC, even if the machine is in New York and the server in Calcutta."""

import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import URL, select, text, update
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from oban import Job, Oban, Worker
from tests.support.databases import Factory
from tests.support.rows import just_now, read_rows, shown
from tests.support.waiting import eventually

NEW_YORK = ZoneInfo("America/New_York")
AHEAD = datetime(2077, 3, 14, 1, 59, 26, 535897, tzinfo=UTC)
AHEAD_TEXT = "2077-03-14 01:59:26.535897"
ENDS = ("completed_at", "cancelled_at", "discarded_at")


class Fails(Worker, max_attempts=1):
    async def process(self, job: Job) -> None:
        raise ValueError("out of tea")


class Completes(Worker):
    async def process(self, job: Job) -> None: ...


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine, in New York."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(params=["sqlite", "asyncpg", "psycopg"])
async def oban(request: pytest.FixtureRequest, new_york: None) -> AsyncIterator[Oban]:
    """A client in New York, and a database in Calcutta if it has a time zone."""
    name = "sqlite" if request.param == "sqlite" else "postgresql"
    factory: Factory = request.getfixturevalue(f"{name}_factory")
    url: URL = factory.create()
    if name == "postgresql":
        url = url.set(drivername=f"postgresql+{request.param}")
        async with Oban(url) as client, client.engine.begin() as connection:
            await connection.execute(text(f"ALTER DATABASE {url.database} SET timezone = 'Asia/Kolkata'"))
    async with Oban(url) as client:
        yield client
    factory.drop(url)


async def stored(engine: AsyncEngine, id_: int) -> dict[str, str | None]:
    """The times of a row as the database formats them."""
    columns = ("inserted_at", "scheduled_at", "attempted_at", *ENDS)
    listed = ", ".join(f"CAST({column} AS text) AS {column}" for column in columns)
    async with engine.connect() as connection:
        found = await connection.execute(text(f"SELECT {listed} FROM oban_jobs WHERE id = {id_}"))
        return dict(found.mappings().one())


def moment(value: str | None) -> datetime:
    """A time that the database formatted, read as UTC."""
    assert value is not None
    return datetime.fromisoformat(value).replace(tzinfo=UTC)


async def test_the_fixtures_set_the_zones_of_machine_and_server(oban: Oban) -> None:
    assert time.timezone == 5 * 3600
    if oban.engine.dialect.name == "postgresql":
        async with oban.engine.connect() as connection:
            assert (await connection.execute(text("SHOW timezone"))).scalar_one() == "Asia/Kolkata"


async def test_a_job_for_now_is_stamped_with_the_current_time_in_utc(oban: Oban) -> None:
    job = await oban.enqueue(Completes.new())
    times = await stored(oban.engine, job.id)
    assert job.state == "available"
    for column in ("inserted_at", "scheduled_at"):
        assert just_now(getattr(job, column))
        assert moment(times[column]) == getattr(job, column)
    assert shown(job) == (await read_rows(oban.engine))[job.id]


@pytest.mark.parametrize("zone", [UTC, NEW_YORK, ZoneInfo("Pacific/Kiritimati")], ids=str)
async def test_a_time_is_the_same_instant_everywhere(oban: Oban, zone: Any) -> None:
    one = await oban.enqueue(Completes.new(scheduled_at=AHEAD.astimezone(zone)))
    (two,) = await oban.enqueue_many([Completes.new(scheduled_at=AHEAD.astimezone(zone))])
    three = await oban.update_job(
        await oban.enqueue(Completes.new()), {"scheduled_at": AHEAD.astimezone(zone)}
    )
    for job in (one, two, three):
        assert (job.state, job.scheduled_at) == ("scheduled", AHEAD)
        assert (await stored(oban.engine, job.id))["scheduled_at"] == AHEAD_TEXT
        found = await oban.get_job(job.id)
        assert found is not None
        assert found.scheduled_at == AHEAD
        assert found.scheduled_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize("hours", [1, -1])
async def test_one_hour_from_now_is_compared_in_utc(oban: Oban, hours: int) -> None:
    # Less than the offset of either zone.
    at = datetime.now(UTC) + timedelta(hours=hours)
    expected = "scheduled" if hours > 0 else "available"
    inserted = await oban.enqueue(Completes.new(scheduled_at=at))
    assert inserted.state == expected
    other = Completes.new(scheduled_at=datetime.now(UTC) - timedelta(hours=hours))
    updated = await oban.update_job(await oban.enqueue(other), {"scheduled_at": at})
    assert updated.state == expected
    assert inserted.scheduled_at == updated.scheduled_at == at


async def test_a_delay_counts_from_now(oban: Oban) -> None:
    delay = timedelta(minutes=90)
    inserted = await oban.enqueue(Completes.new(schedule_in=delay))
    updated = await oban.update_job(await oban.enqueue(Completes.new()), {"schedule_in": delay})
    for job in (inserted, updated):
        assert job.state == "scheduled"
        assert just_now(job.scheduled_at - delay)
        assert moment((await stored(oban.engine, job.id))["scheduled_at"]) == job.scheduled_at
    due = await oban.update_job(inserted, {"schedule_in": 0})
    assert due.state == "available"
    assert just_now(due.scheduled_at)


async def test_an_update_of_another_field_leaves_the_times_unchanged(oban: Oban) -> None:
    job = await oban.enqueue(Completes.new())
    before = await stored(oban.engine, job.id)
    await oban.update_job(job, {"priority": 1})
    await oban.update_job(job, lambda job: {"scheduled_at": job.scheduled_at})
    assert await stored(oban.engine, job.id) == before
    assert job.state == "available"


async def test_cancel_and_retry_stamp_the_current_time(oban: Oban) -> None:
    job = await oban.enqueue(Completes.new(scheduled_at=AHEAD))
    await oban.cancel_job(job)
    assert just_now(job.cancelled_at)
    assert moment((await stored(oban.engine, job.id))["cancelled_at"]) == job.cancelled_at
    await oban.retry_job(job)
    assert just_now(job.scheduled_at)
    assert moment((await stored(oban.engine, job.id))["scheduled_at"]) == job.scheduled_at


async def test_the_orm_flushes_the_same_times(oban: Oban) -> None:
    async with AsyncSession(oban.engine, expire_on_commit=False) as session:
        now, later, delayed = (
            Completes.new(),
            Completes.new(scheduled_at=AHEAD),
            Completes.new(schedule_in=5400),
        )
        session.add_all([now, later, delayed])
        await session.commit()
        for job in (now, later, delayed):
            assert just_now(job.inserted_at)
            assert moment((await stored(oban.engine, job.id))["inserted_at"]) == job.inserted_at
        assert just_now(now.scheduled_at)
        assert (later.state, later.scheduled_at) == ("scheduled", AHEAD)
        assert (await stored(oban.engine, later.id))["scheduled_at"] == AHEAD_TEXT
        assert delayed.state == "scheduled"
        assert just_now(delayed.scheduled_at - timedelta(minutes=90))
        now.scheduled_at = AHEAD.astimezone(NEW_YORK)
        await session.commit()
        assert (await stored(oban.engine, now.id))["scheduled_at"] == AHEAD_TEXT
        await session.refresh(now)
        assert now.scheduled_at == AHEAD


async def test_a_select_compares_instants(oban: Oban) -> None:
    at = datetime.now(UTC) + timedelta(hours=2)
    job = await oban.enqueue(Completes.new(scheduled_at=at))
    instant = timedelta(microseconds=1)
    for zone in (UTC, NEW_YORK, ZoneInfo("Asia/Kolkata")):
        there = at.astimezone(zone)
        conditions = {
            Job.scheduled_at == there: True,
            Job.scheduled_at < there: False,
            Job.scheduled_at <= there: True,
            Job.scheduled_at > there - instant: True,
            Job.scheduled_at.between(there + instant, there + timedelta(1)): False,
            Job.scheduled_at.in_([there]): True,
            Job.inserted_at <= datetime.now(zone): True,
            Job.inserted_at > datetime.now(zone) - timedelta(minutes=5): True,
        }
        for condition, holds in conditions.items():
            found = [item.id for item in await oban.list_jobs(select(Job).where(condition))]
            assert found == ([job.id] if holds else []), str(condition)
    with pytest.raises(StatementError, match="a time must carry a time zone"):
        await oban.list_jobs(select(Job).where(Job.scheduled_at < datetime.now()))


async def test_a_run_is_stamped_with_the_current_time(oban: Oban) -> None:
    jobs = await oban.enqueue_many(Completes.new(), Fails.new(), Completes.new(schedule_in=0.2))
    async with Oban(oban.engine, queues={"default": 5}):

        async def ended() -> dict[int, dict[str, Any]] | None:
            rows = await read_rows(oban.engine)
            return rows if all(any(item[end] for end in ENDS) for item in rows.values()) else None

        rows = await eventually(ended)
    states = [rows[job.id]["state"] for job in jobs]
    assert states == ["completed", "discarded", "completed"]
    for job, end in zip(jobs, ("completed_at", "discarded_at", "completed_at"), strict=True):
        times = await stored(oban.engine, job.id)
        for column in ("attempted_at", end):
            assert just_now(rows[job.id][column])
            assert moment(times[column]) == rows[job.id][column]
        assert rows[job.id]["inserted_at"] <= rows[job.id]["attempted_at"] <= rows[job.id][end]
    assert rows[jobs[2].id]["attempted_at"] >= rows[jobs[2].id]["scheduled_at"]
    (entry,) = rows[jobs[1].id]["errors"]
    assert just_now(datetime.fromisoformat(entry["at"]))


async def test_in_a_long_transaction_a_job_is_stamped_with_the_current_time(oban: Oban) -> None:
    async with AsyncSession(oban.engine, expire_on_commit=False) as session:
        await session.execute(text("SELECT 1"))
        begun = datetime.now(UTC)
        await eventually(lambda: datetime.now(UTC) > begun + timedelta(milliseconds=50))
        since = datetime.now(UTC)
        if oban.engine.dialect.name == "postgresql":
            await session.execute(text("SET timezone TO 'America/Caracas'"))
        job = await oban.enqueue(Completes.new(), session=session)
        cancelled = await oban.enqueue(Completes.new(schedule_in=60), session=session)
        await oban.cancel_job(cancelled, session=session)
        updated = await oban.enqueue(Completes.new(), session=session)
        await oban.update_job(updated, {"schedule_in": 30}, session=session)
        await session.commit()
    assert just_now(job.inserted_at, since)
    assert just_now(job.scheduled_at, since)
    assert just_now(cancelled.cancelled_at, since)
    assert just_now(cancelled.scheduled_at - timedelta(seconds=60), since)
    assert just_now(updated.scheduled_at - timedelta(seconds=30), since)
    assert (job.state, cancelled.state, updated.state) == ("available", "cancelled", "scheduled")


# SQLite has no intervals.
@pytest.mark.parametrize("oban", ["asyncpg", "psycopg"], indirect=True)
async def test_times_and_intervals_can_be_used_in_expressions_on_postgresql(oban: Oban) -> None:
    job = await oban.enqueue(Completes.new(scheduled_at=AHEAD))
    hour = timedelta(hours=1)
    near = select(Job).where(Job.scheduled_at - hour < AHEAD, Job.scheduled_at < AHEAD + hour)
    assert [found.id for found in await oban.list_jobs(near)] == [job.id]
    async with AsyncSession(oban.engine) as session:
        await session.execute(update(Job).values(scheduled_at=Job.scheduled_at - hour))
        await session.commit()
        found = (await session.execute(select(Job.scheduled_at, Job.scheduled_at + hour))).one()
    assert tuple(found) == (AHEAD - hour, AHEAD)
