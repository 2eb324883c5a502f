"""An application for each driver."""

from collections.abc import AsyncIterator

import pytest

from tests.drivers.callers import DRIVERS, Application, factory_for


@pytest.fixture(params=DRIVERS)
async def application(request: pytest.FixtureRequest) -> AsyncIterator[Application]:
    """An application on a fresh database; a test that uses it runs once with each driver."""
    factory = factory_for(request.param, request)
    url = factory.create()
    made = Application(request.param, url)
    yield made
    await made.dispose()
    factory.drop(url)
