"""The server compiles no statements of connections that Oban makes, unless the application wants it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from oban import Oban, SyncOban
from oban.database.aio import Database
from oban.database.engines import make_engine
from tests.support.databases import PostgreSQLFactory

SHOW = text("SHOW jit")


@pytest.fixture
def url(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    made = postgresql_factory.create()
    yield made
    postgresql_factory.drop(made)


async def jit(engine: AsyncEngine) -> str:
    """The setting in a connection of an engine, which is closed then."""
    async with engine.connect() as connection:
        shown = str(await connection.scalar(SHOW))
    await engine.dispose()
    return shown


@asynccontextmanager
async def own_pool(engine: AsyncEngine, timeout: float | None) -> AsyncIterator[AsyncEngine]:
    """The engine with which a node sends its own statements, or without a timeout those of jobs."""
    own = Database(engine).with_own_pool(1, timeout)
    yield own.engine
    await own.dispose()
    await engine.dispose()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_it_is_off_in_an_engine_for_a_url(driver: str, url: URL) -> None:
    url = url.set(drivername=f"postgresql+{driver}")
    assert await jit(Oban(url).engine) == "off"
    assert await jit(Oban(url.update_query_dict({"options": "-c jit=on"})).engine) == "on"
    assert await jit(make_engine(url, pooled=True)) == "on"


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
def test_it_is_off_in_an_engine_for_a_url_without_asyncio(driver: str, url: URL) -> None:
    with SyncOban(url.set(drivername=f"postgresql+{driver}")) as oban, oban.engine.connect() as connection:
        assert connection.scalar(SHOW) == "off"
        connection.rollback()
        assert connection.scalar(SHOW) == "off"


async def test_it_is_off_in_a_nodes_own_connections(url: URL) -> None:
    async with own_pool(create_async_engine(url), 5) as engine:
        assert await jit(engine) == "off"


async def test_it_stays_as_an_application_has_set_it(url: URL) -> None:
    settings = {"server_settings": {"jit": "on"}}
    async with own_pool(create_async_engine(url, connect_args=settings), 5) as engine:
        assert await jit(engine) == "on"
    async with own_pool(create_async_engine(url), None) as engine:
        assert await jit(engine) == "on"
