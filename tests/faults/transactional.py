"""Workers whose effect is a row in the database, and that can kill their process around it.

The environment variable `OBAN_DEATHS` is a folder. A file in it, named after a job, records the node and the
time at which the job killed its process, so it does that only once.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import NullPool, create_engine, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import Job, Worker
from tests.faults.recording import SYNC
from tests.faults.workers import LEDGER_URL

DEATHS = "OBAN_DEATHS"
#: Where a job kills its process; "committed" is right after the commit, before the answer arrives.
POINTS = ("before", "written", "committed")
TABLE = "CREATE TABLE effects (job bigint NOT NULL, attempt int NOT NULL)"
_EFFECT = text("INSERT INTO effects (job, attempt) VALUES (:job, :attempt)")


def die_once(job: Job) -> None:
    """Kill this process, unless the job has already killed one."""
    file = Path(os.environ[DEATHS]) / str(job.id)
    if file.exists():
        return
    # Written atomically, as another job can kill the process meanwhile.
    noted = file.with_suffix(f".{os.getpid()}")
    noted.write_text(f"{job.attempted_by[0]} {time.time()}")
    noted.rename(file)
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10)


def effect(job: Job) -> dict[str, Any]:
    return {"job": job.id, "attempt": job.attempt}


def write(job: Job, session: Session) -> None:
    """Write the effect of the job in its session, and kill the process around it if the args say so."""
    if job.args["point"] == "before":
        die_once(job)
    session.execute(_EFFECT, effect(job))
    if job.args["point"] == "written":
        die_once(job)
    if job.args["point"] == "committed":
        event.listen(session, "after_commit", lambda _: die_once(job))


class Transactional(Worker, name="faults.Transactional", max_attempts=100):
    """Writes its effect in its job session."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.run_sync(lambda sync: write(job, sync))


class ThreadTransactional(Worker, name="faults.ThreadTransactional", max_attempts=100):
    """The same in a thread."""

    def process(self, job: Job, session: Session) -> None:
        write(job, session)


class Plain(Worker, name="faults.Plain", max_attempts=100):
    """Commits its effect itself, before it has completed."""

    def process(self, job: Job) -> None:
        if job.args["point"] == "before":
            die_once(job)
        url = make_url(os.environ[LEDGER_URL])
        engine = create_engine(url.set(drivername=SYNC[url.get_backend_name()]), poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(_EFFECT, effect(job))
        if job.args["point"] == "written":
            die_once(job)


#: What the next two write to the log of their node when their first attempt has begun.
BEGUN = "begun:"


class Slow(Worker, name="faults.Slow"):
    """Takes `args["seconds"]` in its first attempt, and writes its effect before or after that."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        if job.args["first"]:
            await session.execute(_EFFECT, effect(job))
        if job.attempt == 1:
            print(BEGUN, job.id, file=sys.stderr, flush=True)
            await asyncio.sleep(job.args["seconds"])
        if not job.args["first"]:
            await session.execute(_EFFECT, effect(job))


class ThreadSlow(Worker, name="faults.ThreadSlow"):
    """The same in a thread."""

    def process(self, job: Job, session: Session) -> None:
        if job.args["first"]:
            session.execute(_EFFECT, effect(job))
        if job.attempt == 1:
            print(BEGUN, job.id, file=sys.stderr, flush=True)
            time.sleep(job.args["seconds"])
        if not job.args["first"]:
            session.execute(_EFFECT, effect(job))


KINDS: list[Callable[[dict[str, Any]], Job]] = [Transactional.new, ThreadTransactional.new]
SLOW: list[Callable[[dict[str, Any]], Job]] = [Slow.new, ThreadSlow.new]
