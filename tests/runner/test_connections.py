"""A node opens the documented number of connections, as the application's engine does, and closes them."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import URL, NullPool, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from oban import JobState, Oban
from tests.support.databases import ADMINISTRATOR
from tests.support.internals import producer_of
from tests.support.jobs import reaches
from tests.support.options import BRIEF
from tests.support.waiting import eventually
from tests.support.workers import Noop

CONNECTIONS = (
    f"FROM pg_stat_activity WHERE datname = current_database() AND application_name <> '{ADMINISTRATOR}'"
)
COUNT = text(f"SELECT count(*) {CONNECTIONS} AND pid <> pg_backend_pid() AND backend_type = 'client backend'")
NAMES = text(f"SELECT DISTINCT application_name {CONNECTIONS}")


async def connections(watch: AsyncEngine) -> int:
    async with watch.connect() as connection:
        return int((await connection.execute(COUNT)).scalar_one())


@pytest.fixture
async def watch(postgresql_url: URL) -> Any:
    """An engine for observing the server, which keeps no connection open."""
    engine = create_async_engine(postgresql_url, poolclass=NullPool)
    yield engine
    await engine.dispose()


@pytest.mark.parametrize(("queues", "most"), [(1, 6), (3, 10), (20, 12)])
async def test_a_node_of_n_queues_opens_no_more_connections_than_documented(
    postgresql_url: URL, watch: AsyncEngine, queues: int, most: int
) -> None:
    names = [f"queue-{number}" for number in range(queues)]
    client = Oban(postgresql_url, name="client")
    async with Oban(postgresql_url, queues=dict.fromkeys(names, 20), **BRIEF):
        jobs = await client.enqueue_many([Noop.new(queue=names[n % queues]) for n in range(200)])
        await client.stop()
        peak = 0

        async def done() -> bool:
            nonlocal peak
            peak = max(peak, await connections(watch))
            async with watch.connect() as connection:
                left = text("SELECT count(*) FROM oban_jobs WHERE state <> 'completed'")
                return bool((await connection.execute(left)).scalar_one() == 0)

        await eventually(done, timeout=20)
        assert len(jobs) == 200
        assert 2 < peak <= most


async def test_nothing_is_left_after_a_stop(postgresql_url: URL, watch: AsyncEngine) -> None:
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    engine = create_async_engine(postgresql_url)
    async with Oban(engine, queues={"default": 5, "other": 2}, **BRIEF) as oban:
        for job in await oban.enqueue_many([Noop.new() for _ in range(20)]):
            await reaches(oban, job, JobState.COMPLETED)
    assert asyncio.all_tasks() == tasks
    assert set(threading.enumerate()) == threads
    # The application's pool stays open.
    assert engine.pool.checkedin() >= 1  # type: ignore[attr-defined]
    await engine.dispose()
    await eventually(lambda: is_zero(connections(watch)))


async def is_zero(count: Any) -> bool:
    return bool(await count == 0)


async def test_nothing_is_left_after_a_stop_on_sqlite(sqlite_url: URL) -> None:
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    async with Oban(sqlite_url, queues={"default": 5, "other": 2}, **BRIEF) as oban:
        for job in await oban.enqueue_many([Noop.new() for _ in range(20)]):
            await reaches(oban, job, JobState.COMPLETED)
    assert asyncio.all_tasks() == tasks
    await eventually(lambda: set(threading.enumerate()) == threads)


def by_arguments(url: URL) -> AsyncEngine:
    name = (
        {"server_settings": {"application_name": "mine"}}
        if "asyncpg" in url.drivername
        else {"application_name": "mine"}
    )
    return create_async_engine(url, connect_args=name)


def by_event(url: URL) -> AsyncEngine:
    engine = create_async_engine(url, poolclass=NullPool)

    @event.listens_for(engine.sync_engine, "connect")
    def named(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("SET application_name = 'mine'")
        cursor.close()
        connection.commit()

    return engine


@pytest.mark.parametrize("make", [by_arguments, by_event])
async def test_the_runner_connects_as_the_engine_of_the_application_does(
    postgresql_url: URL, make: Callable[[URL], AsyncEngine]
) -> None:
    engine = make(postgresql_url)
    async with Oban(engine, queues={"default": 1}, **BRIEF) as oban:
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)

        async def all_have_the_name() -> bool:
            async with engine.connect() as connection:
                return set((await connection.execute(NAMES)).scalars()) == {"mine"}

        # A connection that is being opened has no name yet.
        await eventually(all_have_the_name)
    await engine.dispose()


async def test_an_application_that_holds_all_its_connections_does_not_stop_its_runner(
    postgresql_url: URL,
) -> None:
    engine = create_async_engine(postgresql_url, pool_size=1, max_overflow=0, pool_timeout=0.2)
    async with (
        Oban(postgresql_url, name="client") as client,
        Oban(engine, queues={"default": 2}, **BRIEF),
        engine.connect(),
    ):
        for job in await client.enqueue_many([Noop.new() for _ in range(20)]):
            await reaches(client, job, JobState.COMPLETED)
    await engine.dispose()


async def test_a_statement_that_does_not_end_is_given_up_and_tried_again(
    postgresql_url: URL, watch: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with Oban(
        postgresql_url, queues={"default": 2}, statement_timeout=0.2, poll_interval=0.05, **BRIEF
    ) as oban:
        producer = producer_of(oban)
        job = await oban.enqueue(Noop.new(schedule_in=0.5))
        async with watch.begin() as connection:
            await connection.execute(text("LOCK TABLE oban_jobs IN ACCESS EXCLUSIVE MODE"))
            await eventually(lambda: producer.failures > 1)
        assert (await reaches(oban, job, JobState.COMPLETED)).attempt == 1
    assert "producer-default failed, trying again" in caplog.text
