"""A folder with an application in it, for every test of the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.cli.support import WORKERS
from tests.support.databases import PostgreSQLFactory, SQLiteFactory


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "workers.py").write_text(WORKERS)
    monkeypatch.chdir(tmp_path)
    for name in ("OBAN_DATABASE_URL", "OBAN_LISTEN_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def sqlite_url(sqlite_factory: SQLiteFactory) -> Iterator[URL]:
    """A fresh SQLite database, for tests that do not depend on the database."""
    made = sqlite_factory.create()
    yield made
    sqlite_factory.drop(made)


@pytest.fixture
def postgresql_url(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """A fresh PostgreSQL database."""
    made = postgresql_factory.create()
    yield made
    postgresql_factory.drop(made)
