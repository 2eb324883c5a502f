"""Workers without a declared type of args, with every option."""

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from oban import (
    Cancel,
    Discard,
    Job,
    JobState,
    Record,
    Snooze,
    Unique,
    UniqueOptions,
    Worker,
    current_job,
    job,
    worker,
)


class Plain(Worker):
    async def process(self, job: Job) -> None:
        return None


class Configured(
    Worker,
    name="typing.configured",
    queue="media",
    priority=3,
    max_attempts=5,
    tags=["a"],
    meta={"tenant": 7},
    oban="Other",
    cron="0 3 * * *",
    timezone="Europe/Berlin",
    args={"a": 1},
    cron_name="nightly",
    catch_up=3,
    window=timedelta(hours=2),
    timeout=timedelta(minutes=1),
    retry_on={OSError: 5, TimeoutError: timedelta(minutes=1)},
    discard_on=ValueError,
    cancel_on=(LookupError, PermissionError),
    snooze_on={ConnectionError: 60},
):
    async def process(self, job: Job, args: dict[str, Any]) -> Cancel | Snooze | Record | None:
        if job.cancelled():
            return Cancel("no longer needed")
        if not args:
            return Snooze(timedelta(minutes=5))
        if len(args) > 1:
            raise Discard("too many")
        return Record({"sum": args["a"]})

    def backoff(self, job: Job) -> float | timedelta | None:
        delay = super().backoff(job)
        return None if delay is None else delay * job.attempt

    def timeout(self, job: Job) -> float | timedelta | None:
        return None if job.args else 30


class Derived(Configured, executor=None, priority=1):
    pass


class Once(
    Worker,
    unique={"period": timedelta(minutes=5), "keys": ["account_id"], "states": "incomplete"},
    replace={"scheduled": ["scheduled_at", "args"], JobState.AVAILABLE: ["args"]},
):
    async def process(self, job: Job) -> bool:
        return job.conflict


class NeverTwice(Once, unique=Unique(states=["executing", JobState.RETRYABLE]), replace=None):
    pass


FOR_A_MINUTE: UniqueOptions = {"period": 60, "fields": ["worker", "args"], "timestamp": "scheduled_at"}


def unique_jobs() -> list[Job]:
    states = [JobState.EXECUTING]
    return [
        Once.new({}, unique=True, replace=["scheduled_at"]),
        Once.new({}, unique=False),
        Once.new({}, unique=FOR_A_MINUTE),
        Plain.new({}, unique={"states": states}),
        Plain.new({}, unique={"group": "scheduled"}, replace={"scheduled": ("args",)}),
        Job(worker="typing.Other", unique=Unique(60)),
        Job(worker="typing.Other", unique=None, replace=None),
    ]


class InProcess(Worker, executor="process", timeout=1.5, tags=("a", "b")):
    def process(self, job: Job) -> Snooze:
        return Snooze(1.5)


@worker(queue="media", executor="thread", name="typing.decorated")
class Decorated:
    def process(self, job: Job) -> Record:
        return Record(job.args["n"])


class InItsTransaction(Worker):
    async def process(self, job: Job, session: AsyncSession) -> None:
        session.add(Plain.new(job.args))


class InItsThread(Worker):
    def process(self, job: Job, args: dict[str, Any], *, session: Session) -> None:
        Plain.enqueue_sync(args, session=session)


async def enqueue(session: AsyncSession, connection: AsyncConnection) -> None:
    assert_type(Plain.new(), Job)
    assert_type(Plain.new({"n": 1}), Job)
    assert_type(await Plain.enqueue({"n": [1, None]}), Job)
    await Plain.enqueue({"n": 1}, session=session)
    await Plain.enqueue(session=connection, queue="media", priority=0)
    Configured.new({"n": 1}, max_attempts=1, tags={"x"}, meta={}, scheduled_at=datetime.now(UTC))
    await Derived.enqueue(schedule_in=60)
    Derived.new(schedule_in=timedelta(hours=1), tags=frozenset(["x"]))


def read(job: Job) -> None:
    assert_type(job.id, int)
    assert_type(job.args, dict[str, Any])
    assert_type(job.meta, dict[str, Any])
    assert_type(job.tags, list[str])
    assert_type(job.errors, list[dict[str, Any]])
    assert_type(job.attempted_by, list[str])
    assert_type(job.state, JobState)
    assert_type(job.scheduled_at, datetime)
    assert_type(job.completed_at, datetime | None)
    assert_type(job.attempt, int)
    assert_type(job.cancelled(), bool)
    assert_type(current_job(), Job | None)
    job.tags = ["a"]
    job.priority = 3


def any_worker(cls: type[Worker[Any]]) -> str:
    return cls.worker_name


any_worker(Plain)
any_worker(Derived)


class Renamed(Worker, name="typing.new", aliases=["typing.old"], timeout=None):
    async def process(self, job: Job, args: dict[str, Any]) -> Snooze:
        return Snooze(60, meta={"page": 2})

    def backoff(self, job: Job, error: BaseException) -> float | None:
        return None if isinstance(error, KeyError) else 5


class Positional(Worker, aliases="typing.older"):
    def process(self, job: Job) -> None:
        return None

    def backoff(self, job: Job, error: BaseException, factor: int = 2) -> timedelta:
        return timedelta(seconds=factor)


@job(aliases=("typing.function",))
async def renamed(self: int) -> None:
    assert_type(await Renamed.enqueue(scheduled_in=-1), Job)
    assert_type(await renamed.with_options(scheduled_in=timedelta(0)).enqueue(self=1), Job)
    assert_type(Snooze(60).meta, dict[str, Any] | None)
