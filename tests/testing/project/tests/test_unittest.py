import os
import tempfile
import unittest

from shop import Base, place, place_sync, remind
from sqlalchemy import URL, Engine, NullPool, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Oban, SyncOban, migration, testing


def database_url() -> URL:
    """The URL of a database with tables, for a driver without asyncio."""
    url = make_url(os.environ.get("OBAN_TEST_DATABASE_URL") or f"sqlite:///{tempfile.mkdtemp()}/test.db")
    drivers = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}
    engine = create_engine(url.set(drivername=drivers[url.get_backend_name()]))
    with engine.begin() as connection:
        migration.upgrade(connection)
        Base.metadata.create_all(connection)
    engine.dispose()
    return engine.url


class TestOrders(unittest.TestCase):
    engine: Engine

    @classmethod
    def setUpClass(cls) -> None:
        cls.engine = create_engine(database_url())
        cls.addClassCleanup(cls.engine.dispose)

    def setUp(self) -> None:
        connection = self.enterContext(testing.rolled_back(self.engine))
        self.session = self.enterContext(Session(connection, join_transaction_mode="create_savepoint"))
        self.oban = SyncOban(connection)

    def test_an_order_is_confirmed_by_a_job(self) -> None:
        order = place_sync(self.session, "lamp")
        assert testing.drain_queue("mailers", oban=self.oban)["completed"] == 1
        self.session.refresh(order)
        assert order.confirmed

    def test_another_test_begins_with_nothing(self) -> None:
        assert self.oban.list_jobs() == []
        place_sync(self.session, "lamp")
        assert len(self.oban.list_jobs()) == 1


class TestOrdersWithAsyncio(unittest.IsolatedAsyncioTestCase):
    url: URL

    @classmethod
    def setUpClass(cls) -> None:
        cls.url = database_url()

    async def asyncSetUp(self) -> None:
        drivers = {"postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}
        url = self.url.set(drivername=drivers[self.url.get_backend_name()])
        engine = create_async_engine(url, poolclass=NullPool)
        connection = await self.enterAsyncContext(testing.rolled_back(engine))
        session = AsyncSession(connection, join_transaction_mode="create_savepoint", expire_on_commit=False)
        self.session = await self.enterAsyncContext(session)
        self.oban = Oban(connection)

    async def test_an_order_is_confirmed_by_a_job(self) -> None:
        order = await place(self.session, "lamp")
        assert (await testing.drain_queue("mailers"))["completed"] == 1
        await self.session.refresh(order)
        assert order.confirmed

    async def test_another_test_begins_with_nothing(self) -> None:
        assert await self.oban.list_jobs() == []
        await place(self.session, "lamp")

    async def test_jobs_run_at_once_in_a_block(self) -> None:
        with testing.mode("inline"):
            job = await remind.enqueue(1)
        assert job.state == "completed"
