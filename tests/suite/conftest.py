"""The suite runs on every database, and on PostgreSQL through either driver."""

import pytest

from tests.databases import DATABASES, Factory


@pytest.fixture(params=DATABASES)
def factory(request: pytest.FixtureRequest) -> Factory:
    """Makes databases; a test that uses it runs once on each database and driver."""
    made: Factory = request.getfixturevalue(f"{request.param}_factory")
    return made
