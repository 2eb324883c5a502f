"""The application in the transaction of a test, with the fixtures of Oban's plugin for pytest."""

from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Connection, MetaData

from flask_sqlalchemy_app.app import create_app
from flask_sqlalchemy_app.database import Base, db
from flask_sqlalchemy_app.jobs import in_app_context
from oban import SyncOban


@pytest.fixture(scope="session")
def oban_metadata() -> MetaData:
    return Base.metadata


@pytest.fixture(scope="session")
def unbound() -> Flask:
    """The application, whose own engine no test uses."""
    app = create_app(SQLALCHEMY_DATABASE_URI="sqlite://")
    with app.app_context():
        # So that a commit ends a savepoint.
        db.session.configure(join_transaction_mode="create_savepoint")
    return app


@pytest.fixture
def oban_options(unbound: Flask) -> dict[str, Any]:
    return {"middleware": [in_app_context(unbound)]}


@pytest.fixture
def app(
    unbound: Flask, sync_oban: SyncOban, sync_oban_connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> Flask:
    """The application, each `db.session` of which works in the transaction of the test."""
    monkeypatch.setattr(SQLAlchemy, "engines", {None: sync_oban_connection})
    monkeypatch.setitem(unbound.extensions, "oban", sync_oban)
    return unbound


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
