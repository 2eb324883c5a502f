"""`rolled_back`: nothing that a test did with the connection is there afterwards."""

import asyncio
from typing import Final

import pytest
from sqlalchemy import URL, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Job, Oban, SyncOban
from oban.errors import DatabaseUnavailable, ObanError, WrongLoop
from oban.testing import rollback, rolled_back
from tests.support.databases import Factory, PostgreSQLFactory
from tests.support.schema import sync_engine
from tests.support.workers import Noop

COUNT = select(func.count()).select_from(Job)
SAVEPOINT: Final = "create_savepoint"


@pytest.mark.parametrize("options", [{}, {"isolation_level": "AUTOCOMMIT"}], ids=["default", "autocommit"])
async def test_what_sessions_and_clients_commit_is_rolled_back(url: URL, options: dict[str, str]) -> None:
    engine = create_async_engine(url, **options)
    async with rolled_back(engine) as connection:
        await Oban(connection).enqueue(Noop.new())
        async with AsyncSession(connection, join_transaction_mode=SAVEPOINT) as session:
            session.add(Noop.new())
            await session.commit()
        assert await connection.scalar(COUNT) == 2
    async with rolled_back(engine) as connection:
        assert await connection.scalar(COUNT) == 0
    await engine.dispose()


@pytest.mark.parametrize("options", [{}, {"isolation_level": "AUTOCOMMIT"}], ids=["default", "autocommit"])
def test_it_does_the_same_without_asyncio(url: URL, options: dict[str, str]) -> None:
    engine = create_engine(sync_engine(url).url, **options)
    with rolled_back(engine) as connection:
        SyncOban(connection).enqueue(Noop.new())
        with Session(connection, join_transaction_mode=SAVEPOINT) as session:
            session.add(Noop.new())
            session.commit()
        assert connection.scalar(COUNT) == 2
    with rolled_back(engine) as connection:
        assert connection.scalar(COUNT) == 0
    engine.dispose()


async def test_a_session_without_a_mode_rolls_back_only_what_it_has_done(engine: AsyncEngine) -> None:
    async with rolled_back(engine) as connection:
        await Oban(connection).enqueue(Noop.new())
        async with AsyncSession(connection) as session:
            session.add(Noop.new())
            await session.rollback()
            session.add(Noop.new())
            await session.commit()
        assert await connection.scalar(COUNT) == 2
    async with rolled_back(engine) as connection:
        assert await connection.scalar(COUNT) == 0


async def test_a_failing_test_is_rolled_back_and_its_error_is_raised(engine: AsyncEngine) -> None:
    async def fails(statement: str) -> None:
        async with rolled_back(engine) as connection:
            await Oban(connection).enqueue(Noop.new())
            await connection.execute(text(statement))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails("SELECT 1")
    with pytest.raises(DBAPIError):
        await fails("SELECT * FROM nowhere")
    async with engine.connect() as connection:
        assert await connection.scalar(COUNT) == 0


async def test_the_connection_itself_cannot_commit(engine: AsyncEngine) -> None:
    async with rolled_back(engine) as connection:
        await Oban(connection).enqueue(Noop.new())
        with pytest.raises(ObanError, match="this connection cannot commit"):
            await connection.commit()
    async with engine.connect() as connection:
        assert await connection.scalar(COUNT) == 0


async def test_a_transaction_after_a_rollback_of_the_test_is_rolled_back_as_well(engine: AsyncEngine) -> None:
    async with rolled_back(engine) as connection:
        await connection.rollback()
        await connection.begin()
        async with connection.begin_nested():
            await connection.execute(text("INSERT INTO oban_jobs (queue, worker) VALUES ('q', 'w')"))
    async with engine.connect() as connection:
        assert await connection.scalar(COUNT) == 0


async def test_a_cancelled_test_is_rolled_back(engine: AsyncEngine) -> None:
    inserted = asyncio.Event()

    async def waits() -> None:
        async with rolled_back(engine) as connection:
            await Oban(connection).enqueue(Noop.new())
            inserted.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(waits())
    await inserted.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with engine.connect() as connection:
        assert await connection.scalar(COUNT) == 0


async def test_a_lost_connection_ends_the_block_without_an_error(server_url: URL) -> None:
    engine = create_async_engine(server_url)
    async with rolled_back(engine) as connection, engine.connect() as killer:
        process = await connection.scalar(text("SELECT pg_backend_pid()"))
        await killer.execute(text(f"SELECT pg_terminate_backend({process}, 10000)"))
    async with rolled_back(engine) as connection:
        assert await connection.scalar(COUNT) == 0
    await engine.dispose()


def test_a_lost_connection_without_asyncio(psycopg_factory: Factory) -> None:
    engine = sync_engine(url := psycopg_factory.create())
    with rolled_back(engine) as connection, engine.connect() as killer:
        process = connection.scalar(text("SELECT pg_backend_pid()"))
        killer.execute(text(f"SELECT pg_terminate_backend({process}, 10000)"))
    with rolled_back(engine) as connection:
        assert connection.scalar(COUNT) == 0
    psycopg_factory.drop(url)


async def test_a_task_that_still_uses_the_connection_does_not_delay_the_end(
    server_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollback, "ROLLBACK_TIMEOUT", 0.1)
    engine = create_async_engine(server_url)
    async with rolled_back(engine) as connection:
        left_behind = asyncio.create_task(connection.execute(text("SELECT pg_sleep(600)")))
        await asyncio.sleep(0.05)
    left_behind.cancel()
    await asyncio.gather(left_behind, return_exceptions=True)
    await engine.dispose()


async def test_a_database_that_cannot_be_reached() -> None:
    url = "postgresql+asyncpg://nobody@127.0.0.1:1/none"
    with pytest.raises(DatabaseUnavailable):
        async with rolled_back(create_async_engine(url)):
            pass
    with pytest.raises(DatabaseUnavailable), rolled_back(create_engine(url.replace("asyncpg", "psycopg"))):
        pass


async def test_the_connection_refuses_another_event_loop(asyncpg_factory: PostgreSQLFactory) -> None:
    url = asyncpg_factory.create()
    engine = create_async_engine(url)

    async with rolled_back(engine) as connection:
        oban = Oban(connection)

        async def query() -> None:
            async with AsyncSession(connection) as session:
                await session.execute(text("SELECT 1"))

        async def list_jobs() -> None:
            await oban.list_jobs()

        # asyncpg can crash when two loops use its connection.
        for use in (query, list_jobs):
            with pytest.raises(WrongLoop, match="another loop than the test, as in TestClient"):
                await asyncio.to_thread(asyncio.run, use())
        assert await oban.list_jobs() == []
    await engine.dispose()
    asyncpg_factory.drop(url)
