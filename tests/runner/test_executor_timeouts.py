"""Timeouts of attempts on the event loop and in threads, and the context variables that a job sees."""

import asyncio
import contextvars
import logging
import math
import threading
import time
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Cancel, Job, JobState, Oban, Record, Worker, job
from tests.support.jobs import reaches, row_of
from tests.support.options import BRIEF, FAST_POLLING
from tests.support.waiting import eventually

pytestmark = pytest.mark.execution


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


class Endless(Worker, timeout=0.05, max_attempts=2):
    async def process(self, job: Job) -> None:
        await wait_for_ever()


class OwnTimeoutError(Worker, timeout=30):
    async def process(self, job: Job) -> None:
        async with asyncio.timeout(0.01):
            await wait_for_ever()


class OwnTimeoutErrorInThread(Worker, timeout=30):
    def process(self, job: Job) -> None:
        raise TimeoutError("its own")


class Tidy(Worker, timeout=timedelta(seconds=0.05)):
    """Returns a value when it is interrupted."""

    async def process(self, job: Job) -> Any:
        try:
            await wait_for_ever()
        except asyncio.CancelledError:
            return Record("tidied up")


class Untidy(Worker, timeout=0.05):
    """Fails while it is interrupted."""

    async def process(self, job: Job) -> None:
        try:
            await wait_for_ever()
        finally:
            raise ValueError("while tidying up")


class ByJob(Worker, timeout=60):
    async def process(self, job: Job) -> None:
        await wait_for_ever()

    def timeout(self, job: Job) -> float:
        return float(job.args["limit"])


class Quick(Worker):
    """Has a timeout that is not a limit."""

    limit: Any = None

    async def process(self, job: Job) -> Record:
        return Record("done")

    def timeout(self, job: Job) -> Any:
        if isinstance(self.limit, BaseException):
            raise self.limit
        return self.limit


@job(timeout=0.05)
async def endless() -> None:
    await wait_for_ever()


async def error_of(oban: Oban, enqueued: Job) -> str:
    row = await reaches(oban, enqueued, JobState.RETRYABLE)
    (entry,) = row.errors
    return str(entry["error"])


async def test_an_attempt_that_takes_too_long_fails_and_counts(url: URL) -> None:
    async with Oban(url, queues={"default": 5}, **BRIEF) as oban:
        enqueued = await oban.enqueue(Endless.new())
        row = await reaches(oban, enqueued, JobState.RETRYABLE)
        (entry,) = row.errors
        # The traceback shows where the job was, and the message why it ended.
        assert "in wait_for_ever" in entry["error"]
        assert entry["error"].endswith(f"\nTimeoutError: {Endless.worker_name} timed out after 0.05 s")
        assert row.attempt == 1
        delay = row.scheduled_at - datetime.fromisoformat(entry["at"])
        assert timedelta(seconds=16.9) <= delay <= timedelta(seconds=18.8)
        await oban.update_job(enqueued, {"schedule_in": 0})
        row = await reaches(oban, enqueued, JobState.DISCARDED)
        assert [entry["attempt"] for entry in row.errors] == [1, 2]
        assert "endless timed out after 0.05 s" in await error_of(oban, await oban.enqueue(endless.new()))


async def test_a_method_decides_for_each_job(url: URL) -> None:
    async with Oban(url, queues={"default": 5}, **BRIEF) as oban:
        enqueued = await oban.enqueue(ByJob.new({"limit": 0.02}))
        assert "timed out after 0.02 s" in await error_of(oban, enqueued)


@pytest.mark.parametrize("worker", [OwnTimeoutError, OwnTimeoutErrorInThread])
async def test_a_timeout_that_the_job_itself_raises_is_its_own(url: URL, worker: type[Worker]) -> None:
    async with Oban(url, queues={"default": 5}, **BRIEF) as oban:
        text = await error_of(oban, await oban.enqueue(worker.new()))
    assert "TimeoutError" in text
    assert "timed out after" not in text


async def test_an_interrupted_job_can_still_return_an_outcome(url: URL) -> None:
    async with Oban(url, queues={"default": 5}, **BRIEF) as oban:
        row = await reaches(oban, await oban.enqueue(Tidy.new()), JobState.COMPLETED)
        assert row.meta["return"] == "tidied up"
        text = await error_of(oban, await oban.enqueue(Untidy.new()))
        assert "ValueError: while tidying up" in text
        assert text.endswith("timed out after 0.05 s")


class Unwilling(Exception):
    def __str__(self) -> str:
        raise SystemExit


@pytest.mark.parametrize(
    "limit",
    [
        *(None, 0, -1, math.nan, math.inf, "x", True, [], 10**400, timedelta(seconds=-1)),
        *(ValueError("no"), SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), Unwilling()),
    ],
    ids=lambda limit: type(limit).__name__,
)
async def test_an_invalid_timeout_does_not_fail_the_job(
    sqlite_url: URL, limit: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Quick, "limit", limit)
    async with Oban(sqlite_url, queues={"default": 5}, **FAST_POLLING) as oban:
        row = await reaches(oban, await oban.enqueue(Quick.new()), JobState.COMPLETED)
    assert (row.meta["return"], row.attempt, row.errors) == ("done", 1, [])
    logged = [record for record in caplog.records if record.name == "oban.executor"]
    assert len(logged) == (limit is not None)
    assert all("runs without a limit" in record.getMessage() for record in logged)


class Stuck(Worker, timeout=0.05, queue="narrow"):
    """Waits in a thread until the test releases it."""

    result: Any = None
    go = threading.Event()
    told = threading.Event()

    def process(self, job: Job) -> Any:
        while not self.go.wait(0.005):
            if job.cancelled():
                self.told.set()
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.fixture
def stuck() -> type[Stuck]:
    Stuck.go.clear()
    Stuck.told.clear()
    return Stuck


@pytest.mark.parametrize(
    "result", [Record(1), Cancel("no"), ValueError("late")], ids=["record", "cancel", "error"]
)
async def test_a_job_in_a_thread_past_its_timeout_is_told_and_keeps_its_slot_until_it_ends(
    url: URL,
    stuck: type[Stuck],
    result: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Stuck, "result", result)
    caplog.set_level(logging.INFO, logger="oban.executor")
    async with Oban(url, queues={"narrow": 1}, **FAST_POLLING) as oban:
        enqueued = await oban.enqueue(stuck.new())
        await eventually(stuck.told.is_set)
        assert "attempt 1 of 20, after its timeout of 0.05 s" in caplog.text
        assert [record for record in caplog.records if record.levelno > logging.INFO] == []
        follower = await oban.enqueue(Stuck.new())
        # Its outcome is stored and its slot is free when it ends, and not before.
        assert ((await row_of(oban, enqueued)).state, (await row_of(oban, follower)).state) == (
            JobState.EXECUTING,
            JobState.AVAILABLE,
        )
        stuck.go.set()
        text = await error_of(oban, enqueued)
        assert text.endswith("TimeoutError: tests.runner.test_executor_timeouts.Stuck timed out after 0.05 s")
        assert ("ValueError: late" in text) == isinstance(result, ValueError)
        row = await row_of(oban, enqueued)
        assert (row.attempt, row.meta) == (1, {})


async def test_a_job_in_a_thread_past_its_limit_fails_when_the_node_stops(
    url: URL, stuck: type[Stuck]
) -> None:
    async with Oban(url, queues={"narrow": 1}, shutdown_grace_period=0) as oban:
        enqueued = await oban.enqueue(stuck.new())
        await eventually(stuck.told.is_set)
        await oban.stop()
        stuck.go.set()
    async with Oban(url) as client:
        assert "timed out" in await error_of(client, enqueued)


class Awaitable(Worker, timeout=0.3):
    """Waits in its thread, then on the event loop."""

    in_thread = 0.0

    def process(self, job: Job) -> Any:
        threading.Event().wait(self.in_thread)
        return wait_for_ever()


@pytest.mark.parametrize("in_thread", [0, 0.4])
async def test_an_awaitable_that_a_thread_returns_has_the_rest_of_the_time(
    sqlite_url: URL, in_thread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Awaitable, "in_thread", in_thread)
    async with Oban(sqlite_url, queues={"default": 1}, **BRIEF) as oban:
        enqueued = await oban.enqueue(Awaitable.new())
        assert (await error_of(oban, enqueued)).endswith("timed out after 0.3 s")


# -- context variables -------------------------------------------------------------------------

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")


class SeesContext(Worker):
    async def process(self, job: Job) -> Record:
        seen = [tenant.get(), await asyncio.to_thread(tenant.get)]
        tenant.set("changed by a job")
        return Record(seen)


class SeesContextInThread(Worker):
    def process(self, job: Job) -> Record:
        seen = tenant.get()
        tenant.set("changed by a job")
        return Record([seen, seen])


@pytest.mark.parametrize("worker", [SeesContext, SeesContextInThread], ids=["async", "thread"])
async def test_every_job_sees_context_variables_that_were_set_before_the_start(
    url: URL, worker: type[Worker]
) -> None:
    token = tenant.set("acme")
    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        tenant.reset(token)
        for enqueued in await oban.enqueue_many([worker.new() for _ in range(3)]):
            row = await reaches(oban, enqueued, JobState.COMPLETED)
            assert row.meta["return"] == ["acme", "acme"]
    assert tenant.get() == "nobody"


class Unlimited(Worker, timeout=None, max_attempts=1):
    async def process(self, job: Job) -> None:
        await asyncio.sleep(0.2)


class Unset(Worker, max_attempts=1):
    async def process(self, job: Job) -> None:
        await wait_for_ever()


class UnsetInThread(Worker, max_attempts=1):
    def process(self, job: Job) -> None:
        while not job.cancelled():
            time.sleep(0.01)


class Longer(Unset, timeout=0.2):
    pass


class Overridden(Unlimited):
    def timeout(self, job: Job) -> float | timedelta | None:
        return super().timeout(job)


@pytest.mark.parametrize(
    ("worker", "after"),
    [(Unset, 0.1), (UnsetInThread, 0.1), (Longer, 0.2), (Unlimited, None), (Overridden, None)],
)
async def test_the_timeout_of_the_node_is_for_workers_that_set_none(
    url: URL, worker: type[Worker], after: float | None
) -> None:
    async with Oban(url, queues={"default": 5}, timeout=0.1, **FAST_POLLING) as oban:
        row = await reaches(oban, await oban.enqueue(worker.new()), JobState.COMPLETED, JobState.DISCARDED)
    if after is None:
        assert row.state is JobState.COMPLETED
    else:
        assert row.errors[0]["error"].endswith(f"{worker.worker_name} timed out after {after:g} s")
