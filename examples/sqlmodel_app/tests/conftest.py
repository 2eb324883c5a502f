"""The application in the transaction of a test, with the fixtures of Oban's plugin for pytest."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncConnection, async_sessionmaker
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from oban import Oban
from sqlmodel_app.database import sessions
from sqlmodel_app.logs import restore_request_id
from sqlmodel_app.mail import Mail
from sqlmodel_app.main import app, get_oban, get_session

from .provider import Provider


@pytest.fixture(scope="session")
def oban_metadata() -> MetaData:
    return SQLModel.metadata


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def oban_options(provider: Provider) -> dict[str, Any]:
    """As in `sqlmodel_app.jobs`, but for the mail provider."""

    @asynccontextmanager
    async def lifespan(_: Oban) -> AsyncIterator[Mail]:
        transport = httpx.MockTransport(provider)
        async with httpx.AsyncClient(transport=transport, base_url="http://mail.test") as http:
            yield Mail(http)

    return {"session": sessions, "middleware": [restore_request_id], "lifespan": lifespan}


@pytest.fixture
def sessions_of_test(oban_connection: AsyncConnection) -> async_sessionmaker[AsyncSession]:
    """SQLModel's sessions in the transaction of the test. Their commits end savepoints."""
    return async_sessionmaker(oban_connection, class_=AsyncSession, expire_on_commit=False)


@pytest.fixture
async def session(sessions_of_test: async_sessionmaker[AsyncSession]) -> AsyncIterator[AsyncSession]:
    """A session to prepare and look at rows."""
    async with sessions_of_test() as session:
        yield session


@pytest.fixture
async def client(
    oban: Oban, sessions_of_test: async_sessionmaker[AsyncSession]
) -> AsyncIterator[httpx.AsyncClient]:
    """Sends requests to the application without a server."""

    async def get_session_of_test() -> AsyncIterator[AsyncSession]:
        async with sessions_of_test.begin() as session:
            yield session

    app.dependency_overrides = {get_oban: lambda: oban, get_session: get_session_of_test}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client
    app.dependency_overrides = {}
