"""Each web application on SQLite and on PostgreSQL, started once for the tests of a module."""

from collections.abc import Iterator

import pytest

from tests.examples.applications import Application, FastAPI, Flask
from tests.support.databases import Factory

#: The class of each application, the factory of its database, and the driver of its URL.
APPLICATIONS = {
    "fastapi-sqlite": (FastAPI, "sqlite_factory", "sqlite+aiosqlite"),
    "fastapi-asyncpg": (FastAPI, "postgresql_factory", "postgresql+asyncpg"),
    "flask-sqlite": (Flask, "sqlite_factory", "sqlite"),
    "flask-psycopg": (Flask, "postgresql_factory", "postgresql+psycopg"),
}


@pytest.fixture(scope="module", params=APPLICATIONS)
def application(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Application]:
    """A running application on a database that had no tables."""
    kind, name, driver = APPLICATIONS[request.param]
    factory: Factory = request.getfixturevalue(name)
    url = factory.create(empty=True)
    made = kind(url.set(drivername=driver), tmp_path_factory.mktemp(request.param))
    try:
        made.start()
        yield made
    finally:
        made.close()
        factory.drop(url)
