"""Clients on engines with one connection for everybody, in a transaction of the application's and alone."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    URL,
    AssertionPool,
    Connection,
    NullPool,
    QueuePool,
    SingletonThreadPool,
    StaticPool,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban, SyncOban, migration
from oban.errors import ConfigError, InvalidTarget
from tests.support.databases import PostgreSQLFactory, SQLiteFactory
from tests.support.sqlite_modes import HAS_AUTOCOMMIT
from tests.support.workers import Noop


class OwnStaticPool(StaticPool):
    """A subclass of an application."""


def listening(engine: AsyncEngine) -> AsyncEngine:
    """Let the engine begin transactions with BEGIN, as SQLAlchemy documents it for SQLite."""

    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "begin", begun)
    return engine


MEMORY: dict[str, Callable[[], AsyncEngine]] = {
    "memory": lambda: create_async_engine("sqlite+aiosqlite://"),
    "memory by name": lambda: create_async_engine("sqlite+aiosqlite:///:memory:", poolclass=OwnStaticPool),
    "memory with BEGIN": lambda: listening(create_async_engine("sqlite+aiosqlite://")),
}
if HAS_AUTOCOMMIT:
    MEMORY["memory with autocommit=False"] = lambda: create_async_engine(
        "sqlite+aiosqlite://", connect_args={"autocommit": False}
    )
DRIVERS = ["asyncpg", "psycopg"]


@pytest.fixture(scope="module")
def postgresql_url(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """A database with a table of the application's, for all tests here."""
    url = postgresql_factory.create()
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE orders (id INTEGER)")
    engine.dispose()
    yield url
    postgresql_factory.drop(url)


@pytest.fixture(params=[*MEMORY, "file", *DRIVERS])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[AsyncEngine]:
    """An engine whose pool shares its connection, with the schema and a table of the application's."""
    if request.param in DRIVERS:
        url: URL = request.getfixturevalue("postgresql_url")
        request.getfixturevalue("postgresql_factory").empty(url)
        made = create_async_engine(url.set(drivername=f"postgresql+{request.param}"), poolclass=StaticPool)
        async with made.begin() as connection:
            await connection.exec_driver_sql("TRUNCATE orders")
    else:
        make = MEMORY.get(request.param)
        if make is None:
            file: URL = request.getfixturevalue("sqlite_factory").create()
            made = create_async_engine(file, poolclass=StaticPool)
        else:
            made = make()
        async with made.begin() as connection:
            await connection.run_sync(migration.upgrade)
            await connection.exec_driver_sql("CREATE TABLE orders (id INTEGER)")
    yield made
    await made.dispose()


ORDER = text("INSERT INTO orders VALUES (1)")
ORDERS = text("SELECT count(*) FROM orders")


async def orders(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        count: int = (await connection.execute(ORDERS)).scalar_one()
        return count


async def test_a_client_does_everything_without_a_transaction_around_it(engine: AsyncEngine) -> None:
    oban = Oban(engine)
    job = await oban.enqueue(Noop.new())
    assert await oban.get_job(job.id) is not None
    await oban.update_job(job, {"priority": 2})
    assert await oban.cancel_job(job)
    assert await oban.retry_job(job)
    await oban.pause_queue("default")
    async with AsyncSession(engine) as session:
        await oban.enqueue(Noop.new(), session=session)
        await session.rollback()
    (row,) = await oban.list_jobs()
    assert (row.id, row.priority, row.state) == (job.id, 2, JobState.AVAILABLE)
    assert await oban.delete_job(job)


@pytest.mark.parametrize("commits", [True, False])
async def test_a_call_belongs_to_the_transaction_that_is_open(engine: AsyncEngine, commits: bool) -> None:
    oban = Oban(engine)
    before = await oban.enqueue(Noop.new())
    async with AsyncSession(engine, expire_on_commit=False) as session:
        await session.execute(ORDER)
        job, copy = await oban.enqueue(Noop.new()), await oban.get_job(before.id)
        assert job.id is not None
        assert copy is not None
        await oban.cancel_job(before)
        # Neither committed nor rolled back: both would end the transaction.
        assert (await session.execute(ORDERS)).scalar() == 1
        await (session.commit() if commits else session.rollback())
    assert await orders(engine) == commits
    assert {row.id: row.state for row in await oban.list_jobs()} == (
        {before.id: JobState.CANCELLED, job.id: JobState.AVAILABLE}
        if commits
        else {before.id: JobState.AVAILABLE}
    )
    if not commits:
        # The instance is new again, and can be enqueued in another transaction.
        assert inspect(job).transient
        await oban.enqueue(job)
        assert len(await oban.list_jobs()) == 2


async def test_a_call_that_fails_leaves_the_transaction_usable(engine: AsyncEngine) -> None:
    oban = Oban(engine)
    job = await oban.enqueue(Noop.new())
    async with engine.begin() as connection:
        await connection.execute(ORDER)
        is_sqlite = engine.dialect.name == "sqlite"
        await connection.exec_driver_sql(
            "CREATE TRIGGER bad BEFORE DELETE ON oban_jobs BEGIN SELECT RAISE(ABORT, 'refused'); END"
            if is_sqlite
            else "ALTER TABLE oban_jobs ADD CONSTRAINT bad CHECK (priority <> 3)"
        )
        with pytest.raises(DBAPIError):
            await (oban.delete_job(job) if is_sqlite else oban.update_job(job, {"priority": 3}))
        await oban.enqueue(Noop.new())
    assert await orders(engine) == 1
    assert len(await oban.list_jobs()) == 2
    if not is_sqlite:
        async with engine.begin() as connection:
            await connection.exec_driver_sql("ALTER TABLE oban_jobs DROP CONSTRAINT bad")


async def test_a_savepoint_around_a_call_can_be_rolled_back(engine: AsyncEngine) -> None:
    oban = Oban(engine)
    async with AsyncSession(engine, expire_on_commit=False) as session:
        await session.execute(ORDER)
        savepoint = await session.begin_nested()
        # SQLAlchemy sends the SAVEPOINT with the first statement in it.
        await session.execute(ORDER)
        lost = await oban.enqueue(Noop.new())
        await savepoint.rollback()
        kept = await oban.enqueue(Noop.new())
        await session.commit()
    assert inspect(lost).transient
    assert [row.id for row in await oban.list_jobs()] == [kept.id]
    assert await orders(engine) == 1


async def test_calls_of_several_tasks_and_clients_take_turns(engine: AsyncEngine) -> None:
    clients = [Oban(engine, name=f"shared-{number}") for number in range(3)]
    made = await asyncio.gather(*(client.enqueue(Noop.new()) for client in clients for _ in range(10)))
    await asyncio.gather(
        *(clients[number % 3].cancel_job(job) for number, job in enumerate(made)),
        *(client.list_jobs() for client in clients),
    )
    rows = await clients[0].list_jobs()
    assert {row.id for row in rows} == {job.id for job in made}
    assert {row.state for row in rows} == {JobState.CANCELLED}


async def test_a_transaction_that_others_end_meanwhile_is_an_error_and_not_lost(engine: AsyncEngine) -> None:
    oban = Oban(engine)
    ended: list[str] = []

    def end(connection: Connection, _: Any, statement: str, *__: Any) -> None:
        # As another task does that uses the connection at the same time.
        if "savepoint" in statement.lower() and not ended:
            ended.append(statement)
            connection.connection.rollback()

    event.listen(engine.sync_engine, "after_cursor_execute", end)
    with pytest.raises(DBAPIError, match="one connection for everybody"):
        await oban.enqueue(Noop.new())
    assert len(ended) == 1
    event.remove(engine.sync_engine, "after_cursor_execute", end)


async def test_queues_do_not_start(engine: AsyncEngine) -> None:
    oban = Oban(engine, queues={"default": 1})
    with pytest.raises(ConfigError, match="leave out queues=, or use a file"):
        await oban.start()
    # As a client, it works all the same.
    assert await oban.enqueue(Noop.new())
    await oban.stop()


async def test_a_transaction_that_nobody_knows_is_not_committed() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.run_sync(migration.upgrade)
        await connection.exec_driver_sql("CREATE TABLE orders (id INTEGER)")
    async with engine.connect() as early:
        await early.execute(ORDER)
        oban = Oban(engine)
        with pytest.raises(InvalidTarget, match="pass its session or connection"):
            await oban.enqueue(Noop.new())
        await oban.enqueue(Noop.new(), session=early)
        await early.rollback()
    assert (await orders(engine), await oban.list_jobs()) == (0, [])
    await engine.dispose()


# -- without asyncio --------------------------------------------------------------------------------


def sync_url(kind: str, tmp_path: Path) -> str:
    return "sqlite://" if kind == "memory" else f"sqlite:///{tmp_path}/a.db"


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("pool", [StaticPool, SingletonThreadPool, AssertionPool])
def test_a_sync_client_joins_the_transaction_that_is_open(kind: str, pool: Any, tmp_path: Path) -> None:
    engine = create_engine(
        sync_url(kind, tmp_path), poolclass=pool, connect_args={"check_same_thread": False}
    )
    migration.upgrade(engine)
    oban = SyncOban(engine)
    alone = oban.enqueue(Noop.new())
    with Session(engine) as session:
        session.add(Job(worker="own"))
        session.flush()
        lost = oban.enqueue(Noop.new())
        session.rollback()
    assert inspect(lost).transient
    with Session(engine) as session:
        session.add(Job(worker="own"))
        session.flush()
        kept = oban.enqueue(Noop.new())
        session.commit()
    assert [job.worker for job in oban.list_jobs()] == [alone.worker, "own", kept.worker]
    engine.dispose()


@pytest.mark.parametrize("pool", [StaticPool, SingletonThreadPool])
def test_a_session_that_has_only_read_does_not_keep_a_call_from_committing(pool: Any) -> None:
    engine = create_engine("sqlite://", poolclass=pool, connect_args={"check_same_thread": False})
    migration.upgrade(engine)
    oban = SyncOban(engine)
    with Session(engine) as session:
        assert session.query(Job).all() == []
        oban.enqueue(Noop.new())
    assert len(oban.list_jobs()) == 1
    engine.dispose()


def test_a_connection_that_may_not_be_used_twice_is_refused_while_it_is_in_use() -> None:
    engine = create_engine("sqlite://", poolclass=AssertionPool)
    migration.upgrade(engine)
    oban = SyncOban(engine)
    with Session(engine) as session:
        assert session.query(Job).all() == []
        with pytest.raises(InvalidTarget, match="pass it as session="):
            oban.enqueue(Noop.new())
        oban.enqueue(Noop.new(), session=session)
        session.commit()
        # Nothing is in use any more.
        oban.enqueue(Noop.new())
    assert len(oban.list_jobs()) == 2
    engine.dispose()


@pytest.mark.parametrize("clients", [1, 3])
def test_calls_of_several_threads_take_turns(clients: int) -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    migration.upgrade(engine)
    obans = [SyncOban(engine, name=f"threads-{number}") for number in range(clients)]
    barrier = threading.Barrier(4)

    def work(number: int) -> int:
        barrier.wait(10)
        oban = obans[number % clients]
        job = oban.enqueue(Noop.new())
        assert oban.get_job(job.id) is not None
        assert oban.cancel_job(job)
        return int(job.id)

    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(work, range(40)))
    assert sorted(ids) == [job.id for job in obans[0].list_jobs()]
    engine.dispose()


def test_a_handler_of_an_event_can_call_oban_within_a_call() -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    migration.upgrade(engine)
    oban = SyncOban(engine)
    inner: list[Job] = []

    def inserting(_: Connection, __: Any, statement: str, *___: Any) -> None:
        if statement.startswith("INSERT INTO oban_jobs") and not inner:
            inner.append(Noop.new(queue="inner"))
            oban.enqueue(inner[0])

    event.listen(engine, "before_cursor_execute", inserting)
    oban.enqueue(Noop.new(queue="outer"))
    assert [job.queue for job in oban.list_jobs()] == ["inner", "outer"]
    engine.dispose()


@pytest.mark.parametrize("pool", [NullPool, QueuePool])
def test_pools_that_share_no_connection_keep_transactions_apart(
    pool: Any, sqlite_factory: SQLiteFactory
) -> None:
    url = sqlite_factory.create().set(drivername="sqlite")
    engine = create_engine(url, poolclass=pool)
    oban = SyncOban(engine)
    with Session(engine) as session:
        session.query(Job).all()
        oban.enqueue(Noop.new())
        session.rollback()
    assert len(oban.list_jobs()) == 1
    engine.dispose()


def test_an_engine_with_options_shares_the_connection_of_its_engine() -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    migration.upgrade(engine)
    oban = SyncOban(engine.execution_options(logging_token="oban"))
    with Session(engine) as session:
        session.add(Job(worker="own"))
        session.flush()
        oban.enqueue(Noop.new())
        session.rollback()
    assert oban.list_jobs() == []
    engine.dispose()
