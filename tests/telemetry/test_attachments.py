"""Handlers: which events reach them, and what becomes of their errors."""

import gc
import logging
import os
import signal
import threading
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Job, JobState, Oban, Worker, telemetry
from oban.errors import ConfigError
from oban.telemetry import Event, JobEnded, JobEvent, JobsEnqueued, JobStarted, LoopBlocked
from tests.support.jobs import reaches
from tests.support.options import BRIEF
from tests.support.workers import Noop


class Fails(Worker, max_attempts=1, redact=("token",)):
    async def process(self, job: Job) -> None:
        raise ValueError(f"refused {job.args['token']}")


async def test_a_handler_gets_the_events_of_its_classes_in_their_order(url: URL) -> None:
    events: list[Event] = []
    async with Oban(url, name="A", node="here", queues={"default": 1}, **BRIEF) as oban:
        oban.telemetry.attach(events.append, JobsEnqueued, JobEvent)
        job = await oban.enqueue(Noop.new({"n": 1}))
        await reaches(oban, job, JobState.COMPLETED)
    # The job can start before its insertion has returned to the client.
    enqueued, started, ended = sorted(events, key=lambda event: isinstance(event, JobEvent))
    assert isinstance(enqueued, JobsEnqueued)
    assert [view.id for view in enqueued.jobs] == [job.id]
    assert (enqueued.instance, enqueued.node, enqueued.in_transaction) == ("A", "here", False)
    assert isinstance(started, JobStarted)
    assert (started.job.worker, started.job.attempt, started.job.args) == (job.worker, 1, {"n": 1})
    assert started.queue_time >= 0
    assert isinstance(ended, JobEnded)
    assert (ended.outcome, ended.state, ended.error) == ("completed", JobState.COMPLETED, None)
    assert ended.duration > 0


async def test_a_failure_is_described_without_the_redacted_values(url: URL) -> None:
    events: list[JobEnded] = []
    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        oban.telemetry.attach(events.append, JobEnded)
        job = await oban.enqueue(Fails.new({"token": "hunter22", "n": 1}))
        await reaches(oban, job, JobState.DISCARDED)
    (ended,) = events
    assert (ended.outcome, ended.state, ended.error_type) == (
        "failed",
        JobState.DISCARDED,
        "builtins.ValueError",
    )
    assert ended.error is not None
    assert "refused [redacted]" in ended.error
    assert "hunter22" not in ended.error
    assert ended.job.args == {"token": "[redacted]", "n": 1}


async def test_a_detached_handler_is_not_called(url: URL) -> None:
    events: list[Event] = []
    async with Oban(url) as oban:
        detach = oban.telemetry.attach(events.append)
        detach()
        oban.telemetry.attach(events.append, JobsEnqueued)
        oban.telemetry.detach(events.append)
        await oban.enqueue(Noop.new())
    assert events == []


async def test_a_handler_gets_the_events_of_its_own_client_only(url: URL) -> None:
    events: list[Event] = []
    async with Oban(url, name="observed", queues={"a": 1}, **BRIEF) as observed:
        observed.telemetry.attach(events.append)
        async with Oban(url, name="other", queues={"b": 1}, **BRIEF) as other:
            await reaches(other, await other.enqueue(Noop.new(queue="b")), JobState.COMPLETED)
            await other.pause_queue("b")
        await reaches(observed, await observed.enqueue(Noop.new(queue="a")), JobState.COMPLETED)
    assert {event.instance for event in events} == {"observed"}
    assert [event.job.queue for event in events if isinstance(event, JobEvent)] == ["a", "a"]


async def test_a_global_handler_gets_events_of_clients_before_and_after(url: URL) -> None:
    names: list[str] = []
    earlier = Oban(url, name="earlier")
    detach = telemetry.attach(lambda event: names.append(event.instance), JobsEnqueued)
    try:
        later = Oban(url, name="later")
        for oban in (earlier, later):
            async with oban:
                await oban.enqueue(Noop.new())
    finally:
        detach()
    assert names == ["earlier", "later"]


async def test_an_error_of_a_handler_is_logged_and_the_job_runs(
    url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(event: Event) -> None:
        raise SystemExit(1)

    events: list[Event] = []
    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        oban.telemetry.attach(fails, JobEnded)
        oban.telemetry.attach(events.append, JobEnded)
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
    assert len(events) == 1
    (record,) = [record for record in caplog.records if record.name == "oban.telemetry"]
    assert record.levelno == logging.ERROR
    assert record.getMessage().endswith("for JobEnded (1 since the last report)")


class FailingLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("the log is full")


async def test_an_error_of_a_handler_that_cannot_be_logged_harms_nobody(url: URL) -> None:
    def fails(event: Event) -> None:
        raise ValueError

    logger, handler = logging.getLogger("oban.telemetry"), FailingLog()
    logger.addHandler(handler)
    try:
        async with Oban(url) as oban:
            oban.telemetry.attach(fails, JobsEnqueued)
            job = await oban.enqueue(Noop.new())
            assert await oban.get_job(job.id) is not None
    finally:
        logger.removeHandler(handler)


class Slow:
    """A handler that takes its time to be compared, which `detach` does."""

    def __init__(self) -> None:
        self.is_compared, self.may_end = threading.Event(), threading.Event()

    def __call__(self, event: Event) -> None:
        pass

    def __ne__(self, other: object) -> bool:
        self.is_compared.set()
        return not self.may_end.wait(30)


def test_a_forked_child_can_attach_a_handler_while_another_thread_detaches_one() -> None:
    slow = Slow()
    detach = telemetry.attach(slow, LoopBlocked)
    thread = threading.Thread(target=telemetry.detach, args=[print])
    thread.start()
    assert slow.is_compared.wait(30)
    if (pid := os.fork()) == 0:
        try:
            signal.alarm(2)
            telemetry.attach(print, LoopBlocked)
            os._exit(0)
        finally:
            os._exit(1)
    _, ending = os.waitpid(pid, 0)
    slow.may_end.set()
    thread.join()
    detach()
    assert ending == 0


@pytest.mark.parametrize("wrong", [None, "handler", pytest.param(lambda event: None, id="not an event")])
def test_wrong_arguments_are_refused(wrong: Any) -> None:
    oban = Oban("sqlite+aiosqlite:///:memory:")

    async def coroutine(event: Event) -> None:
        pass

    with pytest.raises(ConfigError, match=r"plain function; .*coroutine.* is async"):
        oban.telemetry.attach(coroutine)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="class of events" if callable(wrong) else "plain function"):
        oban.telemetry.attach(wrong, wrong)


def test_a_client_can_be_collected_with_its_handlers() -> None:
    oban = Oban("sqlite+aiosqlite:///:memory:")
    oban.telemetry.attach(lambda event: None)
    before = len([one for one in gc.get_objects() if isinstance(one, telemetry.Telemetry)])
    del oban
    gc.collect()
    assert len([one for one in gc.get_objects() if isinstance(one, telemetry.Telemetry)]) < before
