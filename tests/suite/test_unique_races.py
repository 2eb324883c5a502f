"""Callers that enqueue the same unique job at the same time."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import URL, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from oban import Job, Oban
from tests.support.databases import DATABASES
from tests.support.locks import waits_for_lock
from tests.support.rows import TABLE
from tests.support.statements import recorded
from tests.support.unique_jobs import unique_job
from tests.support.waiting import eventually

KEYS = range(4)
CALLERS = 8


async def count_rows(engine: AsyncEngine) -> tuple[int, int]:
    statement = select(func.count(), func.count(TABLE.c.unique_key.distinct()))
    async with engine.connect() as connection:
        rows, keys = (await connection.execute(statement)).one()
        return rows, keys


@pytest.fixture
async def callers(url: URL) -> AsyncIterator[list[Oban]]:
    """Clients with connections of their own."""
    clients = [Oban(url) for _ in range(CALLERS)]
    yield clients
    await asyncio.gather(*(client.engine.dispose() for client in clients))


async def test_callers_at_once_insert_each_job_once(callers: list[Oban], rng: random.Random) -> None:
    async def call(oban: Oban) -> list[Job]:
        jobs: list[Job] = []
        for n in rng.sample(KEYS, len(KEYS)):
            jobs.append(await oban.enqueue(unique_job(n)))
            jobs += await oban.enqueue_many([unique_job(n) for n in rng.sample(KEYS, 3)])
            jobs += await oban.enqueue_many([unique_job(n + 10) for n in rng.sample(KEYS, 3)])
        return jobs

    jobs = [job for called in await asyncio.gather(*map(call, callers)) for job in called]
    rows, keys = await count_rows(callers[0].engine)
    assert rows == keys == sum(not job.conflict for job in jobs)
    assert len({(job.id, job.args["n"]) for job in jobs}) == rows


async def test_callers_of_several_batches_wait_for_each_other(callers: list[Oban]) -> None:
    numbers = range(1100)
    calls = (
        oban.enqueue_many([unique_job(n) for n in (numbers if even else reversed(numbers))])
        for even, oban in enumerate(callers[:2])
    )
    first, second = await asyncio.gather(*calls)
    assert (await count_rows(callers[0].engine)) == (1100, 1100)
    assert {job.conflict for job in first} != {job.conflict for job in second}


@pytest.fixture(params=[each for each in DATABASES if each != "sqlite"])
def server(request: pytest.FixtureRequest) -> Iterator[URL]:
    """A database whose transactions can write at the same time."""
    factory = request.getfixturevalue(f"{request.param}_factory")
    made: URL = factory.create()
    yield made
    factory.drop(made)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("commits", [False, True])
async def test_the_loser_waits_for_the_end_of_the_other_transaction(
    server: URL, commits: bool, many: bool
) -> None:
    engine = create_async_engine(server)
    oban, other = Oban(engine), Oban(server)
    async with engine.connect() as connection:
        first = await oban.enqueue(unique_job(), session=connection)
        jobs = [unique_job(), Job(worker="plain"), unique_job(2)] if many else [unique_job()]
        waiting = asyncio.create_task(other.enqueue_many(jobs))
        await eventually(lambda: waits_for_lock(engine))
        await (connection.commit() if commits else connection.rollback())
    await waiting
    assert jobs[0].conflict is commits
    if commits:
        assert jobs[0].id == first.id
    assert [job.conflict for job in jobs[1:]] == [False] * (len(jobs) - 1)
    ids = [job.id for job in jobs]
    assert ids == sorted(set(ids))
    async with engine.connect() as connection:
        stored = (await connection.execute(select(func.count()).select_from(TABLE))).scalar_one()
    assert stored == len(jobs)
    await engine.dispose()
    await other.engine.dispose()


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("many", [False, True])
async def test_an_old_snapshot_gets_a_serialization_failure_rather_than_a_duplicate(
    server: URL, level: str, many: bool
) -> None:
    engine = create_async_engine(server, isolation_level=level)
    oban, other = Oban(engine), Oban(server)
    seen = await other.enqueue(unique_job("seen"))
    async with engine.connect() as connection:
        await connection.execute(select(TABLE.c.id))
        await other.enqueue(unique_job())
        assert (await oban.enqueue(unique_job("seen"), session=connection)).id == seen.id
        jobs = [unique_job(), unique_job(2)] if many else [unique_job()]
        with pytest.raises(DBAPIError, match="could not serialize"):
            await oban.enqueue_many(jobs, session=connection)
    assert not jobs[0].conflict
    assert jobs[0].id is None
    assert await count_rows(engine) == (2, 2)
    await engine.dispose()
    await other.engine.dispose()


@pytest.mark.parametrize("many", [False, True])
async def test_a_job_that_gets_another_key_meanwhile_is_not_replaced(server: URL, many: bool) -> None:
    engine = create_async_engine(server)
    oban, other = Oban(engine), Oban(server)
    stored = await oban.enqueue(unique_job(1))
    async with engine.connect() as connection:
        await oban.update_job(stored.id, {"args": {"n": 2}}, session=connection)
        jobs = [unique_job(1, replace=["args", "priority"], priority=5), *[unique_job(3)] * many]
        waiting = asyncio.create_task(other.enqueue_many(jobs))
        await eventually(lambda: waits_for_lock(engine))
        await connection.commit()
    await waiting
    assert [job.conflict for job in jobs] == [False] * len(jobs)
    updated = await oban.get_job(stored.id)
    assert updated is not None
    assert (updated.args, updated.priority) == ({"n": 2}, 0)
    assert await count_rows(engine) == (1 + len(jobs), 1 + len(jobs))
    await engine.dispose()
    await other.engine.dispose()


@pytest.mark.parametrize("size", [1, 2, 1000])
async def test_a_call_of_one_batch_is_one_statement(server: URL, size: int) -> None:
    engine = create_async_engine(server)
    oban = Oban(engine)
    for conflict in (False, True):
        jobs = [unique_job(n) for n in range(size)]
        duplicates = [unique_job(0)] if size > 1 else []
        with recorded(engine) as statements:
            await oban.enqueue_many([*jobs, *duplicates])
        assert [sql.split()[0] for sql in statements] == ["WITH"]
        assert {job.conflict for job in jobs} == {conflict}
        assert all(job.conflict for job in duplicates)
    await engine.dispose()
