"""A failed job runs again after the default delay, or after the worker's if that is valid."""

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban, Worker
from oban.database.aio import Database
from oban.runner.execution.executor import Executor
from oban.runner.execution.job_session import JobSessions
from oban.runner.execution.job_session_threads import ThreadSessions
from oban.runner.execution.run import Run
from oban.runner.processes.pool import ProcessPool
from tests.support.jobs import acknowledged, reaches
from tests.support.options import BRIEF, NO_POLLING

pytestmark = pytest.mark.execution


class Fails(Worker):
    """Fails. Its backoff returns or raises what the test has set."""

    delay: BaseException = ValueError("in backoff")

    async def process(self, job: Job) -> None:
        raise ValueError("bad")

    def backoff(self, job: Job) -> Any:
        raise self.delay


class FailsLonger(Worker):
    async def process(self, job: Job) -> None:
        raise ValueError("bad")

    def backoff(self, job: Job) -> float:
        return 1000 * job.attempt


async def waited(oban: Oban, job: Job) -> tuple[Job, timedelta]:
    row = await reaches(oban, job, JobState.RETRYABLE)
    assert row.attempted_at is not None
    return row, row.scheduled_at - row.attempted_at


async def test_a_worker_decides_by_its_job_how_long_it_waits(url: URL) -> None:
    async with Oban(url, queues={"default": 5}) as oban:
        job = await oban.enqueue(FailsLonger.new())
        _, delay = await waited(oban, job)
        assert timedelta(seconds=1000) <= delay < timedelta(seconds=1010)
        await oban.retry_job(job)
        await acknowledged(oban)
        row, delay = await waited(oban, job)
        assert row.attempt == 2
        assert timedelta(seconds=2000) <= delay < timedelta(seconds=2010)


#: Delays that a worker can return, and their seconds.
DELAYS: list[tuple[Any, float]] = [(0.25, 0.25), (timedelta(hours=1), 3600), (90 * 86400, 90 * 86400)]
#: Values that are not delays.
NONSENSE: list[Any] = [
    *("soon", -1, math.nan, math.inf, True, 10**30, 1e300, object(), [1]),
    *(ValueError("in backoff"), asyncio.CancelledError()),
]


class FailsByNumber(Fails):
    def backoff(self, job: Job) -> Any:
        delay = [*(delay for delay, _ in DELAYS), *NONSENSE][job.args["n"]]
        if isinstance(delay, BaseException):
            raise delay
        return delay


async def test_a_backoff_can_have_any_length(url: URL) -> None:
    async with Oban(url, queues={"default": 5}, **NO_POLLING) as oban:
        for n, (_, seconds) in enumerate(DELAYS):
            job = await oban.enqueue(FailsByNumber.new({"n": n}, max_attempts=2))
            row = await reaches(oban, job, JobState.RETRYABLE, JobState.DISCARDED)
            # SQLite stores milliseconds; the second attempt does not move the time again.
            delay = row.scheduled_at - datetime.fromisoformat(row.errors[0]["at"])
            assert abs(delay - timedelta(seconds=seconds)) <= timedelta(milliseconds=1)


async def test_a_backoff_that_fails_or_is_not_a_delay_gives_the_default(url: URL) -> None:
    numbers = range(len(DELAYS), len(DELAYS) + len(NONSENSE))
    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        jobs = await oban.enqueue_many([FailsByNumber.new({"n": n}) for n in numbers])
        for job, nonsense in zip(jobs, NONSENSE, strict=True):
            row, delay = await waited(oban, job)
            assert row.attempt == 1, nonsense
            assert row.errors[0]["error"].endswith("ValueError: bad")
            assert timedelta(seconds=16.9) <= delay <= timedelta(seconds=20), nonsense
        await acknowledged(oban)


class Own(Exception):
    pass


class TakesError(Worker):
    """Fails, and discards the job after its own exception or after a timeout."""

    async def process(self, job: Job) -> None:
        if job.args["do"] == "wait":
            await asyncio.Event().wait()
        raise {"own": Own("why"), "other": ValueError("bad")}[job.args["do"]]

    def backoff(self, job: Job, error: BaseException) -> float | None:
        return None if isinstance(error, (Own, TimeoutError)) else 1000

    def timeout(self, job: Job) -> float | None:
        return 0.05 if job.args["do"] == "wait" else None


class TakesErrorInThread(TakesError):
    def process(self, job: Job) -> None:  # type: ignore[override]
        raise {"own": Own("why"), "other": ValueError("bad")}[job.args["do"]]

    @staticmethod
    def backoff(*args: Any) -> float | None:
        return TakesError().backoff(*args)


class StopsInThread(Worker):
    def process(self, job: Job) -> None:
        next(iter(()))

    def backoff(self, job: Job, error: BaseException) -> float | None:
        return None if isinstance(error, StopIteration) else 1000


class StopsWithSession(StopsInThread):
    def process(self, job: Job, session: Session) -> None:  # type: ignore[override]
        super().process(job)


class RetriesItself(TakesError, retry_on={Own: 500}):
    pass


@pytest.mark.parametrize(
    ("worker", "do", "delay", "text"),
    [
        (TakesError, "own", None, "Own: why"),
        (TakesError, "other", 1000, "ValueError: bad"),
        (TakesError, "wait", None, "TakesError timed out after 0.05 s"),
        (TakesErrorInThread, "own", None, "Own: why"),
        (TakesErrorInThread, "other", 1000, "ValueError: bad"),
        (StopsInThread, "own", None, "StopIteration"),
        (StopsWithSession, "own", None, "StopIteration"),
        (RetriesItself, "own", 500, "Own: why"),
    ],
)
async def test_a_backoff_decides_by_the_exception(
    url: URL, worker: type[Worker], do: str, delay: float | None, text: str
) -> None:
    async with Oban(url, queues={"default": 5}, **NO_POLLING) as oban:
        row = await reaches(
            oban, await oban.enqueue(worker.new({"do": do})), JobState.RETRYABLE, JobState.DISCARDED
        )
    assert row.errors[0]["error"].endswith(text)
    if delay is None:
        assert (row.state, row.attempt, row.discarded_at is None) == (JobState.DISCARDED, 1, False)
    else:
        waits = row.scheduled_at - datetime.fromisoformat(row.errors[0]["at"])
        assert (row.state, round(waits.total_seconds())) == (JobState.RETRYABLE, delay)


@pytest.mark.parametrize("raised", [SystemExit(1), KeyboardInterrupt()], ids=repr)
async def test_a_backoff_cannot_end_the_node(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> None:
    monkeypatch.setattr(Fails, "delay", raised)
    job = Fails.new()
    job.__dict__.update(id=1, attempt=1)
    # Called directly, as these exceptions would end the test run if a task raised them.
    database = Database("sqlite+aiosqlite://")
    sessions, thread_sessions = JobSessions(database, 1.0), ThreadSessions(database, 1.0)
    with ThreadPoolExecutor(1) as threads:
        try:
            executor = Executor(threads, ProcessPool(), sessions, thread_sessions)
            ack = await executor.execute(Run(job, "owner", "node"))
        except BaseException as error:
            pytest.fail(f"execute raised {error!r}")
    assert ack is not None
    assert ack.outcome == "failed"
    assert ack.delay is not None
    assert 16.9 <= ack.delay <= 20
    assert str(ack.error).endswith("ValueError: bad")


async def test_with_more_attempts_the_same_delays_are_spread_over_them(url: URL) -> None:
    class FailsOften(Worker, max_attempts=200):
        async def process(self, job: Job) -> None:
            raise ValueError("bad")

    async with Oban(url, queues={"default": 5}) as oban:
        job = await oban.enqueue(FailsOften.new())
        _, delay = await waited(oban, job)
    # 15 + 2^0 seconds, as the first of 200 attempts scales to less than the first of 20.
    assert timedelta(seconds=15.9) <= delay <= timedelta(seconds=18)
