"""One process of oban-py, and one database that is emptied for each test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, NullPool, create_engine, text

from oban import Oban
from tests.sharing import environment
from tests.sharing.peer import Peer
from tests.support.databases import PostgreSQLFactory
from tests.support.schema import TABLES

EMPTY = f"TRUNCATE {', '.join(sorted(TABLES))} RESTART IDENTITY"


@pytest.fixture(scope="session")
def python(request: pytest.FixtureRequest) -> Path:
    """The Python of a virtual environment with oban-py."""
    return environment.make(Path(request.config.cache.mkdir("sharing")))


@pytest.fixture(scope="session")
def process(python: Path) -> Iterator[Peer]:
    peer = Peer(python)
    yield peer
    peer.kill()


@pytest.fixture(scope="session")
def shared(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    made = postgresql_factory.create()
    yield made
    postgresql_factory.drop(made)


@pytest.fixture
def url(shared: URL) -> URL:
    """An empty database with the tables of our migrations."""
    engine = create_engine(shared.set(drivername="postgresql+psycopg"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(EMPTY))
    return shared


@pytest.fixture
async def peer(process: Peer, url: URL) -> AsyncIterator[Peer]:
    """The process of oban-py. A warning of its node fails the test."""
    yield process
    assert await process.do("stop") == []


@pytest.fixture
async def client(url: URL) -> AsyncIterator[Oban]:
    """A client of this library."""
    async with Oban(url, node="client") as oban:
        yield oban
