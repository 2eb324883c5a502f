"""Connections of jobs in threads that are replaced, and jobs that find no free connection on the server."""

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import URL, QueuePool, create_engine, event, exc, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban, Worker
from oban.database.fast import FAST_PATH
from oban.database.transaction import Transaction
from oban.errors import DatabaseUnavailable
from tests.runner.effects import FORMS, RUNNING, worker
from tests.support.internals import runner_of
from tests.support.jobs import reaches, row_of
from tests.support.waiting import eventually, quiet
from tests.support.workers import Runs

SELECT = text("SELECT 1")
LEAKS = sqlalchemy.__version__ < "2.1"
REASON = "SQLAlchemy 2.0 leaves a connection that was not set up to the garbage collector, which warns"


@pytest.fixture
def refusals_leak_nothing(postgresql_url: URL) -> None:
    """Skip a test in which the server refuses connections if that leaves them to the garbage collector."""
    if LEAKS and postgresql_url.get_driver_name() == "asyncpg":
        pytest.skip(REASON)


def invalidates(session: Session) -> None:
    session.connection().invalidate()
    session.rollback()


def runs_a_loop_and_invalidates(session: Session) -> None:
    # It leaves the thread without a loop.
    asyncio.run(asyncio.sleep(0))
    invalidates(session)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("replaces", [invalidates, runs_a_loop_and_invalidates])
async def test_a_job_in_a_thread_can_replace_its_connection(
    url: URL, replaces: Callable[[Session], None], caplog: pytest.LogCaptureFixture
) -> None:
    def body(job: Job, session: Session) -> None:
        session.execute(SELECT)
        replaces(session)
        session.execute(SELECT)

    replacing = worker("thread", body, max_attempts=1)
    async with Oban(url, **RUNNING) as oban:
        for _ in range(2):
            await reaches(oban, await oban.enqueue(replacing.new()), JobState.COMPLETED)
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "name", [pytest.param("connect", marks=pytest.mark.skipif(LEAKS, reason=REASON)), "checkout"]
)
async def test_a_listener_of_the_application_can_fail_in_a_thread(
    url: URL, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_async_engine(url)

    def body(job: Job, session: Session) -> None:
        asyncio.run(asyncio.sleep(0))

        def fail(*_: Any) -> None:
            raise ValueError("not now")

        event.listen(session.get_bind(), name, fail)
        with pytest.raises(ValueError, match="not now"):
            session.execute(SELECT)
        event.remove(session.get_bind(), name, fail)
        session.rollback()
        session.execute(SELECT)

    failing = worker("thread", body, max_attempts=1)
    async with Oban(engine, **RUNNING) as oban:
        await reaches(oban, await oban.enqueue(failing.new()), JobState.COMPLETED)
    await engine.dispose()
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


async def test_the_thread_has_the_loop_of_its_session_while_a_job_runs(sqlite_url: URL) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    def body(job: Job, session: Session) -> None:
        loops.append(asyncio.get_event_loop())

    def without_session(job: Job) -> None:
        with pytest.raises(RuntimeError, match="no current event loop"):
            asyncio.get_event_loop()

    class Plain(Worker, max_attempts=1):
        def process(self, job: Job) -> None:
            without_session(job)

    with_session = worker("thread", body, max_attempts=1)
    async with Oban(sqlite_url, **{**RUNNING, "queues": {"default": 1}}) as oban:
        for each in (with_session, Plain):
            await reaches(oban, await oban.enqueue(each.new()), JobState.COMPLETED)
    assert loops[0].is_closed()


async def test_a_job_that_closes_the_loop_of_its_session_fails_alone(sqlite_url: URL) -> None:
    def body(job: Job, session: Session) -> None:
        if job.args:
            asyncio.get_event_loop().close()
        session.execute(SELECT)

    closing = worker("thread", body, max_attempts=1)
    async with Oban(sqlite_url, **{**RUNNING, "queues": {"default": 1}}) as oban:
        row = await reaches(oban, await oban.enqueue(closing.new({"close": True})), JobState.DISCARDED)
        assert "has closed the event loop" in row.errors[0]["error"]
        await reaches(oban, await oban.enqueue(closing.new()), JobState.COMPLETED)


@pytest.fixture
def crowded(postgresql_url: URL) -> Iterator[URL]:
    """A database, as a role that can have 12 connections."""
    role = f"crowded_{postgresql_url.get_driver_name()}"
    admin = create_engine(postgresql_url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 12"))
        for kind in ("TABLES", "SEQUENCES"):
            connection.execute(text(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO {role}"))
        yield postgresql_url.set(username=role)
        connection.execute(text(f"DROP OWNED BY {role}"))
        connection.execute(text(f"DROP ROLE {role}"))
    admin.dispose()


@asynccontextmanager
async def all_taken(url: URL) -> AsyncIterator[None]:
    """Take all connections that the role has left."""
    engine = create_async_engine(url, pool_size=20)
    taken, refusals = [], 0
    # The server still counts connections that were closed a moment ago: one refusal does not prove that it
    # will have none left.
    while refusals < 5:
        try:
            taken.append(await engine.connect())
            refusals = 0
        except exc.DBAPIError:
            refusals += 1
            await asyncio.sleep(0.03)
    try:
        yield
    finally:
        for connection in taken:
            await connection.close()
        await engine.dispose()


def waits(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.getMessage().startswith("a job waits for a connection of the server: ")
    ]


@pytest.mark.usefixtures("refusals_leak_nothing")
async def test_jobs_wait_while_the_server_has_no_connection_left(
    postgresql_url: URL, crowded: URL, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    selecting = worker(form, lambda job, session: session.execute(SELECT) and None, max_attempts=1)
    engine = create_async_engine(crowded)
    async with Oban(postgresql_url) as client, Oban(engine, **RUNNING):
        async with all_taken(crowded):
            jobs = await client.enqueue_many(selecting.new() for _ in range(3))
            await eventually(lambda: len(waits(caplog)) == 3)
        for job in jobs:
            row = await reaches(client, job, JobState.COMPLETED)
            assert (row.attempt, row.errors) == (1, [])
    await engine.dispose()


@pytest.mark.usefixtures("refusals_leak_nothing")
async def test_a_wait_for_the_server_ends_with_the_timeout(
    postgresql_url: URL, crowded: URL, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    late = worker(form, lambda job, session: session.execute(SELECT) and None, timeout=0.2)
    engine = create_async_engine(crowded)
    async with Oban(postgresql_url) as client, Oban(engine, **RUNNING):
        async with all_taken(crowded):
            job = await client.enqueue(late.new())
            await eventually(lambda: "retrying in" in caplog.text)
        row = await reaches(client, job, JobState.RETRYABLE)
        assert row.errors[0]["error"].endswith("timed out after 0.2 s")
    await engine.dispose()


@pytest.mark.usefixtures("refusals_leak_nothing")
async def test_a_wait_for_the_server_ends_with_the_node(
    postgresql_url: URL, crowded: URL, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    selecting = worker(form, lambda job, session: session.execute(SELECT) and None)
    engine = create_async_engine(crowded)
    oban = Oban(engine, **{**RUNNING, "shutdown_grace_period": 0.05})
    async with Oban(postgresql_url) as client:
        await oban.start()
        async with all_taken(crowded):
            job = await client.enqueue(selecting.new())
            await eventually(lambda: waits(caplog))
            stopping = asyncio.create_task(oban.stop())
            await eventually(lambda: "put back jobs" in caplog.text)
        # The node needs a connection to put it back.
        await stopping
        row = await row_of(client, job)
        assert (row.state, row.attempt, row.errors) == (JobState.AVAILABLE, 0, [])
    await engine.dispose()


async def test_idle_connections_of_threads_make_room_for_jobs_that_wait(
    postgresql_url: URL, crowded: URL
) -> None:
    def body(job: Job, session: Session) -> None:
        session.execute(SELECT)
        # Long enough for the others to need connections of their own.
        time.sleep(0.05)

    selecting = worker("thread", body, max_attempts=1)
    engine = create_async_engine(crowded)
    async with Oban(postgresql_url) as client, Oban(engine, **{**RUNNING, "queues": {"default": 20}}):
        jobs = await client.enqueue_many(selecting.new() for _ in range(20))
        for job in jobs:
            row = await reaches(client, job, JobState.COMPLETED)
            assert (row.attempt, row.errors) == (1, [])
    await engine.dispose()


@pytest.mark.usefixtures("refusals_leak_nothing")
@pytest.mark.parametrize(("idle", "waiting"), [("async", "thread"), ("thread", "async")])
async def test_idle_connections_make_room_for_jobs_of_the_other_kind(
    postgresql_url: URL, crowded: URL, idle: str, waiting: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = worker(idle, lambda job, session: session.execute(SELECT) and None, max_attempts=1)
    then = worker(waiting, lambda job, session: session.execute(SELECT) and None, max_attempts=1)
    engine = create_async_engine(crowded)
    async with Oban(postgresql_url) as client, Oban(engine, **RUNNING):
        await reaches(client, await client.enqueue(first.new()), JobState.COMPLETED)
        async with all_taken(crowded):
            row = await reaches(client, await client.enqueue(then.new()), JobState.COMPLETED)
            assert (row.attempt, row.errors) == (1, [])
        assert waits(caplog)
    await engine.dispose()


async def limit(client: Oban, role: str | None, connections: int | None) -> int:
    """Limit the connections of a role, to those that it has now by default; returns their number."""
    async with client.engine.begin() as connection:
        statement = text("SELECT count(*) FROM pg_stat_activity WHERE usename = :role")
        count: int = (await connection.execute(statement, {"role": role})).scalar_one()
        most = count if connections is None else connections
        await connection.execute(text(f"ALTER ROLE {role} CONNECTION LIMIT {most}"))
    return count


#: These tests need the connections for single statements that only the fast path keeps outside of the pool.
keeps_connections = pytest.mark.skipif(
    "autocommit" not in FAST_PATH.parts, reason="without the fast path, a node keeps no such connections"
)


@keeps_connections
@pytest.mark.parametrize("form", FORMS)
async def test_idle_connections_make_room_for_the_node_itself(
    postgresql_url: URL, crowded: URL, form: str
) -> None:
    # Several, because each service of the node may need a connection.
    sleeping = worker(form, lambda job, session: session.execute(text("SELECT pg_sleep(0.1)")) and None)
    engine = create_async_engine(crowded)
    async with Oban(postgresql_url) as client, Oban(engine, **RUNNING) as oban:
        for job in await client.enqueue_many(sleeping.new() for _ in range(5)):
            await reaches(client, job, JobState.COMPLETED)
        database = runner_of(oban).database
        await limit(client, crowded.username, 0)
        await database.engine.dispose()
        # The server ends the connections that were closed.
        await quiet()
        assert await limit(client, crowded.username, None)

        def select_alone(tx: Transaction) -> int:
            tx.autocommit_next()
            return select_in_transaction(tx)

        def select_in_transaction(tx: Transaction) -> int:
            one: int = tx.execute(SELECT).scalar_one()
            return one

        async def has_connected() -> bool:
            # The connections of transactions and those of single statements are not the same, and the
            # services can already have taken all that became free for one of the two.
            for select in (select_alone, select_in_transaction):
                with contextlib.suppress(DatabaseUnavailable):
                    return bool(await database.write(select))
            return False

        await eventually(has_connected)
    await engine.dispose()


@keeps_connections
async def test_a_cancel_reaches_a_job_while_the_node_uses_all_connections_of_its_pool(
    postgresql_url: URL,
) -> None:
    runs = Runs()
    async with Oban(postgresql_url) as client, Oban(postgresql_url, **RUNNING) as oban:
        job = await client.enqueue(runs.worker.new())
        running = await runs.begun(1)
        engine = runner_of(oban).database.engine
        pool = engine.sync_engine.pool
        assert isinstance(pool, QueuePool)
        in_use = [await engine.connect() for _ in range(pool.size())]
        # The check needs one of those that are for single statements.
        assert await client.cancel_job(job)
        await eventually(running.cancelled)
        for connection in in_use:
            await connection.close()
        runs.finish(1)
