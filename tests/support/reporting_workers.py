"""Workers that report progress and log lines, one of each kind, which child processes can import."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import Cancel, Job, Record, Snooze, Worker


def report(job: Job) -> None:
    """Report what the args of the job say."""
    for arguments in job.args.get("progress", ()):
        job.progress(*arguments)
    for line in job.args.get("lines", ()):
        job.log.info(line)


def end(job: Job) -> Any:
    """End the job as its args say."""
    match job.args.get("end"):
        case "fail":
            raise ValueError("broken")
        case "cancel":
            return Cancel("no more")
        case "snooze":
            return Snooze(3600, meta={"cursor": 7})
        case "record":
            return Record({"rows": 3})
        case "die":
            # Long enough for the last message to be sent.
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
    return None


def released(job: Job) -> bool:
    """Whether the test lets the job go on."""
    return "gate" not in job.args or Path(job.args["gate"]).exists() or job.cancelled()


async def until_released(job: Job) -> None:
    pause = asyncio.Event()
    while not released(job):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(pause.wait(), 0.01)


class OnLoop(Worker):
    async def process(self, job: Job) -> Any:
        report(job)
        await until_released(job)
        return end(job)


class InThread(Worker):
    def process(self, job: Job) -> Any:
        report(job)
        while not released(job):
            time.sleep(0.01)
        return end(job)


class InProcess(Worker, executor="process"):
    def process(self, job: Job) -> Any:
        report(job)
        while not released(job):
            time.sleep(0.01)
        return end(job)


class SlowInProcess(InProcess, timeout=0.5):
    pass


class WithSession(Worker):
    async def process(self, job: Job, session: AsyncSession) -> Any:
        await session.execute(text("SELECT 1"))
        report(job)
        await until_released(job)
        return end(job)


class WithSessionInThread(Worker):
    def process(self, job: Job, session: Session) -> Any:
        session.execute(text("SELECT 1"))
        report(job)
        while not released(job):
            time.sleep(0.01)
        return end(job)


class InHelperThreads(Worker):
    """Reports from several threads at once that it has started itself."""

    def process(self, job: Job) -> None:
        def work(number: int) -> None:
            for step in range(50):
                job.progress(number * 100 + step)
                job.log.info("%s: step %s", number, step)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        job.progress(1000, 1000)


KINDS: list[type[Worker]] = [OnLoop, InThread, InProcess, WithSession, WithSessionInThread]
