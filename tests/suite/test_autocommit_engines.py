"""Engines in AUTOCOMMIT mode: Oban's own transactions are real, and a session without one is refused."""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban, SyncOban, Worker
from oban.database.transaction import Transaction
from oban.errors import InvalidTarget
from tests.support.databases import Factory
from tests.support.internals import database_of
from tests.support.jobs import reaches
from tests.support.options import BRIEF
from tests.support.rows import read_rows
from tests.support.workers import Noop

MESSAGE = "in AUTOCOMMIT mode, .* leave out session=, or make the session with engine.execution_options"


def _set(name: str, value: object) -> Callable[[Engine], None]:
    """Set an attribute of each new connection, as an application's listener does."""

    def listen(engine: Engine) -> None:
        event.listen(engine, "connect", lambda connection, _: setattr(connection, name, value))

    return listen


#: Drivers, arguments of the engine, and what the application does to it then.
Way = tuple[tuple[str, ...], dict[str, Any], Callable[[Engine], None]]
WAYS: dict[str, Way] = {
    "isolation_level": (
        ("asyncpg", "psycopg", "psycopg2", "aiosqlite", "pysqlite"),
        {"isolation_level": "AUTOCOMMIT"},
        lambda _: None,
    ),
    "execution_options": (
        ("asyncpg", "psycopg2", "aiosqlite"),
        {"execution_options": {"isolation_level": "AUTOCOMMIT"}},
        lambda _: None,
    ),
    "connect_args": (("psycopg",), {"connect_args": {"autocommit": True}}, lambda _: None),
    "connect_args of SQLite": (
        ("aiosqlite", "pysqlite"),
        {"connect_args": {"isolation_level": None}},
        lambda _: None,
    ),
    "connect": (("asyncpg", "psycopg", "psycopg2"), {}, _set("autocommit", True)),
    "connect of SQLite": (("aiosqlite", "pysqlite"), {}, _set("isolation_level", None)),
}
if sys.version_info >= (3, 12):
    WAYS["autocommit of SQLite"] = (
        ("aiosqlite", "pysqlite"),
        {"connect_args": {"autocommit": True}},
        lambda _: None,
    )
CASES = [pytest.param(driver, way, id=f"{name}-{driver}") for name, way in WAYS.items() for driver in way[0]]
ASYNC = [case for case in CASES if case.values[0] in ("asyncpg", "psycopg", "aiosqlite")]
SYNC = [case for case in CASES if case.values[0] in ("psycopg2", "pysqlite")]


class OnLoop(Worker):
    """Enqueues another job in its session, and fails at first."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        await Oban.get_instance().enqueue(Noop.new(queue="none"), session=session)
        if job.attempt == 1:
            raise ValueError("rolled back")


class InThread(Worker):
    """Does the same in a thread."""

    def process(self, job: Job, session: Session) -> None:
        session.add(Noop.new(queue="none"))
        session.flush()
        if job.attempt == 1:
            raise ValueError("rolled back")


@pytest.fixture
def make_url(sqlite_factory: Factory, asyncpg_factory: Factory) -> Any:
    made: list[tuple[Factory, URL]] = []

    def make(driver: str) -> URL:
        factory = sqlite_factory if "sqlite" in driver else asyncpg_factory
        made.append((factory, factory.create()))
        url = made[-1][1]
        return url.set(drivername=f"{url.get_backend_name()}+{driver}")

    yield make
    for factory, url in made:
        factory.drop(url)


def _writes_and_fails(tx: Transaction) -> None:
    tx.execute(text("INSERT INTO oban_queues (name, queue) VALUES ('a', 'b')"))
    raise KeyError("rolled back")


WRITES: list[Callable[[Any, int, Any], Any]] = [
    lambda oban, _, session: oban.enqueue(Noop.new(), session=session),
    lambda oban, _, session: oban.enqueue_many([Noop.new(), Noop.new()], session=session),
    lambda oban, id_, session: oban.cancel_job(id_, session=session),
    lambda oban, id_, session: oban.update_job(id_, lambda job: {"priority": 1}, session=session),
    lambda oban, _, session: oban.pause_queue("media", session=session),
]


async def _refused(call: Callable[[Any, int, Any], Awaitable[Any]], *args: Any) -> None:
    with pytest.raises(InvalidTarget, match=MESSAGE):
        await call(*args)


async def _commits_alone(engine: AsyncEngine) -> bool:
    """Whether a statement of the application is still committed on its own."""
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO oban_queues (name, queue) VALUES ('c', 'd')"))
    async with engine.connect() as connection:
        return bool((await connection.execute(text("DELETE FROM oban_queues"))).rowcount)


@pytest.mark.parametrize(("driver", "way"), ASYNC)
async def test_a_session_in_autocommit_can_read_but_not_write(make_url: Any, driver: str, way: Way) -> None:
    engine = create_async_engine(make_url(driver), **way[1])
    way[2](engine.sync_engine)
    oban = Oban(engine)
    # Each of these needs a transaction of its own.
    job = await oban.enqueue(Noop.new())
    assert await oban.update_job(job, lambda job: {"priority": job.priority + 1})
    with pytest.raises(KeyError):
        await database_of(oban).write(_writes_and_fails)
    async with AsyncSession(engine) as session, engine.connect() as connection:
        for call in WRITES:
            await _refused(call, oban, job.id, session)
            await _refused(call, oban, job.id, connection)
        assert (await oban.get_job(job.id, session=session) or job).priority == 1
        assert len(await oban.list_jobs(session=connection)) == 1
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT * FROM oban_queues"))).all() == []
    assert await _commits_alone(engine)
    await engine.dispose()


@pytest.mark.parametrize(("driver", "way"), SYNC)
def test_a_sync_session_in_autocommit_can_read_but_not_write(make_url: Any, driver: str, way: Way) -> None:
    engine = create_engine(make_url(driver), **way[1])
    way[2](engine)
    oban = SyncOban(engine)
    job = oban.enqueue(Noop.new())
    assert oban.update_job(job, lambda job: {"priority": job.priority + 1})
    with Session(engine) as session:
        for call in WRITES:
            with pytest.raises(InvalidTarget, match=MESSAGE):
                call(oban, job.id, session)
        assert (oban.get_job(job.id, session=session) or job).priority == 1
    with engine.connect() as connection:
        connection.execute(text("DELETE FROM oban_jobs"))
    assert oban.list_jobs() == []
    engine.dispose()


@pytest.mark.parametrize(("driver", "way"), ASYNC)
async def test_the_session_of_a_job_has_a_transaction(make_url: Any, driver: str, way: Way) -> None:
    engine = create_async_engine(make_url(driver), **way[1])
    way[2](engine.sync_engine)
    async with Oban(engine, queues={"default": 2}, **BRIEF) as oban:
        for worker in (OnLoop, InThread):
            job = await oban.enqueue(worker.new())
            await reaches(oban, job, JobState.RETRYABLE)
            assert len(await read_rows(oban.engine)) == 1
            await oban.retry_job(job)
            await reaches(oban, job, JobState.COMPLETED)
            assert len(await read_rows(oban.engine)) == 2
            async with engine.connect() as connection:
                await connection.execute(text("DELETE FROM oban_jobs"))
    assert await _commits_alone(engine)
    await engine.dispose()


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN IMMEDIATE"])
async def test_the_transactions_that_a_listener_begins_are_real(make_url: Any, begin: str) -> None:
    engine = create_async_engine(make_url("aiosqlite"), connect_args={"isolation_level": None})
    event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    async with Oban(engine, queues={"default": 2}, **BRIEF) as oban:
        async with AsyncSession(engine, expire_on_commit=False) as session:
            await oban.enqueue(Noop.new(), session=session)
            await session.rollback()
            job = await oban.enqueue(Noop.new(), session=session)
            await session.commit()
        await reaches(oban, job, JobState.COMPLETED)
        assert list(await read_rows(oban.engine)) == [job.id]
        await reaches(oban, await oban.enqueue(OnLoop.new()), JobState.RETRYABLE)
        assert len(await read_rows(oban.engine)) == 2
    await engine.dispose()


@pytest.mark.parametrize("driver", ["asyncpg", "aiosqlite"])
async def test_options_of_one_session_or_connection_are_noticed(make_url: Any, driver: str) -> None:
    engine = create_async_engine(make_url(driver))
    oban = Oban(engine)
    options = {"isolation_level": "AUTOCOMMIT"}
    async with AsyncSession(engine) as session:
        await session.connection(execution_options=options)
        await _refused(WRITES[0], oban, 1, session)
    async with engine.connect() as connection:
        await _refused(WRITES[0], oban, 1, await connection.execution_options(**options))
    async with AsyncSession(engine) as session:
        await oban.enqueue(Noop.new(), session=session)
    await engine.dispose()
