"""Connections that the server or the network ended while they were idle: no call fails because of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from oban import Job, JobState, Oban, SyncOban, Worker
from oban.database import idle
from oban.runner.execution import session_pool
from tests.support.databases import PostgreSQLFactory
from tests.support.internals import idle_connections, runner_of, session_pool_of
from tests.support.jobs import reaches
from tests.support.options import NO_POLLING
from tests.support.relay import Relay
from tests.support.waiting import eventually

#: pg8000 has no public name for its socket, so it is tested more often than psycopg2.
SYNC = ["psycopg", "pg8000", pytest.param("psycopg2", marks=pytest.mark.slow)]


class Ping(Worker):
    """Enqueues another job if its args ask for one."""

    async def process(self, job: Job) -> None:
        if job.args.get("again"):
            end_all(make_url(job.args["url"]))
            await Ping.enqueue({})


class Select(Worker, max_attempts=1):
    """Uses the session of its job."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))


def plain(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def administer(url: URL, statement: Any) -> list[Any]:
    with psycopg.connect(plain(url), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def end_all(url: URL) -> None:
    """End all connections to the database, and wait until the server's processes have closed them."""
    ended = administer(
        url,
        "SELECT pid, pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'watcher'",
    )
    give_up = time.monotonic() + 10
    # The process closes its socket after the server has counted it as ended.
    while any(Path(f"/proc/{pid}").exists() for pid, _ in ended) and time.monotonic() < give_up:
        time.sleep(0.001)


@pytest.fixture(params=["asyncpg", "psycopg"])
def url(request: pytest.FixtureRequest, postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    made = postgresql_factory.through(request.param).create()
    yield made
    postgresql_factory.drop(made)


@pytest.fixture
async def oban(url: URL) -> AsyncIterator[Oban]:
    oban = Oban(url)
    yield oban
    await oban.stop()


async def use(oban: Oban) -> None:
    """Use several connections at once: kept ones, and pooled ones."""
    calls: list[Any] = [oban.enqueue(Ping.new({})) for _ in range(4)]
    calls += [oban.cancel_many_jobs([1]), oban.list_jobs()]
    await asyncio.gather(*calls)


async def test_every_lost_connection_is_replaced_before_its_use(oban: Oban, url: URL) -> None:
    # The first call finds out about the isolation level, and only then are connections kept.
    await oban.enqueue(Ping.new({}))
    await use(oban)
    assert len(idle_connections(oban)) == 2
    for _ in range(2):
        # While this blocks the event loop, it cannot notice that the connections end.
        end_all(url)
        await use(oban)
    assert len(idle_connections(oban)) == 2


async def test_a_connection_on_which_something_has_arrived_is_asked_and_kept(oban: Oban, url: URL) -> None:
    for _ in range(2):
        await oban.enqueue(Ping.new({}))
    before = idle_connections(oban)[0].connection
    # The server tells each connection about a new time zone.
    administer(url, f"ALTER DATABASE {url.database} SET TimeZone = 'Asia/Tokyo'")
    async with oban.engine.connect() as connection:
        await connection.execute(text("SELECT pg_reload_conf()"))
    await oban.enqueue(Ping.new({}))
    assert idle_connections(oban)[0].connection is before


async def test_a_forgotten_connection_is_replaced_when_the_server_does_not_answer(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle, "PING_LIMIT", 0.1)
    async with Relay(url) as relay:
        oban = Oban(relay.url)
        await use(oban)
        relay.forget()
        monkeypatch.setattr(idle, "PING_AFTER", 0.0)
        async with asyncio.timeout(10):
            await oban.enqueue(Ping.new({}))
            await oban.cancel_many_jobs([1])
        await oban.stop()


async def test_the_pools_of_a_node_replace_lost_connections(oban: Oban, url: URL) -> None:
    async with Oban(url, queues={"default": 2}, **NO_POLLING) as node:
        database = runner_of(node).database
        await use(node)
        await database.read(lambda transaction: transaction.execute(text("SELECT 1")))
        end_all(url)
        await database.read(lambda transaction: transaction.execute(text("SELECT 1")))
        await database.write(lambda transaction: transaction.execute(text("SELECT 1")))
        await node.enqueue(Ping.new({}))


async def test_sessions_of_jobs_replace_connections_that_were_lost_before_their_first_use(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_pool, "OPENING_DELAY", 0.0)
    async with Oban(url, queues={"default": 2}, **NO_POLLING) as node:
        pool = session_pool_of(node)
        await eventually(lambda: pool.checkedin() == 2)
        # While this blocks the event loop, it cannot notice that the connections end.
        end_all(url)
        job = await node.enqueue(Select.new())
        await reaches(node, job, JobState.COMPLETED)


async def test_a_call_within_a_job_survives_the_end_of_its_connections(url: URL) -> None:
    async with Oban(url, queues={"default": 2}, **NO_POLLING) as node:
        await use(node)
        first = await node.enqueue(Ping.new({"again": True, "url": plain(url)}))

        def states() -> list[Any]:
            # Through a connection of its own, which the job does not end.
            with psycopg.connect(plain(url), application_name="watcher") as connection:
                rows = connection.execute("SELECT state, attempt FROM oban_jobs WHERE id >= %s", [first.id])
                return rows.fetchall()

        await eventually(lambda: states() == [("completed", 1)] * 2)


async def test_an_application_engine_keeps_its_own_settings(url: URL) -> None:
    async def fails(engine: AsyncEngine) -> bool:
        oban = Oban(engine)
        await oban.enqueue(Ping.new({}))
        end_all(url)
        try:
            await oban.enqueue(Ping.new({}))
        except DBAPIError:
            return True
        finally:
            await engine.dispose()
        return False

    assert await fails(create_async_engine(url))
    assert not await fails(create_async_engine(url, pool_pre_ping=True))


async def test_a_url_can_ask_for_a_test_before_each_use(url: URL) -> None:
    oban = Oban(url.update_query_dict({"pool_pre_ping": "true"}))
    await use(oban)
    assert not idle_connections(oban)
    end_all(url)
    await use(oban)
    await oban.stop()


async def test_a_statement_is_prepared_again_when_its_table_has_changed(oban: Oban, url: URL) -> None:
    for kind in ("varchar(300)", "text"):
        for _ in range(7):
            job = await oban.enqueue(Ping.new({}))
            await oban.get_job(job.id)
            await oban.update_job(job.id, {"priority": 1})
        administer(url, f"ALTER TABLE oban_jobs ALTER COLUMN worker TYPE {kind}")
        await oban.get_job(job.id)
        await oban.update_job(job.id, {"priority": 2})
        await oban.enqueue(Ping.new({}))


@pytest.mark.parametrize("driver", SYNC)
def test_threads_replace_lost_connections_without_asyncio(
    driver: str, postgresql_factory: PostgreSQLFactory
) -> None:
    url = postgresql_factory.through(driver).create()
    oban = SyncOban(url)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            calls: list[Any] = [pool.submit(oban.enqueue, Ping.new({})) for _ in range(8)]
            calls += [pool.submit(oban.cancel_many_jobs, [1]) for _ in range(4)]
            for call in calls:
                call.result()
            end_all(url)
    oban.stop()
    postgresql_factory.drop(url)


@pytest.mark.parametrize("driver", SYNC)
async def test_a_forgotten_connection_is_replaced_without_asyncio(
    driver: str, postgresql_factory: PostgreSQLFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle, "PING_LIMIT", 0.1)
    url = postgresql_factory.through(driver).create()
    async with Relay(url) as relay:
        oban = SyncOban(relay.url)
        await asyncio.to_thread(oban.enqueue, Ping.new({}))
        await asyncio.to_thread(oban.cancel_many_jobs, [1])
        relay.forget()
        monkeypatch.setattr(idle, "PING_AFTER", 0.0)
        async with asyncio.timeout(10):
            await asyncio.to_thread(oban.enqueue, Ping.new({}))
            await asyncio.to_thread(oban.cancel_many_jobs, [1])
        await asyncio.to_thread(oban.stop)
    postgresql_factory.drop(url)


def test_connections_that_were_used_a_moment_ago_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = create_engine("postgresql+psycopg://")
    # Asking would fail, as this is no connection.
    assert idle.is_usable(engine.dialect, object(), 0.0)  # type: ignore[arg-type]
