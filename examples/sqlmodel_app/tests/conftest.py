"""A database with the application's migrations, and a client of its HTTP interface."""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from alembic import command
from alembic.config import Config
from sqlmodel import delete
from sqlmodel.ext.asyncio.session import AsyncSession

from oban import Job

# Set before the import of the application, which reads it.
FOLDER = tempfile.TemporaryDirectory()
os.environ["DATABASE_URL"] = os.environ.get("TEST_DATABASE_URL", f"sqlite+aiosqlite:///{FOLDER.name}/test.db")

from sqlmodel_app.database import engine, sessions  # noqa: E402
from sqlmodel_app.main import app  # noqa: E402
from sqlmodel_app.models import Member  # noqa: E402


@pytest.fixture(scope="session")
def migrated() -> Iterator[Config]:
    """The tables, created as in production; the configuration of Alembic."""
    config = Config(Path(__file__).parents[1] / "alembic.ini")
    command.upgrade(config, "head")
    yield config
    FOLDER.cleanup()


@pytest.fixture
async def session(migrated: Config) -> AsyncIterator[AsyncSession]:
    """A session on empty tables, to prepare and look at rows."""
    async with sessions() as session:
        await session.exec(delete(Job))
        await session.exec(delete(Member))
        await session.commit()
        yield session
    # Connections belong to the event loop of one test.
    await engine.dispose()


@pytest.fixture
async def client(session: AsyncSession) -> AsyncIterator[httpx.AsyncClient]:
    """Sends requests to the application without a server."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client
