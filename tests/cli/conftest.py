"""A folder with an application in it, for every test of the command line."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban import Oban, SyncOban
from tests.cli.shop import Shop
from tests.support.commands import WORKERS
from tests.support.databases import PostgreSQLFactory
from tests.support.starts import record_starts
from tests.support.terminal import Terminals, start_terminals


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "workers.py").write_text(WORKERS)
    monkeypatch.chdir(tmp_path)
    # Commands in this process import the application of the test, not that of the test before.
    monkeypatch.setattr(sys, "path", [*sys.path])
    for module in [name for name in sys.modules if name.split(".")[0] == "app"]:
        monkeypatch.delitem(sys.modules, module)
    for name in [name for name in os.environ if name.startswith("OBAN_") and name != "OBAN_FAST_PATH"]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture(scope="session")
def terminals() -> Iterator[Terminals]:
    """Runs commands in terminals."""
    with start_terminals() as running:
        yield running


@pytest.fixture
def postgresql_url(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """A fresh PostgreSQL database."""
    made = postgresql_factory.create()
    yield made
    postgresql_factory.drop(made)


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, terminals: Terminals) -> Shop:
    """Runs commands with a fresh database, one of each kind."""
    return Shop(request.getfixturevalue(f"{request.param}_url"), terminals)


@pytest.fixture
def sqlite_shop(sqlite_url: URL, terminals: Terminals) -> Shop:
    """The same, for tests that do not depend on the database."""
    return Shop(sqlite_url, terminals)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Oban]:
    """The instances that `oban start` would run, in this process."""
    return record_starts(monkeypatch)


@pytest.fixture(params=["sqlite", "postgresql"])
def operated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncOban]:
    """A client of the database that commands use, for tests of what they show of it."""
    url: URL = request.getfixturevalue(f"{request.param}_url")
    monkeypatch.setenv("OBAN_DATABASE_URL", url.render_as_string(hide_password=False))
    driver = "psycopg" if request.param == "postgresql" else "pysqlite"
    with SyncOban(url.set(drivername=f"{request.param}+{driver}")) as client:
        yield client
