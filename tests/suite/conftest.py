"""The suite runs on SQLite, and on PostgreSQL through each async driver."""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from tests.support.databases import SQLiteFactory
from tests.support.fixtures import factory, server_url

__all__ = ["factory", "server_url"]


@pytest.fixture
def sqlite_url(sqlite_factory: SQLiteFactory) -> Iterator[URL]:
    """A fresh SQLite database with the schema, for tests of rows that only SQLite can store."""
    made = sqlite_factory.create()
    yield made
    sqlite_factory.drop(made)
