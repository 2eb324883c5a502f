"""The first start of a node on a file, which switches it to WAL, and starts on other databases."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, AsyncAdaptedQueuePool, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from oban import Job, JobState, Oban, SyncOban, Worker, migration
from oban.errors import ConfigError, SchemaMissing
from tests.support.databases import SQLiteFactory
from tests.support.internals import database_of
from tests.support.jobs import reaches
from tests.support.options import BRIEF
from tests.support.workers import Noop


@pytest.fixture
def url(sqlite_factory: SQLiteFactory) -> URL:
    return sqlite_factory.create()


def journal_mode(url: URL) -> str:
    connection = sqlite3.connect(str(url.database))
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    connection.close()
    return str(mode)


@contextmanager
def locked(url: URL, statement: str, seconds: float | None) -> Iterator[None]:
    """Let another program be in a transaction that has run a statement, for some seconds or until the end."""
    begun, ended = threading.Event(), threading.Event()

    def hold() -> None:
        connection = sqlite3.connect(str(url.database), isolation_level=None)
        connection.execute("BEGIN")
        connection.execute(statement)
        begun.set()
        ended.wait(seconds)
        connection.execute("ROLLBACK")
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("statement", ["UPDATE oban_jobs SET id = id", "SELECT count(*) FROM oban_jobs"])
async def test_a_first_start_waits_for_those_who_use_the_file(
    url: URL, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert journal_mode(url) == "delete"
    with locked(url, statement, 0.3):
        async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
            await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
    assert journal_mode(url) == "wal"
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


async def test_a_start_goes_on_without_wal_if_a_reader_never_ends(
    url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    with locked(url, "SELECT count(*) FROM oban_jobs", None):
        oban = Oban(url, queues={"default": 1}, statement_timeout=0.2, lease=60, **BRIEF)
        node = database_of(oban).with_own_pool(2, 0.2)
        await node.prepare()
        await node.dispose()
    assert journal_mode(url) == "delete"
    (record,) = [record for record in caplog.records if record.name == "oban.database"]
    assert record.getMessage() == (
        "the database could not be configured: database is locked. The node goes on without that; it is tried"
        " again at the next start"
    )
    await oban.stop()


async def test_nodes_that_start_at_once_on_a_new_file_all_start(url: URL) -> None:
    nodes = [Oban(url, name=f"node-{number}", queues={"default": 1}, **BRIEF) for number in range(4)]
    await asyncio.gather(*(node.start() for node in nodes))
    await reaches(nodes[0], await nodes[0].enqueue(Noop.new()), JobState.COMPLETED)
    await asyncio.gather(*(node.stop() for node in nodes))
    assert journal_mode(url) == "wal"


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist"])
async def test_a_journal_mode_that_the_application_sets_stays(
    url: URL, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_async_engine(url)

    def connected(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA journal_mode = {mode}")
        cursor.close()

    event.listen(engine.sync_engine, "connect", connected)
    async with Oban(engine, queues={"default": 1}, **BRIEF) as oban:
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
    assert journal_mode(url) == "delete"
    warned = [record.getMessage() for record in caplog.records if record.name == "oban.database"]
    assert warned == [
        "the file's journal mode is delete, in which readers and the writer wait for each other"
    ] * (mode == "delete")
    await engine.dispose()


async def test_a_migration_waits_for_those_who_write(sqlite_factory: SQLiteFactory) -> None:
    url = sqlite_factory.create(empty=True)
    with locked(url, "CREATE TABLE own (id INTEGER)", 0.3):
        await asyncio.to_thread(migration.upgrade, url)
    async with Oban(url) as client:
        assert await client.list_jobs() == []


@pytest.mark.parametrize("parameters", ["mode=ro", "immutable=1", "nolock=1"])
async def test_a_node_does_not_start_on_a_file_that_its_uri_opens_in_a_way_that_cannot_work(
    url: URL, parameters: str
) -> None:
    named = URL.create(
        "sqlite+aiosqlite", database=f"file:{url.database}?{parameters}", query={"uri": "true"}
    )
    oban = Oban(named, queues={"default": 1})
    with pytest.raises(ConfigError, match="leave out"):
        await oban.start()
    await oban.stop()


def test_a_client_reads_a_file_that_its_uri_opens_read_only_and_does_not_write(url: URL) -> None:
    database = f"file:{url.database}?mode=ro"
    oban = SyncOban(URL.create("sqlite", database=database, query={"uri": "true"}))
    assert oban.list_jobs() == []
    with pytest.raises(ConfigError, match="opens it read-only; leave out mode=ro"):
        oban.enqueue(Noop.new())
    oban.stop()


async def test_a_node_does_not_create_a_file_that_its_uri_names(tmp_path: Path) -> None:
    oban = Oban(f"sqlite+aiosqlite:///file:{tmp_path}/new.db?uri=true", queues={"default": 1})
    with pytest.raises(SchemaMissing, match=rf"the file {tmp_path}/new.db does not exist"):
        await oban.start()
    assert os.listdir(tmp_path) == []
    await oban.stop()


class Writes(Worker, max_attempts=1):
    async def process(self, job: Job, session: Any) -> None:
        session.add(Noop.new())
        await session.flush()
        await asyncio.sleep(0.05)


ONE: dict[str, Any] = {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0}


@pytest.mark.parametrize(
    "name",
    [
        *("file::memory:?cache=shared&uri=true", "file:m1?mode=memory&cache=shared&uri=true", ":memory:"),
        *("file:m2?mode=memory&uri=true", "file:/m3?vfs=memdb&uri=true", "file:%253Amemory%253A?uri=true"),
    ],
)
async def test_every_form_of_a_database_in_memory_runs_jobs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SQLAlchemy 2.0 does not unquote the last name, so that it is one of a file.
    monkeypatch.chdir(tmp_path)

    async def check(oban: Oban) -> None:
        async with oban.engine.begin() as connection:
            await connection.run_sync(migration.upgrade)
        async with oban:
            writing = await oban.enqueue(Writes.new())
            await oban.enqueue_many([Noop.new() for _ in range(5)])
            await oban.wait(writing, 10)
            await oban.wait_until_empty(timeout=10)
            assert {job.state for job in await oban.list_jobs()} == {JobState.COMPLETED}

    await check(Oban(f"sqlite+aiosqlite:///{name}", queues={"default": 5}, **BRIEF))


@pytest.mark.parametrize("in_memory", [True, False])
async def test_a_node_asks_what_an_engine_with_its_own_creator_opens(in_memory: bool, tmp_path: Path) -> None:
    import aiosqlite

    path = str(tmp_path / "created.db")

    async def connect() -> aiosqlite.Connection:
        return await aiosqlite.connect(":memory:" if in_memory else path)

    # The URL says the opposite.
    (tmp_path / "unused.db").touch()
    shown = f"{tmp_path}/unused.db" if in_memory else ":memory:"
    engine: AsyncEngine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=shown), async_creator=connect, **ONE
    )
    async with engine.begin() as connection:
        await connection.run_sync(migration.upgrade)
    async with Oban(engine, queues={"default": 2}, **BRIEF) as oban:
        await oban.wait(await oban.enqueue(Noop.new()), 10)
    async with engine.connect() as connection:
        mode = (await connection.execute(text("PRAGMA journal_mode"))).scalar()
    assert mode == ("memory" if in_memory else "wal")
    await engine.dispose()
