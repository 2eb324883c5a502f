"""Workers that end in every way, in each executor. Child processes import this module."""

import os
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import Cancel, Discard, Job, Record, Snooze, Worker, current_job, job, worker


class PaymentFailed(Exception):
    """An exception with more than a message."""

    def __init__(self, account: int, reason: str) -> None:
        super().__init__(account, reason)
        self.account = account
        self.reason = reason

    def __str__(self) -> str:
        return f"account {self.account}: {self.reason}"


class Opaque(Exception):
    """An exception that cannot be made again from JSON."""

    def __init__(self, thing: object) -> None:
        super().__init__(thing)

    def __str__(self) -> str:
        return "opaque"


class Busy(Exception):
    pass


class Later(Busy):
    pass


class Gone(Exception):
    pass


class Hopeless(Exception):
    pass


class HopelessAndOpaque(Hopeless, Opaque):
    pass


class NeverMind(Cancel):
    """An outcome of an application."""

    def __init__(self) -> None:
        super().__init__("never mind")


RULES: dict[str, Any] = {
    "retry_on": {Busy: 90},
    "discard_on": (Hopeless, TimeoutError),
    "cancel_on": Gone,
    "snooze_on": {Later: 60},
}


def fail(make: Callable[[], BaseException]) -> Callable[[Job], Any]:
    def act(job: Job) -> Any:
        # A new one each time, as an exception keeps the frames, and sessions in them, alive.
        raise make()

    return act


def fail_with_a_cause(job: Job) -> Any:
    try:
        dict[str, int]()["a"]
    except KeyError as error:
        raise PaymentFailed(7, "no money") from error


def fail_with_a_class(job: Job) -> Any:
    raise Cancel


ACTIONS: dict[str, Callable[[Job], Any]] = {
    "complete": lambda job: None,
    "record": lambda job: Record(1),
    "cancel": lambda job: Cancel("no such account\nforged line"),
    "snooze": lambda job: Snooze(60),
    "key": lambda job: dict[str, int]()["a"],
    "lines": fail(lambda: ValueError("first\nsecond\x1b[31m")),
    "control": fail(lambda: ValueError("red \x1b[31m")),
    "payment": fail_with_a_cause,
    "opaque": fail(lambda: Opaque(object())),
    "discard": lambda job: Discard("no such account"),
    "raise cancel": fail(lambda: Cancel("no such account")),
    "raise discard": fail(lambda: Discard("no such account")),
    "raise snooze": fail(lambda: Snooze(60)),
    "raise a class": fail_with_a_class,
    "raise own": fail(NeverMind),
    "busy": fail(lambda: Busy("try again")),
    "later": fail(lambda: Later("not yet")),
    "gone": fail(lambda: Gone("moved")),
    "hopeless": fail(lambda: Hopeless("no")),
    "hopeless and opaque": fail(lambda: HopelessAndOpaque(object())),
}


def act(job: Job) -> Any:
    return ACTIONS[job.args["do"]](job)


class Base(Worker, **RULES):
    def backoff(self, job: Job) -> float:
        return 17


class OnLoop(Base):
    async def process(self, job: Job) -> Any:
        return act(job)


class InThread(Base):
    def process(self, job: Job) -> Any:
        return act(job)


class InChild(Base, executor="process"):
    def process(self, job: Job) -> Any:
        return act(job)


class OnLoopWithSession(Base):
    async def process(self, job: Job, session: AsyncSession) -> Any:
        return act(job)


class InThreadWithSession(Base):
    def process(self, job: Job, session: Session) -> Any:
        return act(job)


@job(**RULES)
async def function(do: str) -> Any:
    running = current_job()
    assert running is not None
    return ACTIONS[do](running)


@worker(**RULES)
class Decorated:
    def process(self, job: Job) -> Any:
        return act(job)


class Dies(Worker, executor="process", cancel_on=ChildProcessError):
    def process(self, job: Job) -> None:
        os._exit(3)


class SlowInChild(Worker, executor="process", timeout=0.3, discard_on=TimeoutError):
    def process(self, job: Job) -> None:
        time.sleep(600)


#: A worker for each way to run a job.
WORKERS: dict[str, type[Worker]] = {
    "loop": OnLoop,
    "thread": InThread,
    "child": InChild,
    "loop with session": OnLoopWithSession,
    "thread with session": InThreadWithSession,
}
