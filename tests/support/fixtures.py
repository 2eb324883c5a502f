"""Fixtures that several folders use: import them in a conftest."""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from tests.support.databases import DATABASES, Factory


@pytest.fixture(params=DATABASES)
def factory(request: pytest.FixtureRequest) -> Factory:
    """Makes databases; a test that uses it runs once on each database and driver."""
    made: Factory = request.getfixturevalue(f"{request.param}_factory")
    return made


@pytest.fixture(params=["asyncpg", "psycopg"])
def server_url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """A fresh database with the schema on PostgreSQL, through either driver."""
    factory: Factory = request.getfixturevalue(f"{request.param}_factory")
    made = factory.create()
    yield made
    factory.drop(made)
