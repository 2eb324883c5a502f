"""Transactions of the library are READ COMMITTED, whatever the default of the database or the engine."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, event, insert, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from oban import Job, JobState, Oban, Worker
from oban.database.aio import Database
from oban.database.transaction import Transaction
from oban.repository import fetch
from oban.runner.execution.producer import OVERLAPPED_LIMIT
from tests.support.databases import PostgreSQLFactory
from tests.support.options import BRIEF
from tests.support.pooler import pooler
from tests.support.waiting import eventually

JOBS = 1_000


class FailsAtTimes(Worker):
    """Needs a second attempt for one job in ten, so staging competes with fetching and acknowledging."""

    async def process(self, job: Job) -> None:
        if job.attempt == 1 and job.id % 10 == 0:
            raise ValueError("first")

    def backoff(self, job: Job) -> float:
        return 0.1


@pytest.fixture(params=["serializable", "repeatable read"])
def strict(request: pytest.FixtureRequest, postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """A database with a stricter default isolation level."""
    made = postgresql_factory.create()
    engine = create_engine(postgresql_factory.server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        setting = f"default_transaction_isolation = '{request.param}'"
        connection.execute(text(f"ALTER DATABASE {made.database} SET {setting}"))
    engine.dispose()
    yield made
    postgresql_factory.drop(made)


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("pooled", [False, True], ids=["direct", "pooled"])
async def test_two_nodes_run_a_thousand_jobs_once_without_a_conflict(
    strict: URL, driver: str, pooled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    url = strict.set(drivername=f"postgresql+{driver}")
    refused: list[str] = []

    def note(context: Any) -> None:
        # Only errors of the server: the driver reports that a listener's connection was closed.
        if state := getattr(context.original_exception, "sqlstate", None):
            refused.append(state)

    async with AsyncExitStack() as stack:
        if pooled:
            url = (await stack.enter_async_context(pooler(url, servers=6))).url
        options: dict[str, Any] = {"notifier": "poll" if pooled else "listen", **BRIEF}
        nodes = [
            Oban(
                url,
                name=name,
                node=name,
                queues={"default": limit},
                poll_interval=0.1,
                stage_interval=0.1,
                **options,
            )
            # One node with one turn at a time, and one with two overlapping turns.
            for name, limit in (("a", 20), ("b", OVERLAPPED_LIMIT))
        ]
        for node in nodes:
            event.listen(node.engine.sync_engine, "handle_error", note)
            await stack.enter_async_context(node)
        for _ in range(10):
            await nodes[0].enqueue_many(FailsAtTimes.new() for _ in range(JOBS // 10))

        async def all_done() -> bool:
            return all(job.state is JobState.COMPLETED for job in await nodes[1].list_jobs())

        await eventually(all_done, timeout=40)
        jobs = await nodes[0].list_jobs()
    assert len(jobs) == JOBS
    assert [job.attempt for job in jobs] == [2 if job.id % 10 == 0 else 1 for job in jobs]
    assert refused == []
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in warnings if record.name != "oban.executor"] == []


def of_url(url: URL) -> Any:
    return url


def with_autocommit(url: URL) -> AsyncEngine:
    return create_async_engine(url, isolation_level="AUTOCOMMIT")


def with_a_level(url: URL) -> AsyncEngine:
    return create_async_engine(url, isolation_level="SERIALIZABLE")


def with_an_option(url: URL) -> AsyncEngine:
    return create_async_engine(url).execution_options(isolation_level="REPEATABLE READ")


def level(tx: Transaction) -> str:
    """The isolation level of a transaction."""
    found: str = tx.execute(text("SHOW transaction_isolation")).scalar_one()
    return found


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("make", [of_url, with_autocommit, with_a_level, with_an_option])
async def test_a_transaction_of_the_library_is_atomic_and_read_committed(
    strict: URL, driver: str, make: Callable[[URL], Any]
) -> None:
    engine = make(strict.set(drivername=f"postgresql+{driver}"))
    database = Database(engine)

    def inserted(tx: Transaction) -> None:
        tx.execute(insert(Job), {"worker": "w"})
        assert level(tx) == "read committed"
        raise KeyError

    for _ in range(2):
        assert await database.read(level) == "read committed"
        assert await database.write(level) == "read committed"
        with pytest.raises(KeyError):
            await database.write(inserted)
    assert await database.write(fetch.fetch, "default", 1, "node", "owner") == []
    # The application's engine keeps its level.
    async with database.engine.connect() as connection:
        assert await connection.run_sync(lambda sync: sync.get_isolation_level()) != "READ COMMITTED"
    await database.engine.dispose()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_turn_of_a_producer_is_read_committed(strict: URL, driver: str) -> None:
    database = Database(strict.set(drivername=f"postgresql+{driver}"))
    levels = []

    def turn(tx: Transaction) -> None:
        fetch.acknowledge_and_fetch(tx, [], "default", 1, "node", "owner")
        levels.append(level(tx))

    for _ in range(3):
        await database.write(turn)
    assert levels == ["read committed"] * 3
    await database.dispose()
