"""Databases by driver: what the runner does must not depend on which one carries it."""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from tests.databases import Factory, PostgreSQLFactory


@pytest.fixture(params=["sqlite", "asyncpg", "psycopg"])
def driver_url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """A fresh database with the schema: SQLite, and PostgreSQL through each of its drivers."""
    database = "sqlite" if request.param == "sqlite" else "postgresql"
    factory: Factory = request.getfixturevalue(f"{database}_factory")
    made = factory.create()
    yield made if database == "sqlite" else made.set(drivername=f"postgresql+{request.param}")
    factory.drop(made)


@pytest.fixture(params=["asyncpg", "psycopg"])
def postgresql_url(request: pytest.FixtureRequest, postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """A fresh PostgreSQL database with the schema, through each driver."""
    made = postgresql_factory.create()
    yield made.set(drivername=f"postgresql+{request.param}")
    postgresql_factory.drop(made)
