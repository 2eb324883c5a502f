"""What an application's listeners set for each transaction, such as its role, holds for everything."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import URL, Connection, Engine, create_engine, event, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban, SyncOban, Worker
from oban.database.aio import Database
from oban.repository import cluster
from tests.support.jobs import reaches
from tests.support.listeners import listening
from tests.support.options import BRIEF
from tests.support.workers import Noop

SET_ROLE = "SET LOCAL ROLE oban_tests_rw"
SETUP = """
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'oban_tests_rw') THEN
    CREATE ROLE oban_tests_rw;
    CREATE ROLE oban_tests_login LOGIN NOINHERIT;
    GRANT oban_tests_rw TO oban_tests_login;
  END IF;
END $$;
GRANT ALL ON ALL TABLES IN SCHEMA public TO oban_tests_rw;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO oban_tests_rw;
"""


class WhoAmI(Worker):
    """Runs as the role of its session."""

    roles: list[str]

    async def process(self, job: Job, session: AsyncSession) -> None:
        self.roles.append((await session.execute(text("SELECT current_user"))).scalar_one())


@pytest.fixture
def factory(request: pytest.FixtureRequest) -> object:
    """PostgreSQL only, as SQLite has no roles."""
    return request.getfixturevalue("asyncpg_factory")


@pytest.fixture
def login(url: URL) -> URL:
    """The URL of a role that can only switch to the role with the right to use the tables."""
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.exec_driver_sql(SETUP)
    engine.dispose()
    return url.set(username="oban_tests_login")


def _execute(connection: Connection) -> None:
    connection.exec_driver_sql(SET_ROLE)


def _execute_after_begin(_: object, __: object, connection: Connection) -> None:
    connection.exec_driver_sql(SET_ROLE)


def _execute_on_driver(statement: str) -> Callable[..., None]:
    def run(connection: Any, *_: object) -> None:
        cursor = connection.cursor()
        cursor.execute(statement)
        cursor.close()

    return run


#: The places where an application sets its role.
LISTENERS: dict[str, Callable[[Engine], list[tuple[Any, str, Callable[..., None]]]]] = {
    "begin": lambda engine: [(engine, "begin", _execute)],
    "begin of all engines": lambda _: [(Engine, "begin", _execute)],
    "after_begin of all sessions": lambda _: [(Session, "after_begin", _execute_after_begin)],
    "engine_connect, in a transaction that it leaves open": lambda engine: [
        (engine, "engine_connect", _execute)
    ],
    "checkout and reset": lambda engine: [
        (engine, "checkout", _execute_on_driver("SET ROLE oban_tests_rw")),
        (engine, "reset", _execute_on_driver("RESET ROLE")),
    ],
}


@pytest.mark.parametrize("where", LISTENERS)
async def test_everything_runs_as_the_role_that_a_listener_sets(login: URL, where: str) -> None:
    if where.startswith("engine_connect") and sqlalchemy.__version__.startswith("2.0"):
        pytest.skip("the sessions of this SQLAlchemy do not commit such a transaction, and warn of it")
    WhoAmI.roles = []
    engine = create_async_engine(login)
    oban = Oban(engine, queues={"default": 2}, **BRIEF)
    with ExitStack() as listeners:
        # Later than the client, which must not have decided anything yet.
        for listener in LISTENERS[where](engine.sync_engine):
            listeners.enter_context(listening(*listener))
        jobs = [await oban.enqueue(WhoAmI.new())]
        jobs += await oban.enqueue_many([WhoAmI.new(), Noop.new()])
        async with AsyncSession(engine, expire_on_commit=False) as session:
            jobs.append(await oban.enqueue(Noop.new(), session=session))
            cancelled = await oban.enqueue(Noop.new(), session=session)
            assert await oban.cancel_many_jobs([cancelled], session=session) == 1
            await session.commit()
        assert await oban.retry_job(cancelled)
        async with oban:
            for job in jobs:
                await reaches(oban, job, JobState.COMPLETED)
    assert set(WhoAmI.roles) == {"oban_tests_rw"}
    await engine.dispose()


async def test_a_listener_that_is_added_to_the_engine_of_a_running_node_is_called_there(login: URL) -> None:
    engine = create_async_engine(login)
    own = Database(engine).with_own_pool(2, 5.0)
    with listening(engine.sync_engine, "begin", _execute):
        await own.read(cluster.database_time)
        # One statement, which would commit on its own.
        assert await own.write(cluster.elect, "Oban", "me", 60.0) is None
    await own.dispose()
    await engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_tenant_sees_only_its_own_jobs(login: URL, driver: str) -> None:
    admin = create_engine(login.set(drivername="postgresql+psycopg", username="postgres"))
    with admin.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE oban_jobs ENABLE ROW LEVEL SECURITY")
        connection.exec_driver_sql(
            "CREATE POLICY tenant ON oban_jobs USING (queue = current_setting('app.tenant', true))"
        )
    admin.dispose()
    engine = create_engine(login.set(drivername=f"postgresql+{driver}"))
    tenant = "a"

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(SET_ROLE)
        connection.execute(text("SELECT set_config('app.tenant', :tenant, true)"), {"tenant": tenant})

    oban = SyncOban(engine)
    job = oban.enqueue(Noop.new(queue="a"))
    assert [found.id for found in oban.list_jobs()] == [job.id]
    tenant = "b"
    assert oban.list_jobs() == []
    assert oban.delete_many_jobs(select(Job), everything=True) == 0
    assert oban.enqueue_many([Noop.new(queue="b"), Noop.new(queue="b")])
    assert len(oban.list_jobs()) == 2
    engine.dispose()
