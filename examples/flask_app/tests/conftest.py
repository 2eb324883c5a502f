"""The application in the transaction of a test, with the fixtures of Oban's plugin for pytest."""

import pytest
from flask.testing import FlaskClient
from sqlalchemy import MetaData
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from flask_app.app import Database, create_app
from flask_app.models import Base
from oban import SyncOban


@pytest.fixture(scope="session")
def oban_metadata() -> MetaData:
    return Base.metadata


@pytest.fixture
def client(sync_oban: SyncOban, sync_oban_sessionmaker: sessionmaker[Session]) -> FlaskClient:
    """Sends requests to the application without a server. The commits of its session end savepoints."""
    return create_app(Database(sync_oban, scoped_session(sync_oban_sessionmaker))).test_client()
