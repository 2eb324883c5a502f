import pytest
from shop import Base
from sqlalchemy import MetaData


@pytest.fixture(scope="session")
def oban_metadata() -> MetaData:
    return Base.metadata


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
