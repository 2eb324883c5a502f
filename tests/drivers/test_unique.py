"""Unique jobs through every driver, and in a schema of their own."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from oban import Job, Oban, migration
from tests.drivers.callers import Application
from tests.support.databases import PostgreSQLFactory
from tests.support.unique_jobs import unique_job

AT = datetime(2031, 2, 3, 4, 5, 6, 789000, tzinfo=UTC)


async def test_every_driver_sends_the_parameters_of_unique_jobs(application: Application) -> None:
    oban = application.oban
    fields: dict[str, Any] = {"tags": ["a"], "meta": {"m": 1.5}, "priority": 2, "queue": "media"}
    rule = {"period": 3600, "timestamp": "scheduled_at"}
    for _ in range(2):
        first = await oban.enqueue(unique_job(1, rule, scheduled_at=AT, **fields))
        delayed = await oban.enqueue(unique_job(2, rule, schedule_in=90.5))
        several = await oban.enqueue_many(
            [unique_job(1, rule, **fields), unique_job(3, rule), Job(worker="plain"), unique_job(3, rule)]
        )
        assert several[0].id == first.id
        assert several[3].id == several[1].id
    assert first.conflict
    assert delayed.conflict
    assert several[1].conflict
    assert not several[2].conflict
    row = await oban.get_job(first.id)
    assert {name: getattr(row, name) for name in fields} == fields
    assert (row.scheduled_at, row.unique_key) == (AT, first.unique_key)
    moved = await oban.enqueue(
        unique_job(2, rule, schedule_in=3600, replace=["scheduled_at", "tags", "args"])
    )
    assert moved.id == delayed.id
    assert moved.scheduled_at > delayed.scheduled_at
    async with application.session() as session:
        inside = await oban.enqueue(unique_job(2, rule), session=session.own)
        assert inside.id == delayed.id
        await session.commit()


@pytest.fixture
def factory(request: pytest.FixtureRequest) -> object:
    """PostgreSQL only, as SQLite has no schemas."""
    return request.getfixturevalue("asyncpg_factory")


@pytest.fixture
def private(url: URL) -> URL:
    """A database with the tables both in `public` and in a schema."""
    migration.upgrade(url, prefix="private")
    return url


@pytest.mark.parametrize("mapped", [False, True])
async def test_a_job_is_unique_within_its_schema(private: URL, mapped: bool) -> None:
    options = {"schema_translate_map": {None: "private"}} if mapped else {}
    engine = create_async_engine(private, execution_options=options)
    public, oban = Oban(private), Oban(engine, prefix=None if mapped else "private")
    await public.enqueue_many([unique_job(n) for n in range(3)])
    rule = {"period": 60}
    for conflict in (False, True):
        jobs = [await oban.enqueue(unique_job(0, rule, replace=["priority"]))]
        jobs += await oban.enqueue_many([unique_job(1, rule), unique_job(2, rule)])
        async with AsyncSession(engine) as session, session.begin():
            jobs.append(await oban.enqueue(unique_job(3, rule), session=session))
            jobs.append((await oban.enqueue_many([unique_job(4), unique_job(5, rule)], session=session))[0])
        assert [job.conflict for job in jobs] == [conflict] * 5
    async with engine.connect() as connection:
        tables = (
            "public.oban_jobs",
            "public.oban_unique_keys",
            "private.oban_jobs",
            "private.oban_unique_keys",
        )
        counts = [
            (await connection.execute(text(f"SELECT count(*) FROM {name}"))).scalar_one() for name in tables
        ]
    assert counts == [3, 3, 6, 6]
    await engine.dispose()
    await public.engine.dispose()


async def test_a_schema_is_enough_for_unique_jobs(asyncpg_factory: PostgreSQLFactory) -> None:
    url = asyncpg_factory.create(empty=True)
    migration.upgrade(url, prefix="private")
    oban = Oban(url, prefix="private")
    rule = {"period": 60}
    first = [await oban.enqueue(unique_job(0, rule)), *await oban.enqueue_many([unique_job(1, rule)])]
    again = [await oban.enqueue(unique_job(0, rule)), *await oban.enqueue_many([unique_job(1, rule)])]
    assert [(job.id, job.conflict) for job in again] == [(job.id, True) for job in first]
    await oban.engine.dispose()
    asyncpg_factory.drop(url)
