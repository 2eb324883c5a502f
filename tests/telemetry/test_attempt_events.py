"""The events about attempts: on the event loop, in threads, in child processes, and in `oban.testing`."""

import contextvars
import logging
import threading
import time
from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import (
    Cancel,
    Discard,
    Job,
    JobState,
    Oban,
    Record,
    Snooze,
    SyncOban,
    Worker,
    clock,
    log_limits,
    telemetry,
)
from oban.repository import runs as runs_in_table
from oban.runner.execution import claims
from oban.telemetry import (
    Event,
    JobEnded,
    JobEvent,
    JobReleased,
    JobStarted,
    JobUnreadable,
    OutcomeReplaced,
)
from oban.testing import drain_queue, mode, process_job
from tests.support.databases import SQLiteFactory
from tests.support.faulty_rows import Unreadable, refuse_values
from tests.support.heartbeats import ago
from tests.support.jobs import acknowledged, reaches
from tests.support.options import BRIEF
from tests.support.rows import insert_row
from tests.support.schema import sync_engine
from tests.support.telemetry import recording
from tests.support.waiting import eventually
from tests.support.workers import Noop, Runs

#: What a handler sets, and workers see.
request = contextvars.ContextVar("request", default="none")


class InThread(Worker):
    def process(self, job: Job) -> Record:
        return Record([request.get(), threading.current_thread().name])


class InThreadWithSession(Worker):
    def process(self, job: Job, session: Session) -> Record:
        return Record([request.get(), threading.current_thread().name])


class OnLoop(Worker):
    async def process(self, job: Job) -> Record:
        return Record([request.get(), threading.current_thread().name])


class WithSession(Worker, timeout=20):
    async def process(self, job: Job, session: AsyncSession) -> Record:
        return Record([request.get(), threading.current_thread().name])


class InChild(Worker, executor="process"):
    def process(self, job: Job) -> None:
        raise KeyError(job.args["n"])


class Ends(Worker, max_attempts=2):
    """Ends as its args say."""

    def backoff(self, job: Job) -> float:
        return 600.0

    async def process(self, job: Job) -> Any:
        match job.args["how"]:
            case "cancel":
                return Cancel("not needed")
            case "discard":
                raise Discard("broken")
            case "snooze":
                return Snooze(60)
            case "fail":
                raise ValueError("no luck")
        return None


@pytest.mark.parametrize("worker", [OnLoop, WithSession, InThread, InThreadWithSession])
async def test_process_sees_the_context_variables_that_a_handler_has_set(
    url: URL, worker: type[Worker]
) -> None:
    seen: list[tuple[str, str]] = []

    def handle(event: JobEvent) -> None:
        if isinstance(event, JobStarted):
            request.set(f"job {event.job.id}")
        seen.append((request.get(), threading.current_thread().name))

    async with Oban(url, queues={"default": 2}, **BRIEF) as oban:
        oban.telemetry.attach(handle, JobEvent)
        jobs = await oban.enqueue_many([worker.new(), worker.new()])
        recorded = {job.id: (await reaches(oban, job, JobState.COMPLETED)).recorded for job in jobs}
        # A job with a session is committed a moment before its attempt ends.
        await eventually(lambda: len(seen) == 4)
    for job_id, (context, thread) in recorded.items():
        assert context == f"job {job_id}"
        # A session of a thread commits there, so that the attempt ends there.
        ended_in = thread if worker is InThreadWithSession else "MainThread"
        assert [name for one, name in seen if one == context] == ["MainThread", ended_in]
    assert request.get() == "none"


async def test_an_attempt_in_a_child_process_is_told_on_the_node(url: URL) -> None:
    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        with recording(oban) as recorder:
            job = await oban.enqueue(InChild.new({"n": 1}, max_attempts=1))
            await reaches(oban, job, JobState.DISCARDED)
            await oban.stop()
    started, ended = recorder.of(JobEvent)
    assert isinstance(started, JobStarted)
    assert isinstance(ended, JobEnded)
    assert (ended.outcome, ended.error_type) == ("failed", "builtins.KeyError")
    names = recorder.names(telemetry.ChildProcessStarted, telemetry.ChildProcessEnded)
    assert names == ["ChildProcessStarted", "ChildProcessEnded"]
    (child,) = recorder.of(telemetry.ChildProcessEnded)
    assert child.count == 0
    assert child.reason.startswith(("ended with exit code", "was ended by signal"))


@pytest.mark.parametrize(
    ("how", "outcome", "state", "delay", "error_type"),
    [
        ("complete", "completed", JobState.COMPLETED, None, None),
        ("cancel", "cancelled", JobState.CANCELLED, None, None),
        ("discard", "discarded", JobState.DISCARDED, None, "oban.outcomes.Discard"),
        ("snooze", "snoozed", JobState.SCHEDULED, 60, None),
        ("fail", "failed", JobState.RETRYABLE, 600, "builtins.ValueError"),
    ],
)
async def test_an_attempt_ends_with_an_outcome_and_a_state(
    oban: Oban, how: str, outcome: str, state: JobState, delay: float | None, error_type: str | None
) -> None:
    with recording(oban, JobEnded) as recorder:
        job = await oban.enqueue(Ends.new({"how": how}))
        await drain_queue(with_recursion=False, with_safety=True)
        stored = await oban.get_job(job.id)
    (ended,) = recorder.of(JobEnded)
    assert stored is not None
    assert (ended.outcome, ended.state, ended.delay) == (outcome, stored.state, delay)
    assert (ended.state, ended.error_type) == (state, error_type)
    assert (ended.error is None) == (how in ("complete", "snooze"))


async def test_the_helpers_for_tests_send_the_same_events(oban: Oban) -> None:
    names = ["JobStarted", "JobEnded"]
    with recording(oban, JobEvent) as recorder:
        await process_job(Ends.new({"how": "snooze"}))
        assert recorder.names() == names
        with mode("inline"):
            await oban.enqueue(Noop.new())
        assert recorder.names() == names * 2
        await oban.enqueue_many([Noop.new(), Noop.new()])
        await drain_queue()
    assert recorder.names() == names * 4
    assert {(event.instance, event.node) for event in recorder.events} == {("Oban", oban.options.node)}


def test_the_helpers_of_a_sync_client_send_the_same_events(url: URL) -> None:
    oban = SyncOban(sync_engine(url))
    with recording(oban, JobEvent) as recorder:
        process_job(InThread.new(), oban=oban)
        oban.enqueue(Noop.new())
        drain_queue(oban=oban)
    oban.engine.dispose()
    assert recorder.names() == ["JobStarted", "JobEnded"] * 2


async def test_a_job_that_is_cancelled_while_it_runs_ends_without_a_state(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 1}, watch_interval=0.05, **BRIEF) as oban:
        with recording(oban, JobEvent, telemetry.JobsCancelled) as recorder:
            job = await oban.enqueue(runs.worker.new())
            running = await runs.begun(1)
            await oban.cancel_job(job)
            await eventually(running.cancelled)
            runs.finish(1)
            ended = await recorder.first(JobEnded)
    assert (ended.outcome, ended.state) == ("completed", None)
    assert recorder.names() == ["JobStarted", "JobsCancelled", "JobEnded"]


async def test_a_job_that_is_put_back_ends_as_released(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 1}, shutdown_grace_period=0) as oban:
        with recording(oban, JobEvent, telemetry.NodeStopping, telemetry.NodeStopped) as recorder:
            job = await oban.enqueue(runs.worker.new())
            await runs.begun(1)
            await oban.stop()
    started, stopping, ended, stopped = recorder.events
    assert isinstance(started, JobStarted)
    assert isinstance(ended, JobEnded)
    assert (ended.outcome, ended.state, ended.job) == ("released", JobState.AVAILABLE, started.job)
    assert isinstance(stopping, telemetry.NodeStopping)
    assert stopping.running == 1
    assert isinstance(stopped, telemetry.NodeStopped)
    assert (stopped.released, stopped.is_lost) == ((job.id,), False)


async def test_a_job_that_is_put_back_before_it_starts_has_an_event_of_its_own(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def fail(*_: Any) -> None:
        asked.set()
        raise ConnectionError("no route to the host")

    # The node has to ask whether the job is still its own, and the database does not answer.
    monkeypatch.setattr(claims, "SURE_SHARE", 0.0)
    monkeypatch.setattr(runs_in_table, "lost_runs", fail)
    async with Oban(url, queues={"default": 1}, shutdown_grace_period=0) as oban:
        with recording(oban, JobEvent, JobReleased) as recorder:
            job = await oban.enqueue(Noop.new({"n": 1}))
            await eventually(asked.is_set)
            await oban.stop()
    (released,) = recorder.events
    assert isinstance(released, JobReleased)
    assert (released.job.id, released.job.worker, released.job.args) == (job.id, job.worker, {"n": 1})
    async with Oban(url) as client:
        stored = await client.get_job(job.id)
    assert stored is not None
    assert (stored.state, stored.attempt) == (JobState.AVAILABLE, 0)


async def test_the_queue_time_is_the_time_since_the_job_was_due(url: URL) -> None:
    oban = Oban(url, queues={"default": 1}, **BRIEF)
    await insert_row(oban.engine, worker=Noop.worker_name, scheduled_at=ago(seconds=30))
    with recording(oban, JobEvent) as recorder:
        async with oban:
            ended = await recorder.first(JobEnded)
    assert ended.queue_time >= 30
    assert ended.queue_time == recorder.of(JobStarted)[0].queue_time
    assert 0 <= ended.duration < 30


async def test_a_row_that_cannot_be_read_has_an_event_of_its_own(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable = Unreadable(monkeypatch)
    async with Oban(url, queues={"default": 5}, **BRIEF) as oban:
        with recording(oban, JobEvent, JobUnreadable) as recorder:
            async with oban.engine.begin() as connection:
                bad = (await oban.enqueue(Noop.new(), session=connection)).id
                unreadable.ids.add(bad)
            event = await recorder.first(JobUnreadable)
            unreadable.ids.clear()
            await reaches(oban, bad, JobState.DISCARDED)
    assert (event.job_id, event.queue, event.attempt) == (bad, "default", 1)
    assert event.error == "the row cannot be read: OverflowError: date value out of range"
    assert event.error_type == "builtins.OverflowError"
    assert recorder.names() == ["JobUnreadable"]


async def test_an_outcome_that_the_database_refuses_has_an_event_of_its_own(url: URL) -> None:
    class Records(Worker):
        async def process(self, job: Job) -> Record:
            return Record(1)

    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        await refuse_values(oban.engine, errors=False)
        with recording(oban, OutcomeReplaced) as recorder:
            job = await oban.enqueue(Records.new())
            await reaches(oban, job, JobState.COMPLETED)
            event = await recorder.first(OutcomeReplaced)
    assert (event.job_id, event.attempt, event.outcome, event.stored) == (job.id, 1, "completed", "completed")
    assert "refused by a trigger" in event.error


async def test_values_that_only_another_program_can_store_do_no_harm(sqlite_factory: SQLiteFactory) -> None:
    async with Oban(url := sqlite_factory.create()) as oban:
        await insert_row(oban.engine, worker=Noop.worker_name)
        async with oban.engine.begin() as connection:
            await connection.exec_driver_sql("UPDATE oban_jobs SET tags = '7', meta = '[1]', args = '[]'")
        with recording(oban, JobEvent) as recorder:
            await drain_queue(with_recursion=False, with_safety=True)
    sqlite_factory.drop(url)
    started, ended = recorder.of(JobEvent)
    assert started.job.tags == ()
    assert isinstance(ended, JobEnded)
    assert (ended.outcome, ended.error_type) == ("failed", "oban.errors.InvalidJob")


async def test_a_handler_that_fails_is_logged_once_a_minute_with_the_number(
    oban: Oban, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(event: Event) -> None:
        raise ValueError("no exporter")

    class Later(clock.Clock):
        later = 0.0

        def monotonic(self) -> float:
            return time.monotonic() + self.later

    def records() -> list[str]:
        return [one.getMessage() for one in caplog.records if one.name == "oban.telemetry"]

    oban.telemetry.attach(fails, JobEvent)
    with clock.use(moved := Later()):
        for _ in range(3):
            await process_job(Noop.new())
        (first,) = records()
        moved.later = log_limits.INTERVAL + 1
        await process_job(Noop.new())
    name = f"{fails.__module__}.{fails.__qualname__}"
    assert first == f"a telemetry handler has failed: {name}, for JobStarted (1 since the last report)"
    (_, second) = records()
    # Of the six events of three jobs, one was reported; the seventh is the first of a minute later.
    assert second.endswith("for JobStarted (6 since the last report)")
    assert caplog.records[-1].levelno == logging.ERROR


async def test_a_handler_attached_while_a_job_runs_sees_its_end(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        await oban.enqueue(runs.worker.new())
        await runs.begun(1)
        with recording(oban, JobEvent) as recorder:
            runs.fail(1, ValueError("no luck"))
            ended = await recorder.first(JobEnded)
            await acknowledged(oban)
    assert (ended.outcome, ended.error_type) == ("failed", "builtins.ValueError")
