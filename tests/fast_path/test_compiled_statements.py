"""A compiled statement that is run again returns and raises the same as with SQLAlchemy's execution."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, Integer, Text, bindparam, create_engine, event, insert, literal, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from oban import Job, Oban, SyncOban, clock, migration
from oban.database import idle
from oban.database.transaction import Transaction
from oban.types import JobState, UTCDateTime
from tests.support.databases import Factory
from tests.support.internals import (
    break_compiled_statements,
    close_idle_connection,
    database_of,
    idle_connections,
    record_compiled_statements,
)
from tests.support.rows import just_now


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SQL of the compiled statements that are run again, past SQLAlchemy."""
    return record_compiled_statements(monkeypatch)


QUERY = (
    select(Job.id, Job.state, Job.args, Job.tags, Job.scheduled_at, literal("fixed", Text).label("fixed"))
    .where(Job.worker == bindparam("name", type_=Text), Job.max_attempts > literal(1))
    .order_by(Job.id)
)


async def ran(oban: Oban, statement: Any, parameters: dict[str, Any]) -> Any:
    """The rows of a statement in autocommit."""

    def work(tx: Transaction) -> Any:
        tx.autocommit_next()
        return tx.rows(statement, parameters)

    return await database_of(oban).write(work)


async def test_rows_have_the_same_values_and_names_each_time(oban: Oban, runs: list[str]) -> None:
    jobs = [Job(worker="a", args={"n": n}, tags=["x"]) for n in range(3)]
    await oban.enqueue_many(jobs)
    await oban.enqueue_many([Job(worker="b"), Job(worker="b")])
    # The first connection is not in the pool yet, and SQLAlchemy executes the first statement on one that is.
    every = [await ran(oban, QUERY, {"name": "a"}) for _ in range(4)]
    assert len(runs) >= 1
    assert every[1:] == every[:-1]
    for row, job in zip(every[-1], jobs, strict=True):
        assert (row.id, row.args, row.tags, row.fixed) == (job.id, job.args, ["x"], "fixed")
        assert row.state is JobState.AVAILABLE
        assert row.scheduled_at == job.scheduled_at
        assert row._mapping["id"] == job.id
    assert len(await ran(oban, QUERY, {"name": "b"})) == 2
    assert await ran(oban, QUERY, {"name": "c"}) == []


def insert_with_key() -> Any:
    """Insert a row that leaves no column to a default of Python's."""
    table: Any = Job.__table__
    values = {"worker": "w", "state": "available", "unique_key": None, "unique_rule": None}
    return insert(table).values(id=bindparam("key"), **values).returning(table.c.id)


async def test_sql_that_differs_each_time_is_left_to_sqlalchemy(oban: Oban, runs: list[str]) -> None:
    await oban.enqueue_many([Job(worker="a"), Job(worker="b"), Job(worker="c")])
    runs.clear()
    every = select(Job.worker).order_by(Job.id)
    listed = every.where(Job.worker.in_(bindparam("names", expanding=True)))
    for names in (["a"], ["a", "b"], ["c"], ["b", "c", "a"]):
        found = await ran(oban, listed, {"names": names})
        assert [row.worker for row in found] == sorted(names)
    some = every.limit(bindparam("most", type_=Integer, literal_execute=True))
    for most in (1, 2, 3, 1):
        assert len(await ran(oban, some, {"most": most})) == most
    assert runs == []


async def test_a_default_that_is_computed_for_each_row_is_left_to_sqlalchemy(
    oban: Oban, runs: list[str]
) -> None:
    table: Any = Job.__table__
    # The default of the state depends on the time.
    statement = insert(table).values(worker="w").returning(table.c.state)
    now = datetime.now(UTC)
    found = [
        await ran(oban, statement, {"scheduled_at": now + timedelta(hours=hours)}) for hours in (-1, 1, -1, 1)
    ]
    assert [row.state for (row,) in found] == ["available", "scheduled", "available", "scheduled"]
    assert runs == []


async def test_statements_with_the_time_of_a_moved_clock_are_left_to_sqlalchemy(
    oban: Oban, runs: list[str]
) -> None:
    async def insertions() -> list[datetime]:
        alone = await oban.enqueue(Job(worker="w"))
        async with AsyncSession(oban.engine) as session:
            in_session = await oban.enqueue(Job(worker="w"), session=session)
            return [alone.inserted_at, in_session.inserted_at]

    for _ in range(3):
        await insertions()
    assert runs
    with clock.use(clock.MovableClock()) as moving:
        runs.clear()
        for hours in range(1, 4):
            moving.advance(hours=hours)
            assert await insertions() == [moving.now()] * 2
    assert runs == []
    began = datetime.now(UTC)
    assert all(just_now(at, began) for at in await insertions())
    assert runs


async def test_an_error_is_the_same_as_that_of_sqlalchemy(url: URL, runs: list[str]) -> None:
    again = insert_with_key()

    async def refused(oban: Oban) -> IntegrityError:
        with pytest.raises(IntegrityError) as caught:
            await ran(oban, again, {"key": 1})
        return caught.value

    # As an engine that Oban creates.
    engine = create_async_engine(url, hide_parameters=True)
    async with Oban(engine, name="application") as oban:
        await ran(oban, again, {"key": 1})
        theirs = await refused(oban)
    await engine.dispose()
    assert runs == []
    async with Oban(url) as oban:
        for key in range(2, 5):
            await ran(oban, again, {"key": key})
        runs.clear()
        ours = await refused(oban)
        assert runs == [theirs.statement]
    assert type(ours.orig) is type(theirs.orig)
    assert (ours.statement, ours.params, ours.args) == (theirs.statement, theirs.params, theirs.args)
    assert ours.connection_invalidated is theirs.connection_invalidated is False
    assert str(ours) == str(theirs)


def test_the_error_for_a_closed_connection_is_that_of_sqlalchemy(
    url: URL, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is closed between the check of idle connections and the statement.
    monkeypatch.setattr(idle, "is_usable", lambda *_: True)
    drivers = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}
    with SyncOban(url.set(drivername=drivers[url.get_backend_name()])) as oban:
        for _ in range(3):
            oban.enqueue(Job(worker="w"))
        close_idle_connection(oban)
        runs.clear()
        with pytest.raises(DBAPIError):
            oban.enqueue(Job(worker="w"))
        assert len(runs) == 1
        oban.enqueue(Job(worker="w"))


async def test_the_error_for_a_value_that_cannot_be_converted_is_that_of_sqlalchemy(oban: Oban) -> None:
    query = select(Job.id).where(Job.scheduled_at < bindparam("at", type_=UTCDateTime))
    for _ in range(3):
        await ran(oban, query, {"at": datetime.now(UTC)})
    with pytest.raises(StatementError, match="a time must carry a time zone"):
        await ran(oban, query, {"at": datetime(2026, 1, 1)})


async def test_a_sqlalchemy_without_the_private_names_executes_everything(
    oban: Oban, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_compiled_statements(monkeypatch)
    for number in range(4):
        assert (await oban.enqueue(Job(worker="w", args={"n": number}))).id
    assert runs == []


async def test_a_listener_that_executes_statements_itself_is_called_from_then_on(url: URL) -> None:
    async with Oban(url) as oban:
        for _ in range(3):
            await oban.enqueue(Job(worker="w"))
        seen: list[str] = []
        event.listen(oban.engine.sync_engine, "do_execute", lambda *given: seen.append(given[1]))
        for _ in range(3):
            await oban.enqueue(Job(worker="w"))
        assert sum(sql.startswith("INSERT INTO oban_jobs") for sql in seen) == 3


async def test_a_listener_for_errors_is_called(url: URL) -> None:
    async with Oban(url) as oban:
        again = insert_with_key()
        for key in range(10, 14):
            await ran(oban, again, {"key": key})
        heard: list[Any] = []
        event.listen(oban.engine.sync_engine, "handle_error", heard.append)
        with pytest.raises(IntegrityError):
            await ran(oban, again, {"key": 10})
        (context,) = heard
        assert context.statement.startswith("INSERT INTO oban_jobs")
        assert context.execution_context.compiled is not None


async def test_with_a_prefix_statements_stay_in_its_schema(
    postgresql_factory: Factory, runs: list[str]
) -> None:
    url = postgresql_factory.create(empty=True)
    try:
        for prefix in ("one", "two"):
            migration.upgrade(url, prefix=prefix)
        async with Oban(url, prefix="one") as one, Oban(url, prefix="two", name="two") as two:
            for number in range(4):
                await one.enqueue(Job(worker="w", args={"n": number}))
                await two.enqueue(Job(worker="v", args={"n": number}))
                await two.enqueue(Job(worker="v"))
            assert len(await one.list_jobs()) == 4
            assert len(await two.list_jobs()) == 8
        assert {sql.partition("(")[0].strip() for sql in runs} == {
            "INSERT INTO one.oban_jobs",
            "INSERT INTO two.oban_jobs",
        }
    finally:
        postgresql_factory.drop(url)


@pytest.fixture
def altering(server_url: URL) -> Iterator[Any]:
    """Changes the table, like a migration while nodes are running."""
    engine = create_engine(server_url.set(drivername="postgresql+psycopg"))

    def alter(change: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE oban_jobs {change}"))

    yield alter
    engine.dispose()


async def test_after_a_change_of_the_table_few_calls_fail(
    server_url: URL, altering: Any, runs: list[str]
) -> None:
    # SQLAlchemy invalidates all connections of asyncpg at once; with psycopg each one fails once.
    most = 1 if server_url.get_driver_name() == "asyncpg" else 5
    async with Oban(server_url) as oban:
        for change in ("ALTER id TYPE int", "ADD extra int", "ALTER id TYPE bigint", "DROP extra"):
            for _ in range(8):
                await asyncio.gather(*(oban.enqueue(Job(worker="w")) for _ in range(5)))
            assert len(idle_connections(oban)) == 2
            altering(change)
            failed = 0
            for _ in range(10):
                try:
                    await oban.enqueue(Job(worker="w"))
                except DBAPIError:
                    failed += 1
            assert failed <= most
    assert len(runs) >= 4


def test_it_works_without_asyncio(url: URL, runs: list[str]) -> None:
    drivers = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}
    with SyncOban(url.set(drivername=drivers[url.get_backend_name()])) as oban:
        jobs = [oban.enqueue(Job(worker="w", args={"n": number})) for number in range(5)]
        found = oban.list_jobs()
    assert [(job.id, job.args, job.inserted_at) for job in found] == [
        (job.id, {"n": number}, job.inserted_at) for number, job in enumerate(jobs)
    ]
    assert len(runs) >= 2


async def test_statements_on_an_engine_of_the_application_are_always_executed_by_sqlalchemy(
    url: URL, runs: list[str]
) -> None:
    engine: AsyncEngine = create_async_engine(url)
    async with Oban(engine) as oban:
        for _ in range(4):
            await oban.enqueue(Job(worker="w"))
    await engine.dispose()
    assert runs == []
