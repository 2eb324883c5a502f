from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession


@pytest_asyncio.fixture
async def session(oban_connection: AsyncConnection) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(oban_connection, join_transaction_mode="create_savepoint") as session:
        yield session


@pytest.fixture
def oban_bind(session: AsyncSession) -> AsyncSession:
    return session


@pytest.fixture(params=["one", "two"])
def oban_options(request: pytest.FixtureRequest) -> dict[str, object]:
    return {"name": request.param}
