"""The runner's own engine behaves as the application has configured its engine."""

from typing import Any

import pytest
from sqlalchemy import URL, event, text
from sqlalchemy.ext.asyncio import create_async_engine

from oban import JobState, Oban
from oban.database.aio import Database
from oban.database.transaction import Transaction
from oban.repository import cluster
from tests.support.jobs import reaches
from tests.support.options import BRIEF
from tests.support.workers import Noop


class Failed(Exception):
    """Makes a transaction fail."""


async def test_transactions_that_begin_with_an_event_listener_are_rolled_back(
    sqlite_url: URL,
) -> None:
    engine = create_async_engine(sqlite_url)

    # As SQLAlchemy's documentation advises.
    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    def fail(tx: Transaction) -> None:
        tx.execute(text("INSERT INTO oban_queues (name, queue) VALUES ('a', 'b')"))
        raise Failed

    own = Database(engine).with_own_pool(1, 5.0)
    with pytest.raises(Failed):
        await own.write(fail)
    async with own.engine.connect() as connection:
        assert (await connection.execute(text("SELECT * FROM oban_queues"))).all() == []
    # A single statement in autocommit is stored nevertheless.
    assert await own.write(cluster.elect, "Oban", "me", 60.0) is None
    assert await own.write(cluster.elect, "Oban", "other", 60.0) is not None
    await own.dispose()
    async with Oban(engine, queues={"default": 1}, **BRIEF) as oban:
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
    await engine.dispose()


async def test_events_of_the_application_see_what_the_runner_executes(url: URL) -> None:
    engine = create_async_engine(url)
    seen = []

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def executed(_: Any, __: Any, statement: str, *___: Any) -> None:
        seen.append(statement)

    own = Database(engine).with_own_pool(1, 5.0)
    await own.read(cluster.database_time)
    assert any("SELECT" in statement for statement in seen)
    # Options of one engine do not change the other one.
    event.listen(own.engine.sync_engine, "begin", lambda _: seen.append("begun"))
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    assert "begun" not in seen
    await own.dispose()
    await engine.dispose()


@pytest.mark.parametrize("pre_ping", [True, False])
@pytest.mark.parametrize("reset", ["rollback", "commit", None])
async def test_the_pool_checks_and_resets_connections_like_that_of_the_application(
    sqlite_url: URL, pre_ping: bool, reset: Any
) -> None:
    engine = create_async_engine(sqlite_url, pool_pre_ping=pre_ping, pool_reset_on_return=reset)
    own = Database(engine).with_own_pool(1, 5.0)
    for trait in ("_pre_ping", "_reset_on_return"):
        assert getattr(own.engine.pool, trait) == getattr(engine.pool, trait)
    await own.dispose()
    await engine.dispose()
