"""Empty databases, and databases with several schemas, which only PostgreSQL has."""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from oban import migration
from tests.support.databases import PostgreSQLFactory, SQLiteFactory


@pytest.fixture
def postgresql_schema_urls(postgresql_factory: PostgreSQLFactory) -> Iterator[tuple[URL, URL]]:
    """Two empty PostgreSQL databases."""
    first, second = (postgresql_factory.create(empty=True) for _ in range(2))
    yield first, second
    postgresql_factory.drop(first)
    postgresql_factory.drop(second)


@pytest.fixture(params=["asyncpg", "psycopg"])
def bare_postgresql(request: pytest.FixtureRequest, postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """An empty PostgreSQL database, through each driver."""
    made = postgresql_factory.create(empty=True)
    yield made.set(drivername=f"postgresql+{request.param}")
    postgresql_factory.drop(made)


@pytest.fixture
def sqlite_url(sqlite_factory: SQLiteFactory) -> Iterator[URL]:
    """An empty SQLite database."""
    made = sqlite_factory.create(empty=True)
    yield made
    sqlite_factory.drop(made)


@pytest.fixture
def postgresql_with_jobs(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """A PostgreSQL database with the schema in `public` and in `jobs`."""
    made = postgresql_factory.create()
    migration.upgrade(made, prefix="jobs")
    yield made
    postgresql_factory.drop(made)


@pytest.fixture(scope="module")
def lasting_jobs(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """A PostgreSQL database with the schema, for all tests of a module."""
    made = postgresql_factory.create()
    yield made
    postgresql_factory.drop(made)
