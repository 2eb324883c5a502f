"""Workers for nodes with faults. Each run writes into the ledger when it starts and when it ends.

The environment variable `OBAN_LEDGER_URL` is the database of the ledger, without a proxy. Workers write to it
with `async with noted(job):` or, in threads and processes, with `with noted_sync(job):`.
"""

import asyncio
import os
import signal
import sqlite3
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
from sqlalchemy import make_url

from oban import Job, Worker

LEDGER_URL = "OBAN_LEDGER_URL"
#: Seconds for which the database of the ledger can be away.
PATIENCE = 60.0

_INSERT = "INSERT INTO oban_ledger (job, attempt, node, owner, what, run) VALUES ({}) ON CONFLICT DO NOTHING"
_local = threading.local()
#: One thread, so a node has one connection for its ledger.
_writer = ThreadPoolExecutor(1, thread_name_prefix="ledger")


def write(who: tuple[Any, ...], what: str, run: str) -> None:
    """Commit one entry on a connection of this thread, and retry while the database is away."""
    url = make_url(os.environ[LEDGER_URL])
    lite = url.get_backend_name() == "sqlite"
    statement = _INSERT.format(", ".join(["?" if lite else "%s"] * 6))
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if (connection := getattr(_local, "connection", None)) is None:
                if lite:
                    connection = sqlite3.connect(url.database or "", timeout=30, isolation_level=None)
                else:
                    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
                    connection = psycopg.connect(dsn, autocommit=True)
                _local.connection = connection
            connection.execute(statement, (*who, what, run))
            return
        # The key (run, what) makes it safe to repeat an insertion whose answer was lost.
        except psycopg.OperationalError:
            _local.connection = None
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _who(job: Job) -> tuple[Any, ...]:
    node, owner = job.attempted_by
    return job.id, job.attempt, node, owner


class Note:
    """Writes the entries of one run from async code."""

    def __init__(self, job: Job) -> None:
        self._of = _who(job), str(uuid.uuid4())

    async def __call__(self, what: str) -> None:
        who, run = self._of
        # Not on the event loop, which can be in the middle of a transaction on the same SQLite file.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(_writer, write, who, what, run))


@asynccontextmanager
async def noted(job: Job) -> AsyncIterator[None]:
    """Record the start before the block, and how the run ended after it."""
    note = Note(job)
    try:
        await note("start")
        yield
    except asyncio.CancelledError:
        await note("interrupted")
        raise
    except BaseException:
        await note("failed")
        raise
    await note("end")


@contextmanager
def noted_sync(job: Job) -> Iterator[None]:
    """The same for a worker in a thread or in another process."""
    who, run = _who(job), str(uuid.uuid4())
    write(who, "start", run)
    try:
        yield
    except BaseException:
        write(who, "failed", run)
        raise
    write(who, "end", run)


class Pause(Worker, name="faults.Pause"):
    """Takes `args["seconds"]`."""

    async def process(self, job: Job) -> None:
        async with noted(job):
            await asyncio.sleep(job.args["seconds"])


class ThreadPause(Worker, name="faults.ThreadPause"):
    """The same in a thread."""

    def process(self, job: Job) -> None:
        with noted_sync(job):
            time.sleep(job.args["seconds"])


class Block(Worker, name="faults.Block"):
    """Blocks the event loop for `args["seconds"]`."""

    async def process(self, job: Job) -> None:
        async with noted(job):
            time.sleep(job.args["seconds"])  # noqa: ASYNC251 - the fault itself


class Die(Worker, name="faults.Die", max_attempts=3):
    """Ends its process. `args["by"]` is "exit" or the name of a signal, such as "SIGABRT"."""

    async def process(self, job: Job) -> None:
        note = Note(job)
        await note("start")
        await note("exit")
        if job.args["by"] == "exit":
            os._exit(1)
        os.kill(os.getpid(), signal.Signals[job.args["by"]])
        await asyncio.Event().wait()
