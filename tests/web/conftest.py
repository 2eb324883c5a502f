"""A dashboard on each database, and a visitor."""

from collections.abc import AsyncIterator

import pytest

from oban import Oban
from oban.web import Dashboard, dashboard
from tests.support.fixtures import factory, server_url
from tests.support.web import Visitor

__all__ = ["factory", "server_url"]


@pytest.fixture
async def app(oban: Oban) -> AsyncIterator[Dashboard]:
    """A dashboard of `oban`, a client of a fresh database."""
    made = dashboard(oban)
    yield made
    await made.aclose()


@pytest.fixture
async def visitor(app: Dashboard) -> AsyncIterator[Visitor]:
    """A visitor from this machine, who may do everything."""
    async with Visitor(app) as made:
        yield made
