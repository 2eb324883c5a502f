"""A stop lets running jobs finish, puts the others back, and leaves nothing behind."""

import asyncio
import signal
import threading
import time
from typing import Any

import pytest
from sqlalchemy import URL, select
from sqlalchemy.ext.asyncio import create_async_engine

from oban import Job, JobState, Oban, Record, Worker
from oban.errors import SchemaMissing
from oban.models import Producer
from oban.repository import fetch
from oban.runner import runner as runner_module
from oban.runner.heartbeat_thread import HeartbeatThread
from tests.support.internals import heartbeats_of, is_running, runner_of
from tests.support.jobs import row_of
from tests.support.options import BRIEF, NO_POLLING
from tests.support.waiting import eventually, quiet, within
from tests.support.workers import Noop, Runs

pytestmark = pytest.mark.either_driver

#: A grace period so long that a test that waits for it fails.
PATIENT: dict[str, Any] = {"shutdown_grace_period": 50.0}


async def other_tasks() -> set[asyncio.Task[Any]]:
    """All tasks but the test's own, after those that were just cancelled have ended."""
    await asyncio.sleep(0)
    return asyncio.all_tasks() - {asyncio.current_task()}


async def is_back(client: Oban, job: Job) -> None:
    row = await row_of(client, job)
    assert (row.state, row.attempt, row.errors) == (JobState.AVAILABLE, 0, [])


async def test_running_jobs_finish_and_available_ones_stay(url: URL) -> None:
    runs = Runs()
    client = Oban(url, name="client")
    oban = Oban(url, queues={"default": 2}, **PATIENT)
    await oban.start()
    jobs = await oban.enqueue_many([runs.worker.new() for _ in range(4)])
    await runs.begun(2)
    stopping = asyncio.create_task(oban.stop())
    late = await client.enqueue(Noop.new())
    runs.finish(1, Record("done"))
    await runs.over(1)
    assert not stopping.done()
    runs.finish(2)
    await within(stopping, 5)
    rows = [await row_of(client, job) for job in jobs]
    assert [row.state for row in rows] == [JobState.COMPLETED] * 2 + [JobState.AVAILABLE] * 2
    assert rows[0].meta["return"] == "done"
    assert (await row_of(client, late)).state is JobState.AVAILABLE
    assert (len(runs.jobs), runs.interrupted) == (2, [])
    await client.stop()


async def test_a_job_that_outlasts_the_grace_period_goes_back(url: URL) -> None:
    runs = Runs()
    async with Oban(url, name="client") as client:
        async with Oban(url, queues={"default": 2}, shutdown_grace_period=0.05) as oban:
            job = await oban.enqueue(runs.worker.new(max_attempts=1))
            await runs.begun(1)
        assert runs.interrupted == [1]
        assert runs.jobs[0].cancelled()
        await is_back(client, job)


async def test_a_job_in_a_thread_that_outlasts_the_grace_period_goes_back(url: URL) -> None:
    begun, told = threading.Event(), threading.Event()

    class PollsForever(Worker):
        def process(self, job: Job) -> Record:
            begun.set()
            pause = threading.Event()
            while not job.cancelled():
                pause.wait(0.01)
            told.set()
            return Record("too late")

    async with Oban(url, name="client") as client:
        async with Oban(url, queues={"default": 2}, shutdown_grace_period=0.05) as oban:
            job = await oban.enqueue(PollsForever.new())
            await eventually(begun.is_set)
        await eventually(told.is_set)
        await is_back(client, job)


async def test_a_job_that_finishes_when_it_is_interrupted_is_completed(url: URL) -> None:
    begun = asyncio.Event()

    class Saves(Worker):
        async def process(self, job: Job) -> Record:
            begun.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return Record([job.cancelled(), "saved"])
            return Record("slept")

    async with Oban(url, name="client") as client:
        async with Oban(url, queues={"default": 2}, shutdown_grace_period=0) as oban:
            job = await oban.enqueue(Saves.new())
            await within(begun.wait(), 10)
        row = await row_of(client, job)
    assert row.state is JobState.COMPLETED
    assert row.meta["return"] == [True, "saved"]


async def test_a_job_that_does_not_let_itself_be_interrupted_goes_back(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "SHUTDOWN_TIMEOUT", 2.0)
    begun, end = asyncio.Event(), asyncio.Event()

    class Stubborn(Worker):
        async def process(self, job: Job) -> None:
            begun.set()
            while not end.is_set():
                try:
                    await end.wait()
                except asyncio.CancelledError:
                    continue

    async with Oban(url, name="client") as client:
        async with Oban(url, queues={"default": 2}, shutdown_grace_period=0) as oban:
            job = await oban.enqueue(Stubborn.new())
            await within(begun.wait(), 10)
        row = await row_of(client, job)
        end.set()
    assert (row.state, row.attempt, row.errors) == (JobState.AVAILABLE, 0, [])


async def test_a_job_that_was_cancelled_stays_so_when_the_node_stops(url: URL) -> None:
    runs = Runs()
    async with Oban(url, name="client") as client:
        async with Oban(url, queues={"default": 2}, shutdown_grace_period=0) as oban:
            job = await oban.enqueue(runs.worker.new())
            await runs.begun(1)
            await client.cancel_job(job.id)
        row = await row_of(client, job)
    assert (row.state, row.attempt, row.errors) == (JobState.CANCELLED, 1, [])


class SlowFetch:
    """Delays the database's answer to a producer until the test releases it."""

    def __init__(self, oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answered, self.go_on = asyncio.Event(), asyncio.Event()
        self._write = runner_of(oban).database.write
        monkeypatch.setattr(runner_of(oban).database, "write", self)

    async def __call__(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        result = await self._write(function, *args, **kwargs)
        if function is fetch.acknowledge_and_fetch and result:
            self.answered.set()
            await self.go_on.wait()
        return result


async def test_jobs_that_are_being_fetched_when_the_stop_comes_finish_too(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    async with Oban(url, name="client") as client:
        oban = Oban(url, queues={"default": 2}, shutdown_grace_period=5)
        await oban.start()
        # A fetch of the start would not be seen.
        await eventually(lambda: all(producer.idle for producer in runner_of(oban).producers.values()))
        fetch = SlowFetch(oban, monkeypatch)
        job = await client.enqueue(runs.worker.new())
        await within(fetch.answered.wait(), 10)
        stopping = asyncio.create_task(oban.stop())
        await asyncio.sleep(0)
        fetch.go_on.set()
        await runs.begun(1)
        runs.finish(1, Record("done"))
        await within(stopping, 10)
        row = await row_of(client, job)
    assert (row.state, row.meta.get("return")) == (JobState.COMPLETED, "done")


async def test_jobs_that_are_fetched_after_the_grace_period_go_back_and_do_not_run(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "SHUTDOWN_TIMEOUT", 2.0)
    runs = Runs()
    async with Oban(url, name="client") as client:
        oban = Oban(url, queues={"default": 2}, shutdown_grace_period=0)
        await oban.start()
        # A fetch of the start would not be seen.
        await eventually(lambda: all(producer.idle for producer in runner_of(oban).producers.values()))
        fetch = SlowFetch(oban, monkeypatch)
        job = await client.enqueue(runs.worker.new())
        await within(fetch.answered.wait(), 10)
        stopping = asyncio.create_task(oban.stop())
        # Until the grace period of 0 seconds has passed.
        runner = runner_of(oban)
        assert runner is not None
        await eventually(lambda: all(producer.closed for producer in runner.producers.values()))
        fetch.go_on.set()
        await within(stopping, 10)
        await is_back(client, job)
        assert all(running.cancelled() for running in runs.jobs)
        assert len(runs.ended) == len(runs.jobs)


async def test_a_stop_during_the_start_leaves_nothing(url: URL) -> None:
    oban = Oban(url, queues={"default": 1}, **BRIEF)
    starting = asyncio.create_task(oban.start())
    await asyncio.sleep(0.001)
    await oban.stop()
    await within(asyncio.wait({starting}), 10)
    assert await other_tasks() == set()


async def test_a_second_stop_cuts_the_wait_short(url: URL) -> None:
    runs = Runs()
    async with Oban(url, name="client") as client:
        oban = Oban(url, queues={"default": 2}, **PATIENT)
        await oban.start()
        job = await oban.enqueue(runs.worker.new())
        await runs.begun(1)
        first = asyncio.create_task(oban.stop())
        done, _ = await asyncio.wait({first}, timeout=0.1)
        assert not done
        await within(oban.stop(), 10)
        await within(first, 1)
        await is_back(client, job)
    assert runs.interrupted == [1]


async def test_a_stop_whose_caller_is_cancelled_continues(url: URL) -> None:
    runs = Runs()
    oban = Oban(url, queues={"default": 2}, **PATIENT)
    await oban.start()
    job = await oban.enqueue(runs.worker.new())
    await runs.begun(1)
    first = asyncio.create_task(oban.stop())
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.wait({first})
    runs.finish(1)
    await within(oban.stop(), 10)
    assert await other_tasks() == set()
    async with Oban(url) as client:
        assert (await row_of(client, job)).state in (JobState.COMPLETED, JobState.AVAILABLE)


async def test_a_job_can_stop_its_node(url: URL) -> None:
    instances: list[Oban] = []

    class Stops(Worker):
        async def process(self, job: Job) -> None:
            await instances[0].stop()

    oban = Oban(url, queues={"default": 1}, shutdown_grace_period=0.1)
    instances.append(oban)
    await oban.start()
    job = await oban.enqueue(Stops.new())
    await eventually(lambda: not is_running(oban))
    await oban.stop()
    assert await other_tasks() == set()
    async with Oban(url) as client:
        await is_back(client, job)


async def test_stopping_twice_or_without_a_start_does_nothing(url: URL) -> None:
    never = Oban(url, queues={"default": 1})
    await never.stop()
    await never.stop()
    async with Oban(url, queues={"default": 1}) as oban:
        await oban.stop()
        await oban.stop()
    assert await other_tasks() == set()


@pytest.mark.parametrize("times", [3, pytest.param(8, marks=pytest.mark.slow)])
async def test_starting_and_stopping_again_and_again_leaves_nothing(url: URL, times: int) -> None:
    engine = create_async_engine(url)
    before = set(threading.enumerate())
    runs = Runs()
    oban = Oban(engine, queues={"default": 2, "media": 3}, **NO_POLLING)
    for number in range(1, times + 1):
        await oban.start()
        await oban.start()
        await oban.enqueue(runs.worker.new())
        await runs.begun(number)
        runs.finish(number)
        await oban.stop()
        assert await other_tasks() == set()
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await engine.dispose()
    # aiosqlite's connections are threads, which end soon after they are closed.
    await eventually(lambda: {t for t in threading.enumerate() if t not in before} == set())
    assert len(runs.jobs) == times


async def test_starting_twice_at_once_starts_once(url: URL) -> None:
    runs = Runs()
    oban = Oban(url, queues={"default": 1}, **BRIEF)
    await asyncio.gather(oban.start(), oban.start())
    jobs = await oban.enqueue_many([runs.worker.new() for _ in range(3)])
    await runs.begun(1)
    assert await row_of(oban, jobs[0])
    await quiet()
    assert len(runs.jobs) == 1
    await oban.stop()
    assert await other_tasks() == set()


async def test_a_start_that_fails_leaves_nothing(empty_url: URL) -> None:
    engine = create_async_engine(empty_url)
    oban = Oban(engine, queues={"default": 1})
    for _ in range(3):
        with pytest.raises(SchemaMissing):
            await oban.start()
    assert await other_tasks() == set()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await oban.stop()
    await engine.dispose()


async def test_an_engine_of_the_application_is_not_closed(url: URL) -> None:
    engine = create_async_engine(url)
    async with Oban(engine, queues={"default": 1}, **BRIEF) as oban:
        job = await oban.enqueue(Noop.new())
    # Its pool still has its connections.
    assert engine.pool.checkedin() >= 1  # type: ignore[attr-defined]
    async with Oban(engine) as client:
        assert await client.get_job(job.id)
    await engine.dispose()


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_a_second_ctrl_c_under_asyncio_run_puts_the_jobs_back(url: URL, seconds: float) -> None:
    """asyncio.run() cancels the main task at the first one, and every task at the second."""
    stages: list[str] = []
    thread_ended = threading.Event()

    class Long(Worker):
        async def process(self, job: Job) -> None:
            stages.append("begun")
            await asyncio.Event().wait()

    class LongInThread(Worker):
        def process(self, job: Job) -> None:
            stages.append("begun")
            while not job.cancelled():
                time.sleep(0.01)
            thread_ended.set()

    async def application() -> None:
        async with Oban(url, queues={"default": 5}, shutdown_grace_period=30) as oban:
            await oban.enqueue_many([Long.new(), LongInThread.new()])
            await eventually(lambda: len(stages) == 2)
            asyncio.get_running_loop().call_later(seconds + 0.1, signal.raise_signal, signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(application())
    # Python waits for the thread before it ends.
    assert thread_ended.wait(5)

    async def left() -> list[tuple[JobState, int, int]]:
        async with Oban(url) as client:
            return [(job.state, job.attempt, len(job.errors)) for job in await client.list_jobs()]

    assert asyncio.run(left()) == [(JobState.AVAILABLE, 0, 0)] * 2


async def test_a_start_that_is_cancelled_leaves_no_producer_behind(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Oban(url, name="client") as client:
        send, written = HeartbeatThread.send, asyncio.Event()

        async def send_and_hang(heartbeats: HeartbeatThread) -> None:
            await send(heartbeats)
            if heartbeats_of(heartbeats):
                written.set()
                await asyncio.Event().wait()

        monkeypatch.setattr(HeartbeatThread, "send", send_and_hang)
        oban = Oban(url, queues={"default": 1}, **BRIEF)
        starting = asyncio.create_task(oban.start())
        await within(written.wait(), 10)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await oban.stop()
        async with client.engine.connect() as connection:
            assert (await connection.execute(select(Producer.uuid))).all() == []
