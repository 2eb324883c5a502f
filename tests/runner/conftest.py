"""Databases for each driver, as the runner must behave alike on all of them.

On PostgreSQL, tests that do not change the schema share a database that is emptied before each of them, as
creating one takes longer than most of these tests.
"""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from tests.runner.effects import FORMS, effects_table
from tests.support.databases import DATABASES, Factory, PostgreSQLFactory


@pytest.fixture(scope="session")
def shared_postgresql(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    made = postgresql_factory.create()
    yield made
    postgresql_factory.drop(made)


@pytest.fixture
def emptied_postgresql(shared_postgresql: URL, postgresql_factory: PostgreSQLFactory) -> URL:
    """The shared PostgreSQL database, emptied."""
    postgresql_factory.empty(shared_postgresql)
    return shared_postgresql


def by_driver(request: pytest.FixtureRequest) -> URL:
    if request.param == "sqlite":
        url: URL = request.getfixturevalue("sqlite_url")
        return url
    url = request.getfixturevalue("emptied_postgresql")
    return url.set(drivername=f"postgresql+{request.param}")


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest) -> URL:
    """A database with the schema: SQLite, and PostgreSQL through each of its drivers."""
    return by_driver(request)


@pytest.fixture(params=["asyncpg", "psycopg"])
def postgresql_url(request: pytest.FixtureRequest) -> URL:
    """A PostgreSQL database with the schema, through each driver."""
    return by_driver(request)


@pytest.fixture
def fresh_url(factory: Factory) -> Iterator[URL]:
    """A new database, for a test that changes more than rows."""
    made = factory.create()
    yield made
    factory.drop(made)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """Whether the `process` of a worker is async or sync."""
    kind: str = request.param
    return kind


@pytest.fixture
def table(url: URL) -> Iterator[URL]:
    """A database with a table of effects, for each driver."""
    with effects_table(url):
        yield url


@pytest.fixture
def one_table(url: URL) -> Iterator[URL]:
    """A database with a table of effects, on SQLite and on PostgreSQL."""
    with effects_table(url):
        yield url
