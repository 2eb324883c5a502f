"""A real PgBouncer in transaction mode, where it is installed."""

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import URL

from tests.support.waiting import eventually

#: The program, or None if it is not installed. Debian installs it outside of most users' PATH.
PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")

SETTINGS = """
[databases]
* = {target}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
server_round_robin = 1
max_client_conn = 200
"""


@asynccontextmanager
async def pgbouncer(target: URL, folder: Path) -> AsyncIterator[URL]:
    """Start PgBouncer in front of the server of a URL, and yield the URL that leads through it."""
    assert PROGRAM is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "host": target.query.get("host") or target.host or "127.0.0.1",
        "port": target.port or 5432,
        "user": target.username,
        "password": target.password,
    }
    line = " ".join(f"{key}={value}" for key, value in options.items() if value)
    file = folder / "pgbouncer.ini"
    file.write_text(SETTINGS.format(target=line, port=port))
    command = [PROGRAM, str(file)]
    if os.geteuid() == 0:
        # It refuses to run as root. The owner of the server's socket can connect to it.
        owner = os.stat(str(options["host"])).st_uid if str(options["host"]).startswith("/") else 65534
        command[1:1] = ["-u", pwd.getpwuid(owner).pw_name]
    log = folder / "pgbouncer.log"
    process = _begun(command, log)

    async def listens() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"pgbouncer ended: {log.read_text()}")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await eventually(listens)
        yield target.set(host="127.0.0.1", port=port, query={})
    finally:
        process.kill()
        process.wait()


def _begun(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("w") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
