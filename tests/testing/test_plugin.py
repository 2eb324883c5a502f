"""The fixtures and the marker of the pytest plugin, in tests that use them."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from oban import Job, Oban, SyncOban, clock, instances
from oban.clock import MovableClock
from oban.testing import plugin
from tests.support.databases import PostgreSQLFactory
from tests.support.schema import render
from tests.support.workers import Noop
from tests.testing.subprocesses import run_pytest

# Those of the plugin, which tests/conftest.py replaces.
oban = plugin.oban


@pytest.fixture(scope="session", params=["sqlite", "asyncpg", "psycopg"])
def oban_database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "sqlite":
        yield "sqlite://"
        return
    factory: PostgreSQLFactory = request.getfixturevalue(f"{request.param}_factory")
    url: URL = factory.create()
    yield render(url)
    factory.drop(url)


@pytest.mark.parametrize("run", [1, 2])
async def test_what_a_test_enqueues_is_not_there_in_the_next_one(
    oban: Oban, oban_session: AsyncSession, run: int
) -> None:
    assert await oban.list_jobs() == []
    await Noop.enqueue()
    await Noop.enqueue(session=oban_session)
    await oban_session.commit()
    assert len(await oban.list_jobs()) == 2


@pytest.mark.parametrize("run", [1, 2])
def test_it_is_the_same_without_asyncio(sync_oban: SyncOban, sync_oban_session: Session, run: int) -> None:
    assert sync_oban.list_jobs() == []
    Noop.enqueue_sync()
    Noop.enqueue_sync(session=sync_oban_session)
    sync_oban_session.commit()
    assert len(sync_oban.list_jobs()) == 2


async def test_an_aborted_transaction_can_be_left_behind(
    oban: Oban, oban_connection: AsyncConnection, oban_session: AsyncSession
) -> None:
    oban_session.add(Noop.new())
    await oban_session.flush()
    with pytest.raises(DBAPIError):
        await oban_connection.execute(text("SELECT * FROM nowhere"))


async def test_a_lost_connection_can_be_left_behind(
    oban: Oban, oban_connection: AsyncConnection, oban_session: AsyncSession
) -> None:
    oban_session.add(Noop.new())
    await oban_session.flush()
    await _end(oban_connection)


def test_a_lost_connection_can_be_left_behind_without_asyncio(
    sync_oban_connection: Connection, sync_oban_session: Session
) -> None:
    sync_oban_session.add(Noop.new())
    sync_oban_session.flush()
    if sync_oban_connection.engine.dialect.name != "sqlite":
        with sync_oban_connection.engine.connect() as other:
            process = sync_oban_connection.scalar(text("SELECT pg_backend_pid()"))
            other.execute(text(f"SELECT pg_terminate_backend({process}, 10000)"))


async def _end(connection: AsyncConnection) -> None:
    if connection.engine.dialect.name == "sqlite":
        await (await connection.get_raw_connection()).driver_connection.close()  # type: ignore[union-attr]
        return
    process = await connection.scalar(text("SELECT pg_backend_pid()"))
    async with connection.engine.connect() as other:
        await other.execute(text(f"SELECT pg_terminate_backend({process}, 10000)"))


@pytest.fixture
def clients() -> Iterator[list[object]]:
    """The application's own clients, which are the newest ones again after the test."""
    own = [Oban("sqlite://"), SyncOban("sqlite://")]
    alive: list[object] = [*own]
    yield alive
    assert [instances.async_clients.get("Oban"), instances.sync_clients.get("Oban")] == own


async def test_workers_use_the_client_of_the_test(
    clients: list[object], oban: Oban, sync_oban: SyncOban
) -> None:
    # Something can refer to them after the test.
    clients += [oban, sync_oban]
    await Noop.enqueue()
    await asyncio.to_thread(Noop.enqueue_sync)
    assert (len(await oban.list_jobs()), len(sync_oban.list_jobs())) == (1, 1)


class TestInline:
    pytestmark = pytest.mark.oban(mode="inline")

    @pytest.fixture
    async def earlier(self, oban: Oban) -> Job:
        return await Noop.enqueue()

    async def test_jobs_run_at_once_also_in_fixtures_and_threads(
        self, earlier: Job, oban: Oban, sync_oban: SyncOban
    ) -> None:
        assert (earlier.state, (await Noop.enqueue()).state) == ("completed", "completed")
        assert (await asyncio.to_thread(Noop.enqueue_sync)).state == "completed"

    @pytest.mark.oban("manual")
    async def test_a_marker_of_the_test_overrides_that_of_its_class(self, oban: Oban) -> None:
        assert (await Noop.enqueue()).state == "available"


async def test_the_mode_ends_with_the_test(oban: Oban) -> None:
    assert (await Noop.enqueue()).state == "available"


async def test_the_clock_stands_still_until_it_is_moved(oban: Oban, oban_clock: MovableClock) -> None:
    job = await Noop.enqueue(schedule_in=60)
    assert job.scheduled_at == clock.now() + timedelta(minutes=1)
    oban_clock.advance(minutes=1)
    assert job.scheduled_at == clock.now()


def test_the_clock_is_the_real_one_again() -> None:
    assert not clock.moved()


class TestOneLoop:
    pytestmark = pytest.mark.asyncio(loop_scope="class")

    @pytest.mark.parametrize("run", [1, 2])
    async def test_fixtures_are_on_the_loop_of_the_test(
        self, oban: Oban, oban_session: AsyncSession, run: int
    ) -> None:
        await Noop.enqueue(session=oban_session)
        await oban_session.commit()


NO_LOOP = """
import pytest

async def test_without_a_plugin(oban):
    pass

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("trio", {})])
async def test_on_trio(oban, anyio_backend):
    pass
"""


@pytest.mark.slow
def test_tests_without_an_event_loop_of_asyncio_are_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(NO_LOOP)
    code, output = run_pytest("-p", "no:asyncio", folder=tmp_path)
    assert "the fixture oban_connection needs an event loop, and no plugin runs one for this test" in output
    assert "the fixture oban_connection works with asyncio, and anyio runs this test with trio" in output
    assert "2 errors" in output
    assert code == 1


FORGOTTEN = """
import pytest
from sqlalchemy.exc import DBAPIError

from oban import Oban, SyncOban, Worker
from oban.errors import WrongLoop

application = Oban("sqlite+aiosqlite:///application.db")

class Charge(Worker):
    async def process(self, job):
        pass

async def test_without_a_fixture():
    await Charge.enqueue()

def test_with_the_fixture_of_the_other_kind(oban):
    Charge.enqueue_sync()

async def test_with_the_client_of_the_application(oban):
    await application.enqueue(Charge.new())

class TestBind:
    @pytest.fixture
    def oban_bind(self):
        return application.engine

    async def test_with_the_engine_of_the_application(self, oban):
        pass

async def test_on_another_loop(oban):
    raise WrongLoop("the engine is used on another event loop")

async def test_after_an_error_of_the_database(oban, oban_session):
    error = DBAPIError(None, None, Exception())
    error.orig.sqlstate = "25P02"
    raise error
"""


@pytest.mark.slow
def test_tests_that_do_not_use_the_fixtures_everywhere_are_told_so(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(FORGOTTEN)
    _, output = run_pytest("-o", "asyncio_mode=auto", "--tb=short", folder=tmp_path)
    assert "5 failed, 1 error" in output
    for advice in (
        "request the fixture oban, or sync_oban in a test without asyncio",
        "This test uses the fixture oban, which is for code with asyncio: for other code, request sync_oban",
        "This is not the database of the fixtures that this test uses",
        "the fixture oban_bind has to return the AsyncSession or AsyncConnection whose transaction",
        "All of this test is one transaction",
        "A connection of a test works on one event loop",
    ):
        assert output.count(advice) == 1
