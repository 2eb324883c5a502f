"""Engines made by `engine.execution_options(…)` work as the engine that they come from."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL, Connection, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from oban import Job, JobState, Oban, SyncOban, Worker, migration
from tests.support.databases import Factory
from tests.support.jobs import reaches
from tests.support.options import NO_POLLING
from tests.support.workers import Noop

#: Options for one engine after another, each made of the one before.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "a token": [{"logging_token": "web"}],
    "a level": [{"isolation_level": "SERIALIZABLE"}],
    "autocommit": [{"isolation_level": "AUTOCOMMIT"}],
    "one of another": [
        {"isolation_level": "AUTOCOMMIT"},
        {"logging_token": "web"},
        {"logging_token": "jobs"},
    ],
}


class InSession(Worker):
    """Needs a session."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))


class InThread(Worker):
    """Needs a connection of its own."""

    def process(self, job: Job, session: Any) -> None:
        session.execute(text("SELECT 1"))


@pytest.fixture
async def engine(url: URL) -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(url)
    yield made
    await made.dispose()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
async def test_a_node_runs_on_an_engine_with_options(engine: AsyncEngine, options: list[Any]) -> None:
    early: list[str] = []
    late: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: early.append(args[2]))
    variant = engine
    for each in options:
        variant = variant.execution_options(**each)
    async with Oban(variant, queues={"default": 2}, **NO_POLLING) as oban:
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: late.append(args[2]))
        for worker in (Noop, InSession, InThread):
            await reaches(oban, await oban.enqueue(worker.new()), JobState.COMPLETED)
    # The claims of the node, on a pool of its own.
    assert any("attempted_by" in statement for statement in early)
    assert any("attempted_by" in statement for statement in late)
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM oban_jobs"))).scalar() == 3


@pytest.mark.parametrize("prefix", ["tenant", None])
async def test_the_schema_of_an_engine_is_that_of_its_tables(
    asyncpg_factory: Any, prefix: str | None
) -> None:
    url = asyncpg_factory.create(empty=True)
    migration.upgrade(url, prefix="tenant")
    engine = create_async_engine(url)
    variant = engine.execution_options(schema_translate_map={None: "tenant"}, logging_token="web")
    # Nothing is found by polling: notifications of that schema arrive.
    async with Oban(variant, prefix=prefix, queues={"default": 2}, **NO_POLLING) as oban:
        for worker in (Noop, InSession, InThread):
            await reaches(oban, await oban.enqueue(worker.new()), JobState.COMPLETED)
        async with AsyncSession(variant, expire_on_commit=False) as session:
            session.add(Noop.new())
            job = await oban.enqueue(Noop.new(), session=session)
            await session.commit()
        await reaches(oban, job, JobState.COMPLETED)
    await engine.dispose()
    sync_engine = create_engine(url.set(drivername="postgresql+psycopg2"))
    client = SyncOban(sync_engine.execution_options(schema_translate_map={None: "tenant"}), prefix=prefix)
    assert len(client.list_jobs()) == 5
    sync_engine.dispose()
    asyncpg_factory.drop(url)


def test_a_sync_client_takes_an_engine_with_options(sqlite_factory: Factory) -> None:
    engine = create_engine(sqlite_factory.create().set(drivername="sqlite+pysqlite"))
    begun: list[Connection] = []
    event.listen(engine, "begin", begun.append)
    client = SyncOban(engine.execution_options(logging_token="web").execution_options(stream_results=False))
    job = client.enqueue(Noop.new())
    assert [found.id for found in client.list_jobs()] == [job.id]
    assert len(begun) == 2
    engine.dispose()
