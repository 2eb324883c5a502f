"""However many connections or processes insert jobs of the same keys, one of each key is in the table."""

import asyncio
import os
import random
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import URL, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from oban import Job, Oban, UniqueConflict
from oban.repository import unique_keys
from tests.faults.unique_workers import INSERTS, KEYS, Alone, Once
from tests.support.internals import database_of
from tests.support.rows import TABLE
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

CONNECTIONS = 16
PROCESSES = 8
#: For how many seconds at least the states of jobs change while others insert.
TORTURE = 5.0

#: Inserts jobs of some keys in a transaction that may be rolled back; returns how many were new.
Insert = Callable[[Oban, list[int]], Coroutine[Any, Any, int]]


def jobs_of(keys: list[int]) -> list[Job]:
    return [Once.new({"key": key}) for key in keys]


async def enqueue_one_by_one(oban: Oban, keys: list[int]) -> int:
    return sum([not (await oban.enqueue(job)).conflict for job in jobs_of(keys)])


async def enqueue_together(oban: Oban, keys: list[int]) -> int:
    return sum(not job.conflict for job in await oban.enqueue_many(jobs_of(keys)))


async def enqueue_in_session(oban: Oban, keys: list[int]) -> int:
    async with AsyncSession(oban.engine) as session, session.begin():
        # In one order everywhere, as the keys stay locked until the end of the transaction.
        enqueued = [await oban.enqueue(job, session=session) for job in jobs_of(sorted(keys))]
        return sum(not job.conflict for job in enqueued)


async def add_to_session(oban: Oban, keys: list[int]) -> int:
    new = 0
    for job in jobs_of(keys):
        async with AsyncSession(oban.engine) as session:
            session.add(job)
            try:
                await session.commit()
                new += 1
            except UniqueConflict:
                pass
    return new


async def execute_insert(oban: Oban, keys: list[int]) -> int:
    new = 0
    for key in keys:
        async with AsyncSession(oban.engine) as session:
            try:
                await session.execute(insert(Job).values(worker=Once.worker_name, args={"key": key}))
                await session.commit()
                new += 1
            except UniqueConflict:
                pass
    return new


async def roll_back(oban: Oban, keys: list[int]) -> int:
    async with AsyncSession(oban.engine) as session:
        await oban.enqueue_many(jobs_of(keys), session=session)
        await session.rollback()
    return 0


WAYS: dict[str, list[Insert]] = {
    "single": [enqueue_one_by_one],
    "bulk": [enqueue_together],
    "mixed": [
        *(enqueue_one_by_one, enqueue_together, enqueue_in_session),
        *(add_to_session, execute_insert, roll_back),
    ],
}


@pytest.mark.parametrize("ways", WAYS)
async def test_sixteen_connections_leave_one_job_of_each_key(
    postgresql_url: URL, ways: str, rng: random.Random
) -> None:
    engine = create_async_engine(postgresql_url, pool_size=CONNECTIONS, max_overflow=0)
    async with Oban(engine) as oban:

        async def connection(rng: random.Random) -> int:
            new, left = 0, INSERTS * (5 if ways == "bulk" else 1)
            while left > 0:
                # The whole set of keys in each batch is the hardest case for their locks.
                size = KEYS if ways == "bulk" else rng.choice([1, 2, 5])
                keys = rng.sample(range(KEYS), min(size, left))
                new += await rng.choice(WAYS[ways])(oban, keys)
                left -= len(keys)
            return new

        seeds = [random.Random(rng.random()) for _ in range(CONNECTIONS)]
        new = await asyncio.gather(*map(connection, seeds))
        async with engine.connect() as reader:
            rows, keys = (
                await reader.execute(select(func.count(), func.count(TABLE.c.unique_key.distinct())))
            ).one()
    await engine.dispose()
    assert (sum(new), rows, keys) == (KEYS, KEYS, KEYS)


async def test_eight_processes_leave_one_job_of_each_key(sqlite_url: URL, rng: random.Random) -> None:
    url = sqlite_url.set(drivername="sqlite").render_as_string()
    command = [sys.executable, "-m", "tests.faults.unique_workers", url]
    processes = [
        await asyncio.create_subprocess_exec(
            *command, str(rng.random()), stdout=asyncio.subprocess.PIPE, env=os.environ
        )
        for _ in range(PROCESSES)
    ]
    outputs = [(await process.communicate())[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES
    async with Oban(sqlite_url) as oban:
        stored = {job.args["key"] for job in await oban.list_jobs()}
    assert sum(map(int, outputs)) == KEYS
    assert len(stored) == KEYS


@pytest.mark.parametrize("adds", [False, True])
async def test_more_unique_jobs_than_the_server_has_locks_fit_into_one_transaction(
    postgresql_url: URL, adds: bool
) -> None:
    # The table of locks has room for some ten thousand.
    jobs = jobs_of([*range(20_000)])
    async with Oban(postgresql_url) as oban, AsyncSession(oban.engine) as session:
        if adds:
            session.add_all(jobs)
            await session.flush()
        else:
            await oban.enqueue_many(jobs, session=session)
        locks = "pg_locks WHERE pid = pg_backend_pid()"
        # Locks of rows are stored in the rows: the table of locks has a fixed size.
        assert (await session.execute(select(func.count()).select_from(text(locks)))).scalar_one() < 50
        await session.commit()
        stored = (await session.execute(select(func.count()).select_from(TABLE))).scalar_one()
    assert stored == len(jobs)


@pytest.mark.timeout(120)
async def test_no_two_incomplete_jobs_of_a_key_while_jobs_end_are_deleted_retried_and_cleaned(
    postgresql_url: URL, rng: random.Random
) -> None:
    """Jobs of twelve keys are inserted in every way while others complete, delete and retry them."""
    engine = create_async_engine(postgresql_url, pool_size=CONNECTIONS, max_overflow=0)
    done = asyncio.Event()
    counts = dict.fromkeys(("new", "conflicts", "ended", "deleted", "retried", "keys"), 0)
    duplicates: list[Any] = []
    incomplete = TABLE.c.state.in_(["available", "scheduled", "executing", "retryable", "suspended"])

    async def insert_jobs(oban: Oban, rng: random.Random) -> None:
        while not done.is_set():
            keys = rng.sample(range(12), rng.choice([1, 1, 1, 4]))
            jobs = await oban.enqueue_many([Alone.new({"key": key}) for key in keys])
            conflicts = sum(job.conflict for job in jobs)
            counts["conflicts"] += conflicts
            counts["new"] += len(jobs) - conflicts

    async def add_jobs(oban: Oban, rng: random.Random) -> None:
        while not done.is_set():
            async with AsyncSession(oban.engine) as session:
                session.add(Alone.new({"key": rng.randrange(12)}))
                try:
                    await session.flush()
                    if rng.random() < 0.5:
                        await session.commit()
                        counts["new"] += 1
                except UniqueConflict:
                    counts["conflicts"] += 1

    async def end_jobs(oban: Oban, rng: random.Random) -> None:
        while not done.is_set():
            some = select(TABLE.c.id).where(incomplete).order_by(func.random()).limit(3)
            async with oban.engine.begin() as connection:
                ended = await connection.execute(
                    TABLE.update()
                    .where(TABLE.c.id.in_(some.with_for_update(skip_locked=True)))
                    .values(state=rng.choice(["completed", "discarded"]), completed_at=func.now())
                )
                counts["ended"] += ended.rowcount

    async def delete_jobs(oban: Oban, rng: random.Random) -> None:
        while not done.is_set():
            statement = select(Job).where(~incomplete).limit(30)
            counts["deleted"] += await oban.delete_many_jobs(statement)
            await asyncio.sleep(0.01)

    async def retry_jobs(oban: Oban, rng: random.Random) -> None:
        while not done.is_set():
            statement = select(Job).where(~incomplete).order_by(func.random()).limit(3)
            counts["retried"] += await oban.retry_many_jobs(statement)

    async def clean(oban: Oban, rng: random.Random) -> None:
        database = database_of(oban)
        while not done.is_set():
            keys = await database.read(unique_keys.keys_after, "")
            await database.write(unique_keys.delete_keys, keys)
            left = await database.read(unique_keys.keys_after, "")
            counts["keys"] += len(set(keys) - set(left))
            await asyncio.sleep(0.01)

    async def judge(oban: Oban, rng: random.Random) -> None:
        count = (
            select(TABLE.c.unique_key, func.count())
            .where(incomplete)
            .group_by(TABLE.c.unique_key)
            .having(func.count() > 1)
        )
        while not done.is_set():
            async with oban.engine.connect() as connection:
                duplicates.extend((await connection.execute(count)).all())

    async with Oban(engine) as oban:
        roles = [*[insert_jobs] * 8, *[add_jobs] * 2, *[end_jobs] * 2, delete_jobs, retry_jobs, clean, judge]
        tasks = [asyncio.create_task(role(oban, random.Random(rng.random()))) for role in roles]
        await asyncio.wait(tasks, timeout=TORTURE, return_when=asyncio.FIRST_EXCEPTION)
        # A slow machine can need longer until each of them has happened.
        await eventually(lambda: min(counts.values()) > 0 or any(task.done() for task in tasks), 60)
        done.set()
        await asyncio.gather(*tasks)
    await engine.dispose()
    print(counts)
    assert duplicates == []
    assert min(counts.values()) > 0
