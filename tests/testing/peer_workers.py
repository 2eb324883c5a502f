"""Workers for the transcribed tests of other libraries: their jobs end as their args say."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from oban import Cancel, Discard, Job, Record, Snooze, Worker

#: The refs of the jobs that ran, in order.
ran: list[Any] = []


class Boom(Exception):
    """What a job raises that fails."""


def _raise(error: BaseException) -> Any:
    raise error


ACTIONS: dict[str, Callable[[], Any]] = {
    "ok": lambda: None,
    "value": lambda: {"not": "stored"},
    "record": lambda: Record({"answer": 42}),
    "cancel": lambda: Cancel("not needed"),
    "raise cancel": lambda: _raise(Cancel("not needed")),
    "discard": lambda: Discard("hopeless"),
    "raise discard": lambda: _raise(Discard("hopeless")),
    "snooze": lambda: Snooze(60),
    "raise snooze": lambda: _raise(Snooze(60)),
    "fail": lambda: _raise(Boom("no luck")),
    # Not an `Exception`, which ends a process elsewhere.
    "exit": lambda: _raise(SystemExit("leaving")),
}


def _act(job: Job) -> Any:
    ran.append(job.args.get("ref"))
    return ACTIONS[job.args.get("do", "ok")]()


class Acts(Worker):
    """An async worker."""

    async def process(self, job: Job) -> Any:
        await asyncio.sleep(0)
        return _act(job)

    def backoff(self, job: Job) -> float:
        return 15


class PlainActs(Worker):
    """A plain worker, which runs in a thread on a node."""

    def process(self, job: Job) -> Any:
        return _act(job)

    def backoff(self, job: Job) -> float:
        return 15


class Slow(Worker, timeout=0.01):
    """An async worker that takes longer than it can."""

    async def process(self, job: Job) -> None:
        ran.append(job.args.get("ref"))
        await asyncio.sleep(60)


class PlainSlow(Worker, timeout=0.01):
    """A plain worker that takes longer than it can."""

    def process(self, job: Job) -> None:
        ran.append(job.args.get("ref"))
        while not job.cancelled():
            time.sleep(0.001)


class SnoozesTwice(Worker):
    """Snoozes until its meta tells two snoozes."""

    async def process(self, job: Job) -> Snooze | None:
        return Snooze(3600) if job.meta.get("snoozed", 0) < 2 else None


class SucceedsThirdTime(Worker):
    """Fails twice."""

    async def process(self, job: Job) -> None:
        ran.append(job.attempt)
        if job.attempt < 3:
            raise Boom("no luck")


class InProcess(Worker, executor="process"):
    """Runs in a child process, which has no part in the transaction of the test."""

    def process(self, job: Job) -> Any:
        return ACTIONS[job.args["do"]]()
