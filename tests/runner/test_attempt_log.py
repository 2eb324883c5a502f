"""Every attempt leaves one record on `oban.executor` that says how it ended and why."""

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.orm import Session

import oban as package
from oban import CallNext, Job, JobState, Middleware, Oban, Worker, error_texts
from oban.repository.acknowledge import Ack
from oban.runner.execution import attempt_events, attempt_log
from oban.runner.execution.run import Run
from tests.support.ending_workers import WORKERS, OnLoop, PaymentFailed
from tests.support.jobs import reaches
from tests.support.options import FAST_POLLING
from tests.support.waiting import eventually

pytestmark = pytest.mark.execution

#: What is logged after the job and before the exception, for each action, with the level and the state.
DISCARDED = "failed, attempt 1 of 20, discarded"
CANCELLED = "was cancelled, attempt 1 of 20"
SNOOZED = "was snoozed, attempt 1 of 20, for 60 s"
RETRYING = "failed, attempt 1 of 20, retrying in 17 s"
ENDINGS: dict[str, tuple[str, str, JobState]] = {
    "complete": ("DEBUG", "completed, attempt 1 of 20, in ", JobState.COMPLETED),
    "record": ("DEBUG", "completed, attempt 1 of 20, in ", JobState.COMPLETED),
    "cancel": ("INFO", f"{CANCELLED}: no such account", JobState.CANCELLED),
    "snooze": ("INFO", SNOOZED, JobState.SCHEDULED),
    "key": ("WARNING", f"{RETRYING}: KeyError: 'a'", JobState.RETRYABLE),
    "lines": ("WARNING", f"{RETRYING}: ValueError: first", JobState.RETRYABLE),
    "control": ("WARNING", f"{RETRYING}: ValueError: 'red \\x1b[31m'", JobState.RETRYABLE),
    "payment": ("WARNING", f"{RETRYING}: PaymentFailed: account 7: no money", JobState.RETRYABLE),
    "opaque": ("WARNING", f"{RETRYING}: Opaque: opaque", JobState.RETRYABLE),
    "discard": ("ERROR", f"{DISCARDED}: no such account", JobState.DISCARDED),
    "raise cancel": ("INFO", f"{CANCELLED}: no such account", JobState.CANCELLED),
    "raise discard": ("ERROR", f"{DISCARDED}: no such account", JobState.DISCARDED),
    "raise snooze": ("INFO", SNOOZED, JobState.SCHEDULED),
    "raise a class": ("INFO", f"{CANCELLED}: cancelled by its worker", JobState.CANCELLED),
    "raise own": ("INFO", f"{CANCELLED}: never mind", JobState.CANCELLED),
    "busy": ("WARNING", f"{RETRYING.replace('17', '90')}: Busy: try again", JobState.RETRYABLE),
    "later": ("INFO", f"{SNOOZED}: Later: not yet", JobState.SCHEDULED),
    "gone": ("INFO", f"{CANCELLED}: Gone: moved", JobState.CANCELLED),
    "hopeless": ("ERROR", f"{DISCARDED}: Hopeless: no", JobState.DISCARDED),
    "hopeless and opaque": ("ERROR", f"{DISCARDED}: HopelessAndOpaque: opaque", JobState.DISCARDED),
}


#: Nothing was raised, or an outcome that is no failure.
WITHOUT_EXCEPTION = {
    *("complete", "record", "cancel", "snooze", "discard"),
    *("raise cancel", "raise snooze", "raise a class", "raise own"),
}


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="oban.executor")


@pytest.fixture
async def oban(sqlite_url: URL) -> AsyncIterator[Oban]:
    """A node on SQLite only, as records do not depend on the database."""
    queues = {"default": 5, "narrow": 1}
    async with Oban(sqlite_url, name="log", node="here", queues=queues, **FAST_POLLING) as running:
        yield running


def records(caplog: pytest.LogCaptureFixture, job: Job | int) -> list[logging.LogRecord]:
    """The records about a job, in order."""
    id_ = job if isinstance(job, int) else job.id
    return [record for record in caplog.records if record.__dict__.get("job_id") == id_]


async def ending(caplog: pytest.LogCaptureFixture, job: Job | int) -> logging.LogRecord:
    """The one record about the end of a job's attempt."""

    def found() -> list[logging.LogRecord]:
        states = [it for it in records(caplog, job) if it.__dict__["state"] != "executing"]
        return states

    await eventually(found)
    (record,) = found()
    return record


def raised(record: logging.LogRecord) -> BaseException:
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    return record.exc_info[1]


@pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS)
async def test_each_ending_is_one_record_with_fields_and_the_exception(
    oban: Oban, worker: type[Worker], caplog: pytest.LogCaptureFixture
) -> None:
    jobs = await oban.enqueue_many([worker.new({"do": do, "secret": "s3cret"}) for do in ENDINGS])
    for job, (do, (level, message, state)) in zip(jobs, ENDINGS.items(), strict=True):
        await reaches(oban, job, state)
        record = await ending(caplog, job)
        assert record.levelname == level
        shown = record.getMessage().removeprefix(f"job {job.id} ({worker.worker_name}) ")
        assert (shown[: len(message)] if level == "DEBUG" else shown) == message
        fields = record.__dict__
        names = ("job_id", "worker", "queue", "attempt", "max_attempts", "node", "state")
        assert [fields[name] for name in names] == [
            *(job.id, worker.worker_name, "default", 1, 20, "here", state.value)
        ]
        assert 0 < fields["duration"] < 60
        assert (record.exc_info is not None) == (do not in WITHOUT_EXCEPTION), do
        start = records(caplog, job)[0]
        assert (start.levelname, start.__dict__["state"]) == ("DEBUG", "executing")
        assert start.getMessage() == f"job {job.id} ({worker.worker_name}) started, attempt 1 of 20"
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS)
async def test_the_exception_of_a_record_has_its_type_attributes_and_traceback(
    oban: Oban, worker: type[Worker], caplog: pytest.LogCaptureFixture
) -> None:
    payment, opaque = await oban.enqueue_many([worker.new({"do": "payment"}), worker.new({"do": "opaque"})])
    error = raised(await ending(caplog, payment))
    assert type(error) is PaymentFailed
    assert (error.account, error.reason) == (7, "no money")
    shown = "".join(traceback.format_exception(error))
    assert "in fail_with_a_cause" in shown
    assert "KeyError: 'a'" in shown
    row = await reaches(oban, payment, JobState.RETRYABLE)
    assert row.errors[0]["error"].startswith("Traceback")
    assert row.errors[0]["error"].endswith("PaymentFailed: account 7: no money")
    # Where the exception cannot be made again, one of the same name takes its place.
    error = raised(await ending(caplog, opaque))
    assert (type(error).__name__, type(error).__module__) == ("Opaque", "tests.support.ending_workers")
    assert str(error) == "opaque"


async def passes(job: Job, call_next: CallNext) -> Any:
    return await call_next(job)


def passes_plainly(job: Job, call_next: CallNext) -> Any:
    return call_next(job)


@pytest.mark.parametrize("middleware", [[], [passes, passes_plainly]], ids=["alone", "middleware"])
async def test_a_traceback_shows_the_code_of_the_application_alone(
    sqlite_url: URL, middleware: list[Middleware]
) -> None:
    async with Oban(sqlite_url, queues={"default": 5}, middleware=middleware, **FAST_POLLING) as oban:
        for made in await oban.enqueue_many(worker.new({"do": "key"}) for worker in WORKERS.values()):
            error = (await reaches(oban, made, JobState.RETRYABLE)).errors[0]["error"]
            assert error.endswith("KeyError: 'a'")
            assert "ending_workers.py" in error
            assert str(Path(package.__file__).parent) not in error


async def test_the_last_attempt_is_an_error(oban: Oban, caplog: pytest.LogCaptureFixture) -> None:
    job = await oban.enqueue(OnLoop.new({"do": "key"}, max_attempts=1))
    record = await ending(caplog, job)
    name = OnLoop.worker_name
    assert record.getMessage() == f"job {job.id} ({name}) failed, attempt 1 of 1, discarded: KeyError: 'a'"
    assert (record.levelname, record.__dict__["state"]) == ("ERROR", "discarded")
    assert isinstance(raised(record), KeyError)


class Slow(Worker, timeout=0.05):
    async def process(self, job: Job) -> None:
        await asyncio.Event().wait()


async def test_a_timeout_is_one_record_that_shows_where_the_job_was(
    oban: Oban, caplog: pytest.LogCaptureFixture
) -> None:
    job = await oban.enqueue(Slow.new())
    record = await ending(caplog, job)
    name = Slow.worker_name
    assert record.getMessage().endswith(f": TimeoutError: {name} timed out after 0.05 s")
    error = raised(record)
    assert type(error) is TimeoutError
    assert "await asyncio.Event().wait()" in "".join(traceback.format_exception(error))


async def test_an_unknown_worker_is_one_record_on_one_line(
    oban: Oban, caplog: pytest.LogCaptureFixture
) -> None:
    job = await oban.enqueue(Job(worker="not\nhere"))
    record = await ending(caplog, job)
    assert record.getMessage().splitlines() == [record.getMessage()]
    assert "(not\\nhere)" in record.getMessage().replace("'", "")
    assert type(raised(record)).__name__ == "UnknownWorker"
    assert record.__dict__["worker"] == "'not\\nhere'"
    assert len(records(caplog, job)) == 2


@pytest.mark.parametrize(
    ("meanwhile", "result", "level"),
    [("deleted", None, "INFO"), ("cancelled", ValueError, "WARNING")],
)
async def test_an_attempt_that_has_lost_its_job_says_so(
    oban: Oban, meanwhile: str, result: type[Exception] | None, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    class Waits(Worker):
        async def process(self, job: Job) -> None:
            begun.set()
            await eventually(job.cancelled)
            await go.wait()
            if result is not None:
                raise result("late")

    job = await oban.enqueue(Waits.new())
    await begun.wait()
    await oban.cancel_job(job.id)
    if meanwhile == "deleted":
        await oban.delete_job(job.id)
    go.set()
    await eventually(lambda: not oban.check_all_queues()[0].running)
    record = records(caplog, job)[-1]
    expected = "was cancelled, rescued or deleted while it ran, attempt 1 of 20; its outcome is ignored"
    assert record.getMessage().partition(") ")[2] == expected + (": ValueError: late" if result else "")
    assert (record.levelname, record.__dict__["state"]) == (level, None)
    assert (record.exc_info is not None) == (result is not None)
    assert len(records(caplog, job)) == 2


@pytest.mark.parametrize(
    ("is_committed", "text"),
    [(True, "completed"), (False, "its writes are rolled back"), (None, "its outcome is ignored")],
)
def test_a_run_that_learns_of_its_own_commit_has_not_lost_its_job(
    is_committed: bool | None, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    job = OnLoop.new()
    job.__dict__.update(id=1, attempt=1)
    run = Run(job, "owner", "here")
    # After the commit, a check finds that the row no longer belongs to the run.
    run.cancelled = True
    attempt_events.ended(run, Ack(*run.key, "completed"), is_committed=is_committed)
    (record,) = caplog.records
    assert text in record.getMessage()


def test_an_exception_with_lone_surrogates_can_be_written_to_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = OnLoop.new()
    job.__dict__.update(id=1, attempt=1)
    run = Run(job, "owner", "here")
    error = ValueError("half of a character: \ud83d")
    handler = logging.FileHandler(tmp_path / "log", encoding="utf-8")
    handler.handleError = lambda record: pytest.fail(str(sys.exception()))  # type: ignore[method-assign]
    attempt_log.logger.addHandler(handler)
    try:
        attempt_events.ended(run, Ack(*run.key, "failed", error_texts.error_text(error), 17), error)
    finally:
        attempt_log.logger.removeHandler(handler)
        handler.close()
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert record.__dict__["job_id"] == 1
    assert "half of a character: ?" in (tmp_path / "log").read_text()


async def test_a_job_that_is_put_back_is_logged_once(
    sqlite_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go = [threading.Event(), threading.Event()], threading.Event()
    threads: list[threading.Thread] = []

    class EndlessOnLoop(Worker):
        async def process(self, job: Job) -> None:
            begun[0].set()
            await asyncio.Event().wait()

    class LateInThread(Worker):
        def process(self, job: Job, session: Session) -> None:
            threads.append(threading.current_thread())
            begun[1].set()
            assert go.wait(20)

    async with Oban(sqlite_url, queues={"default": 5}, shutdown_grace_period=0) as oban:
        jobs = await oban.enqueue_many([EndlessOnLoop.new(), LateInThread.new()])
        await eventually(lambda: all(event.is_set() for event in begun))
        await oban.stop()
    go.set()
    # The thread finds that the job is no longer its own, and ends.
    await eventually(lambda: not threads[0].is_alive())
    for job in jobs:
        record = await ending(caplog, job)
        expected = "was put back, attempt 1 of 20 does not count, because the node stops"
        assert record.getMessage().partition(") ")[2] == expected
        assert (record.levelname, record.__dict__["state"]) == ("INFO", "available")


async def test_a_column_that_another_program_spoilt_is_logged_on_one_line(
    oban: Oban, caplog: pytest.LogCaptureFixture
) -> None:
    job = await oban.enqueue(OnLoop.new({"do": "key"}, schedule_in=3600))
    async with oban.engine.begin() as connection:
        changes = "max_attempts = 'x' || char(10) || 'forged', state = 'available'"
        await connection.exec_driver_sql(f"UPDATE oban_jobs SET {changes} WHERE id = {job.id}")
    record = await ending(caplog, job)
    assert "failed, attempt 1 of 'x\\nforged', retrying in 17 s" in record.getMessage()
    await reaches(oban, job, JobState.RETRYABLE)


class BadHandler(logging.Handler):
    """Fails to print exceptions, and ends the process for others."""

    def emit(self, record: logging.LogRecord) -> None:
        raise SystemExit("no log")


async def test_a_handler_that_fails_fails_no_job(oban: Oban) -> None:
    handler = BadHandler()
    logger = logging.getLogger("oban.executor")
    logger.addHandler(handler)
    try:
        jobs = await oban.enqueue_many([OnLoop.new({"do": do}) for do in ("complete", "key")])
        await reaches(oban, jobs[0], JobState.COMPLETED)
        await reaches(oban, jobs[1], JobState.RETRYABLE)
    finally:
        logger.removeHandler(handler)
