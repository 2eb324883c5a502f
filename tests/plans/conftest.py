"""One table of a million jobs for all tests in this folder, in one condition after another."""

from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from tests.plans.table import CONDITIONS, fill
from tests.support.databases import PostgreSQLFactory


@pytest.fixture(scope="module")
def jobs(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """The database with the table."""
    url = postgresql_factory.create()
    fill(url)
    yield url
    postgresql_factory.drop(url)


@pytest.fixture(scope="module", params=CONDITIONS)
def condition(request: pytest.FixtureRequest, jobs: URL) -> Iterator[str]:
    """The statistics that the planner has of the table. Each condition is set up once, in order."""
    with CONDITIONS[request.param](jobs):
        yield request.param
