"""CPU time of processes and of the PostgreSQL server, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg

TICK = os.sysconf("SC_CLK_TCK")


def process_cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Server:
    """CPU seconds of the server: its postmaster, its children, and those reaped."""

    def __init__(self, dsn: str) -> None:
        with psycopg.connect(dsn) as db:
            backend = db.execute("SELECT pg_backend_pid()").fetchone()[0]
            keys = [
                "server_version",
                "fsync",
                "synchronous_commit",
                "full_page_writes",
                "wal_level",
                "shared_buffers",
                "max_wal_size",
                "max_connections",
                "autovacuum",
                "jit",
            ]
            self.settings = {key: db.execute(f"SHOW {key}").fetchone()[0] for key in keys}
            try:  # only when it runs on this machine
                stat = Path(f"/proc/{backend}/stat").read_text()
                self.pid = int(stat.rsplit(")", 1)[1].split()[1])
            except OSError:
                self.pid = None

    def cpu(self) -> float | None:
        if self.pid is None:
            return None
        total = 0
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            fields = stat.rsplit(")", 1)[1].split()
            if int(entry.name) == self.pid:
                total += sum(int(fields[k]) for k in (11, 12, 13, 14))
            elif int(fields[1]) == self.pid:
                total += int(fields[11]) + int(fields[12])
        return total / TICK
