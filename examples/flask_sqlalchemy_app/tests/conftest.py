"""An application on a database with its migrations, once for all tests; each test gets empty tables."""

import os
from collections.abc import Iterator
from pathlib import Path

import flask_migrate
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import delete

from flask_sqlalchemy_app.app import create_app
from flask_sqlalchemy_app.database import db
from flask_sqlalchemy_app.models import Invoice, Rate
from oban import Job


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    folder: Path = tmp_path_factory.mktemp("database")
    # A file, because a database in memory would belong to one connection, which the jobs do not have.
    os.environ["DATABASE_URL"] = os.environ.get("TEST_DATABASE_URL", f"sqlite:///{folder}/test.db")
    app = create_app()
    with app.app_context():
        flask_migrate.upgrade()
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def app(migrated: Flask) -> Flask:
    with migrated.app_context():
        for model in (Job, Invoice, Rate):
            db.session.execute(delete(model))
        db.session.commit()
    return migrated


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
