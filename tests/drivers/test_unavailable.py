"""What clients raise while the database cannot be reached: `DatabaseUnavailable`, by every driver."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from oban import Job, Oban, SyncOban, Worker
from oban.errors import DatabaseUnavailable
from tests.support.databases import PostgreSQLFactory
from tests.support.waiting import eventually


class Idle(Worker):
    """A worker that is never run."""

    async def process(self, job: Job) -> None: ...


#: Nobody listens there.
CLOSED = "u:hunter2@127.0.0.1:1/d"
NO_SOCKET = "u:hunter2@/d?host=/no/directory"
NO_HOST = "u:hunter2@host.invalid/d"
AWAY = [CLOSED, NO_SOCKET, NO_HOST]
SYNC_CALLS: list[Callable[[SyncOban], Any]] = [
    lambda oban: oban.enqueue(Idle.new()),
    lambda oban: oban.enqueue_many([Idle.new(), Idle.new()]),
    lambda oban: oban.get_job(1),
    lambda oban: oban.list_jobs(),
    lambda oban: list(oban.iterate_jobs()),
    lambda oban: oban.cancel_many_jobs([1]),
    lambda oban: oban.update_job(1, {"priority": 1}),
    lambda oban: oban.pause_queue("a"),
    lambda oban: oban.check_cluster(),
    lambda oban: oban.wait(1, timeout=1),
]


def check(error: DatabaseUnavailable) -> None:
    assert "hunter2" not in str(error)
    assert "\n" not in str(error)
    assert error.__cause__ is not None
    assert not type(error.__cause__).__module__.startswith("sqlalchemy")


@pytest.mark.parametrize("address", AWAY)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_clients_with_asyncio_raise_it_with_the_drivers_error_as_its_cause(
    driver: str, address: str
) -> None:
    url = f"postgresql+{driver}://{address}"
    oban, engine = Oban(url), create_async_engine(url)
    for call in (oban.enqueue(Idle.new()), oban.list_jobs(), oban.pause_queue("a"), oban.check_cluster()):
        with pytest.raises(DatabaseUnavailable, match="cannot reach the database") as caught:
            await call
        check(caught.value)
    with pytest.raises(DatabaseUnavailable) as caught:
        await Oban(url, queues={"default": 1}).start()
    check(caught.value)
    async with AsyncSession(engine) as session:
        with pytest.raises(DatabaseUnavailable) as caught:
            await Oban(engine).enqueue(Idle.new(), session=session)
        check(caught.value)


@pytest.mark.parametrize("address", AWAY)
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_clients_without_asyncio_raise_it_with_the_drivers_error_as_its_cause(
    driver: str, address: str
) -> None:
    url = f"postgresql+{driver}://{address}"
    if (driver, address) == ("pg8000", NO_SOCKET):
        url = f"postgresql+{driver}://u:hunter2@/d?host=/no/directory&port=1"
    oban = SyncOban(url)
    for call in SYNC_CALLS if (driver, address) == ("psycopg", CLOSED) else SYNC_CALLS[:1]:
        with pytest.raises(DatabaseUnavailable, match="cannot reach the database") as caught:
            call(oban)
        check(caught.value)
    with Session(oban.engine) as session, pytest.raises(DatabaseUnavailable) as caught:
        oban.enqueue(Idle.new(), session=session)
    check(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"database": "no_such_database"}, "does not exist"),
        ({"username": "nobody_at_all"}, "does not exist"),
        ({"query": {"options": "-cno_such_setting=1"}}, "unrecognized configuration parameter"),
        ({"query": {"options": "-x"}}, "invalid command-line argument"),
    ],
)
async def test_a_server_that_refuses_the_connection_is_unavailable(
    changes: dict[str, Any], words: str, postgresql_factory: PostgreSQLFactory
) -> None:
    server = postgresql_factory.server
    if query := changes.get("query"):
        changes = {"query": {**server.query, **query}}
    url = server.set(**changes)
    with pytest.raises(DatabaseUnavailable, match=words) as caught:
        await Oban(url.set(drivername="postgresql+asyncpg")).list_jobs()
    check(caught.value)
    for driver in ("psycopg", "psycopg2", "pg8000"):
        # On a socket, pg8000 often reads only that the connection was closed.
        said = "cannot reach the database" if driver == "pg8000" else words
        with pytest.raises(DatabaseUnavailable, match=said) as caught:
            await asyncio.to_thread(SyncOban(url.set(drivername=f"postgresql+{driver}")).list_jobs)
        check(caught.value)


async def test_a_port_that_does_not_exist_is_unavailable() -> None:
    with pytest.raises(DatabaseUnavailable, match="port"):
        await Oban("postgresql+asyncpg://u@127.0.0.1:99999/d").list_jobs()
    for driver in ("psycopg", "psycopg2", "pg8000"):
        with pytest.raises(DatabaseUnavailable, match="port"):
            SyncOban(f"postgresql+{driver}://u@127.0.0.1:99999/d").list_jobs()


async def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match=f"the directory {tmp_path}/no does not exist") as caught:
        await Oban(f"sqlite:///{tmp_path}/no/a.db").enqueue(Idle.new())
    check(caught.value)
    # aiosqlite's thread ends after it has answered.
    await eventually(
        lambda: not any("_connection_worker_thread" in each.name for each in threading.enumerate())
    )
    with pytest.raises(DatabaseUnavailable, match="unable to open database file") as caught:
        SyncOban(f"sqlite:///{tmp_path}").enqueue(Idle.new())
    check(caught.value)


@pytest.fixture
def engine(postgresql_factory: PostgreSQLFactory) -> Any:
    url: URL = postgresql_factory.through("psycopg").create()
    engine = create_engine(make_url(url), poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.01)
    yield engine
    engine.dispose()
    postgresql_factory.drop(url)


def test_a_pool_without_a_free_connection_is_no_unavailable_database(engine: Engine) -> None:
    with engine.connect(), pytest.raises(PoolTimeout):
        SyncOban(engine).enqueue(Idle.new())


def test_a_failure_of_the_applications_own_statement_is_no_unavailable_database(engine: Engine) -> None:
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("SET ROLE nobody_at_all"))
    with Session(engine) as session, pytest.raises(DBAPIError, match="nobody_at_all"):
        SyncOban(engine).enqueue(Idle.new(), session=session)
