"""Fixtures of tests/testing."""

from collections.abc import Iterator

import pytest

from tests.support.databases import Factory
from tests.support.fixtures import server_url
from tests.testing.applications import KINDS, Backend

__all__ = ["server_url"]


@pytest.fixture(scope="session", params=KINDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A database with the schema, and an engine for it: each test rolls back what it has done."""
    factory: Factory = request.getfixturevalue(f"{request.param.partition('-')[0]}_factory")
    url = factory.create()
    made = Backend(request.param, url)
    yield made
    made.close()
    factory.drop(url)
