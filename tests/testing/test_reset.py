"""`reset_oban` empties the tables and counts ids from 1 again, on each database."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL, create_engine, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from oban import Job, Oban, Periodic, SyncOban, Worker, models
from oban.errors import ConfigError
from oban.testing import reset_oban
from tests.support.databases import PostgreSQLFactory, SQLiteFactory
from tests.support.options import BRIEF
from tests.support.rows import STATES, insert_row

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Report(Worker, name="tests.reset.Report"):
    async def process(self, job: Job) -> None: ...


async def fill(oban: Oban) -> None:
    """Store a row in each table, and jobs in each state."""
    for state in STATES:
        await insert_row(oban.engine, state)
    await oban.enqueue(Job(worker="a", unique=True))
    await oban.add_periodic(Periodic("nightly", "0 3 * * *", Report.new()))
    await oban.pause_queue("media")
    rows: list[tuple[Any, dict[str, Any]]] = [
        (models.Leader, {"name": "Oban", "node": "n", "elected_at": NOW, "expires_at": NOW}),
        (models.Producer, {"uuid": uuid4(), "name": "Oban", "node": "n", "queue": "q"}),
        (models.Tick, {"name": "Oban", "entry": "nightly", "tick": NOW, "inserted_at": NOW}),
        (models.Attempt, {"job_id": 1, "attempt": 1, "outcome": "completed", "ended_at": NOW}),
    ]
    async with oban.engine.begin() as connection:
        for model, values in rows:
            await connection.execute(insert(model.__table__), values)


async def stored(engine: AsyncEngine) -> dict[str, int]:
    """The number of rows of each table that has any."""
    async with engine.connect() as connection:
        tables = models.metadata.sorted_tables
        counts = {
            table.name: await connection.scalar(select(func.count()).select_from(table)) for table in tables
        }
    return {name: count for name, count in counts.items() if count}


@pytest.fixture
def sync_oban(url: URL) -> Iterator[SyncOban]:
    driver = "pysqlite" if url.get_backend_name() == "sqlite" else "psycopg"
    oban = SyncOban(create_engine(url.set(drivername=f"{url.get_backend_name()}+{driver}")))
    yield oban
    oban.engine.dispose()


async def test_every_table_is_emptied_and_ids_begin_again(oban: Oban) -> None:
    await fill(oban)
    tables = {table.name for table in models.metadata.sorted_tables}
    # On SQLite, there are no keys of unique jobs.
    assert (await stored(oban.engine)).keys() >= tables - {"oban_unique_keys"}
    await reset_oban(oban)
    assert await stored(oban.engine) == {}
    assert (await oban.enqueue(Job(worker="a"))).id == 1
    await reset_oban()
    assert (await oban.enqueue(Job(worker="a", unique=True))).id == 1


def test_a_sync_client_resets_at_once(sync_oban: SyncOban) -> None:
    assert sync_oban.enqueue(Job(worker="a")).id == 1
    assert reset_oban(sync_oban) is None
    assert sync_oban.enqueue(Job(worker="a")).id == 1
    reset_oban()  # type: ignore[unused-coroutine]
    assert sync_oban.list_jobs() == []


async def test_a_rollback_brings_everything_back(oban: Oban) -> None:
    await fill(oban)
    before = await stored(oban.engine)
    async with AsyncSession(oban.engine) as session:
        await reset_oban(oban, session)
        assert (await oban.enqueue(Job(worker="b"), session=session)).id == 1
        await session.rollback()
    assert await stored(oban.engine) == before
    # The next id is not one that a job has.
    assert (await oban.enqueue(Job(worker="b"))).id > before["oban_jobs"]


def test_in_the_transaction_of_a_session_new_jobs_are_not_taken_for_deleted_ones(sync_oban: SyncOban) -> None:
    with Session(sync_oban.engine) as session:
        old = sync_oban.enqueue(Job(worker="old"), session=session)
        reset_oban(session=session)
        new = sync_oban.enqueue(Job(worker="new"), session=session)
        assert new.id == old.id == 1
        assert [job.worker for job in sync_oban.list_jobs(session=session)] == ["new"]
        session.commit()
    assert [job.worker for job in sync_oban.list_jobs()] == ["new"]


def test_a_client_in_a_session_resets_its_instances_too(sync_oban: SyncOban) -> None:
    with Session(sync_oban.engine) as session:
        inner = SyncOban(session)
        old = Job(worker="old")
        session.add(old)
        session.flush()
        reset_oban(inner)
        new = Job(worker="new")
        session.add(new)
        session.flush()
        assert session.get(Job, 1) is new
        assert (new.id, new.worker) == (1, "new")


async def test_a_client_in_a_transaction_resets_within_it(oban: Oban) -> None:
    await oban.enqueue(Job(worker="a"))
    async with oban.engine.connect() as connection:
        inner = Oban(connection, name="inner")
        await inner.enqueue(Job(worker="b"))
        await reset_oban("inner")
        assert await inner.list_jobs() == []
        assert (await inner.enqueue(Job(worker="c"))).id == 1
        await connection.rollback()
    assert [job.worker for job in await oban.list_jobs()] == ["a"]


async def test_tables_in_a_schema_are_emptied(server_of_prefix: Oban) -> None:
    oban = server_of_prefix
    await oban.enqueue(Job(worker="a"))
    await reset_oban(oban)
    assert (await oban.enqueue(Job(worker="a"))).id == 1
    async with AsyncSession(oban.engine) as session:
        await reset_oban(oban, session)
        assert (await oban.enqueue(Job(worker="a"), session=session)).id == 1
        await session.commit()
    assert len(await oban.list_jobs()) == 1


async def test_rows_of_the_application_are_treated_as_their_foreign_keys_say(
    postgresql_factory: PostgreSQLFactory,
) -> None:
    url = postgresql_factory.create()
    async with Oban(url) as oban, oban.engine.connect() as connection:
        refers = "bigint REFERENCES oban_jobs ON DELETE"
        await connection.execute(text(f"CREATE TABLE exports (a {refers} SET NULL, b {refers} CASCADE)"))
        job = await oban.enqueue(Job(worker="a"), session=connection)
        await connection.execute(text(f"INSERT INTO exports VALUES ({job.id}, NULL), (NULL, {job.id})"))
        await reset_oban(oban, connection)
        assert (await connection.execute(text("SELECT a, b FROM exports"))).all() == [(None, None)]
    postgresql_factory.drop(url)


async def test_a_client_that_runs_jobs_is_refused_until_it_has_stopped(sqlite_factory: SQLiteFactory) -> None:
    url = sqlite_factory.create()
    oban = Oban(url, queues={"default": 1}, **BRIEF)
    async with oban:
        with pytest.raises(ConfigError, match=r"this Oban runs jobs.*: stop it first"):
            await reset_oban(oban)
    await reset_oban(oban)
    await oban.stop()
    sqlite_factory.drop(url)
