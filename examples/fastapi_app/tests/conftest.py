"""The application in the transaction of a test, with the fixtures of Oban's plugin for pytest."""

from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from fastapi_app.main import app, get_oban, get_session
from fastapi_app.models import Base
from oban import Oban


@pytest.fixture(scope="session")
def oban_metadata() -> MetaData:
    return Base.metadata


@pytest.fixture
async def client(
    oban: Oban, oban_sessionmaker: async_sessionmaker[AsyncSession]
) -> AsyncIterator[httpx.AsyncClient]:
    """Sends requests to the application without a server, and without its lifespan.

    Each request has a session of its own, whose commit ends a savepoint.
    """

    async def get_session_of_test() -> AsyncIterator[AsyncSession]:
        async with oban_sessionmaker.begin() as session:
            yield session

    app.dependency_overrides = {get_oban: lambda: oban, get_session: get_session_of_test}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client
    app.dependency_overrides = {}
