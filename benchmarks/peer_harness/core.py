"""What adapters and the harness share: the adapter interface and the probe."""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import time
from typing import Any, ClassVar

QUEUE = "bench"
OTHER = "bench_other"
SLOTS = 100_000
_U64 = struct.Struct("<Q")


class Probe:
    """A shared file in which job bodies note that, and when, they started.

    Layout: one counter (jobs started), then one monotonic-clock stamp per job
    index. CLOCK_MONOTONIC is one clock for all processes of a Linux machine,
    so stamps from the worker and the client processes can be compared.
    """

    def __init__(self, path: str, create: bool = False) -> None:
        size = 8 * (SLOTS + 1)
        if create:
            with open(path, "wb") as file:
                file.truncate(size)
        fd = os.open(path, os.O_RDWR)
        self.map = mmap.mmap(fd, size)
        os.close(fd)
        self._seen = 0

    def record(self, index: int) -> None:
        """Called by every job body, in the worker process only."""
        _U64.pack_into(self.map, 8 + 8 * index, time.monotonic_ns())
        self._seen += 1
        _U64.pack_into(self.map, 0, self._seen)

    def count(self) -> int:
        return _U64.unpack_from(self.map, 0)[0]

    def stamp(self, index: int) -> int:
        return _U64.unpack_from(self.map, 8 + 8 * index)[0]

    def clear(self) -> None:
        self.map[:] = bytes(len(self.map))


_probe: Probe | None = None


def set_probe(probe: Probe) -> None:
    global _probe
    _probe = probe


def record(index: int) -> None:
    """Store the time at which a job ran. Only worker processes have a probe."""
    if _probe is None:
        raise RuntimeError("no probe in this process")
    _probe.record(index)


class Adapter:
    """One library under test. Each method runs in a process of its own kind.

    A new library needs a module in ``bench/adapters`` with a subclass called
    ``Adapter``; see README.md.
    """

    #: distributions whose versions are reported
    packages: tuple[str, ...] = ()
    #: name -> keyword arguments of run_worker(); the drain scenario tries each
    variants: ClassVar[dict[str, dict[str, Any]]] = {
        "c10": {"concurrency": 10},
        "c50": {"concurrency": 50},
        "c200": {"concurrency": 200},
    }
    #: the variant for latency and scheduled; for drain_backlog
    latency_variant = "c10"
    backlog_variant = "c50"
    #: single SQL number: jobs of QUEUE that are not yet in a terminal state
    remaining_sql = ""
    #: has a bulk insert API (else enqueue_many loops)
    bulk = True
    can_schedule = True
    #: anything that a reader of the results should know
    notes = ""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    # -- schema; db is an autocommit psycopg connection (sync) to self.dsn ----
    async def setup(self, db: Any) -> None:
        """Create the library's tables in an empty database."""
        raise NotImplementedError

    def reset(self, db: Any) -> None:
        """Empty the tables."""
        raise NotImplementedError

    async def fill(self, db: Any, count: int) -> None:
        """Insert `count` jobs, ready to run, with the arguments {"i": 0..count-1}."""
        await self.open_client()
        for start in range(0, count, 1000):
            await self.enqueue_many(list(range(start, min(start + 1000, count))))
        await self.close_client()

    def backlog(self, db: Any, completed: int, available: int) -> None:
        """Fill the table with finished jobs (QUEUE) and available ones (OTHER)."""
        raise NotImplementedError

    def clear_queue(self, db: Any) -> None:
        """Delete the jobs of the last backlog drain, leaving the backlog."""
        raise NotImplementedError

    # -- client ---------------------------------------------------------------
    async def open_client(self) -> None: ...

    async def close_client(self) -> None: ...

    async def enqueue(self, index: int, delay: float | None = None) -> None:
        raise NotImplementedError

    async def enqueue_many(self, indexes: list[int]) -> None:
        for index in indexes:
            await self.enqueue(index)

    # -- worker ---------------------------------------------------------------
    async def run_worker(self, stop: asyncio.Event, **options: Any) -> None:
        """Run jobs of QUEUE until `stop` is set; bodies call core.record(i)."""
        raise NotImplementedError
