"""What a user of SQLite reads if the file is missing, or locked by a session of the application's own."""

import os
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Job, Oban, SyncOban, migration
from oban.database import retries
from oban.errors import DatabaseUnavailable, SchemaMissing
from tests.support.databases import SQLiteFactory
from tests.support.schema import sync_engine

HINT = "pass it as session="
BRIEF = {"connect_args": {"timeout": 0.01}}


@pytest.fixture
def url(sqlite_factory: SQLiteFactory, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(retries, "MAX_TRIES", 2)
    made = sqlite_factory.create()
    yield made
    sqlite_factory.drop(made)


async def test_a_lock_of_the_callers_own_session_is_the_likely_cause(url: URL) -> None:
    engine = create_async_engine(url, **BRIEF)
    oban = Oban(engine)
    async with AsyncSession(engine) as session:
        session.add(Job(worker="a"))
        await session.flush()
        with pytest.raises(OperationalError) as caught:
            await oban.enqueue(Job(worker="b"))
        await oban.enqueue(Job(worker="c"), session=session)
        await session.commit()
    assert "database is locked" in str(caught.value)
    assert str(caught.value).count(HINT) == 1
    assert [job.worker for job in await oban.list_jobs()] == ["a", "c"]
    await engine.dispose()


def test_a_lock_of_the_callers_own_sync_session_is_the_likely_cause(url: URL) -> None:
    engine = create_engine(url.set(drivername="sqlite"), **BRIEF)
    oban = SyncOban(engine)
    with Session(engine) as session:
        session.add(Job(worker="a"))
        session.flush()
        with pytest.raises(OperationalError, match=HINT):
            oban.enqueue(Job(worker="b"))
    engine.dispose()


def test_another_error_of_a_statement_has_no_such_hint(url: URL) -> None:
    engine = create_engine(url.set(drivername="sqlite"), **BRIEF)
    oban = SyncOban(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE TRIGGER full BEFORE INSERT ON oban_jobs BEGIN SELECT no(); END"))
    with pytest.raises(OperationalError) as caught:
        oban.enqueue(Job(worker="b"))
    assert HINT not in str(caught.value)
    engine.dispose()


@pytest.mark.parametrize(
    ("path", "missing"), [("new.db", "the file {}/new.db"), ("no/such/new.db", "the directory {}/no/such")]
)
async def test_a_start_on_a_missing_file_says_so_and_creates_none(
    tmp_path: Path, path: str, missing: str
) -> None:
    oban = Oban(f"sqlite+aiosqlite:///{tmp_path / path}", queues={"default": 1})
    with pytest.raises(SchemaMissing) as caught:
        await oban.start()
    assert str(caught.value).startswith(missing.format(tmp_path) + " does not exist, so there are no Oban")
    assert "oban install --database-url" in str(caught.value)
    assert "".join(traceback.format_exception(caught.value)).count("Traceback") == 1
    assert os.listdir(tmp_path) == []
    await oban.stop()


async def test_a_file_that_a_uri_names_is_not_missing(url: URL) -> None:
    named = url.set(database=f"file:{url.database}", query={"uri": "true"})
    async with Oban(named, queues={"default": 1}) as oban:
        assert await oban.enqueue(Job(worker="a"))


def test_an_installation_names_a_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match=rf"\(the directory {tmp_path}/no does not exist\)"):
        migration.upgrade(f"sqlite:///{tmp_path}/no/app.db")


@pytest.mark.parametrize("kind", [Session, Connection])
def test_missing_tables_are_those_of_the_database_of_the_session(
    url: URL, tmp_path: Path, kind: type[Session | Connection]
) -> None:
    with closing(create_engine(f"sqlite:///{tmp_path}/other.db").connect()) as connection:
        caller = connection if kind is Connection else Session(connection)
        with pytest.raises(SchemaMissing, match=f"no Oban tables in .*{tmp_path}/other.db; make"):
            SyncOban(sync_engine(url)).enqueue(Job(worker="a"), session=caller)
    connection.engine.dispose()


async def test_they_are_also_those_of_an_async_session(url: URL, tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/other.db")
    async with AsyncSession(engine) as session:
        with pytest.raises(SchemaMissing, match=f"no Oban tables in .*{tmp_path}/other.db; make"):
            await Oban(url).enqueue(Job(worker="a"), session=session)
    await engine.dispose()
