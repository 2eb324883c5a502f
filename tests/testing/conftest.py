"""Fixtures of tests/testing."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import text

from oban import Oban, instances, migration
from tests.support.databases import Factory, PostgreSQLFactory
from tests.support.fixtures import server_url
from tests.testing.applications import KINDS, Backend

__all__ = ["server_url"]

# Its tests are run by tests/testing/test_project.py, in processes of their own.
collect_ignore = ["project"]


@pytest.fixture(scope="session", params=KINDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A database with the schema, and an engine for it: each test rolls back what it has done."""
    factory: Factory = request.getfixturevalue(f"{request.param.partition('-')[0]}_factory")
    url = factory.create()
    made = Backend(request.param, url)
    yield made
    made.close()
    factory.drop(url)


@pytest.fixture
async def server_of_prefix(postgresql_factory: PostgreSQLFactory) -> AsyncIterator[Oban]:
    """A client on PostgreSQL, whose tables are in the schema `jobs`."""
    url = postgresql_factory.create(empty=True)
    async with Oban(url, prefix="jobs") as oban:
        async with oban.engine.begin() as connection:
            await connection.execute(text("CREATE SCHEMA jobs"))
            await connection.run_sync(migration.upgrade, prefix="jobs")
        yield oban
    postgresql_factory.drop(url)


@pytest.fixture
def no_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the clients that other tests have left in this process."""
    monkeypatch.setattr(instances, "async_clients", instances.Instances("Oban"))
    monkeypatch.setattr(instances, "sync_clients", instances.Instances("SyncOban"))
