"""A node's lifespan is entered before its first job and exited after its last; jobs get what it yields."""

import asyncio
import contextlib
import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import CallNext, Job, JobState, Oban, Record, Resource, Worker, injected, job
from oban.errors import ConfigError
from tests.support.jobs import reaches
from tests.support.options import BRIEF
from tests.support.waiting import eventually, within

pytestmark = [pytest.mark.usefixtures("own_registry"), pytest.mark.either_driver]


class Client:
    """A client that the jobs of a node share."""

    def __init__(self) -> None:
        self.is_open = True
        self.used_by: list[str] = []


Events = list[str]


def lifespan(events: Events, **yielded: Any) -> Callable[[Oban], Any]:
    """A lifespan that yields these values."""

    @contextlib.asynccontextmanager
    async def around(oban: Oban) -> AsyncIterator[dict[str, Any]]:
        events.append(f"enter {oban.options.node}")
        try:
            yield yielded
        finally:
            events.append("exit")

    return around


def node(url: URL, **options: Any) -> Oban:
    return Oban(url, **{"node": "here", "queues": {"default": 5}, **BRIEF, **options})


async def test_every_kind_of_worker_gets_what_it_yields(url: URL) -> None:
    client = Client()

    class OnLoop(Worker):
        async def process(self, job: Job, http: Client) -> None:
            http.used_by.append("loop")

    class WithTimeoutAndMiddleware(Worker, timeout=30, middleware=[through]):
        async def process(self, job: Job, args: dict[str, Any], anything: Client) -> None:
            anything.used_by.append("by annotation")

    class InSession(Worker):
        async def process(self, job: Job, http: Client, session: AsyncSession) -> None:
            http.used_by.append("session")

    class InThread(Worker, middleware=[through]):
        def process(self, job: Job, *, http: Client) -> None:
            http.used_by.append("thread")

    class InThreadWithSession(Worker):
        def process(self, job: Job, session: Session, http: Client) -> None:
            http.used_by.append("thread and session")

    @job
    async def function(to: str, http: Resource[Client] = injected) -> None:
        http.used_by.append(f"function {to}")

    @job
    def plain_function(to: str, *, http: Resource[Client] = injected) -> None:
        http.used_by.append(f"plain function {to}")

    workers = [OnLoop, WithTimeoutAndMiddleware, InSession, InThread, InThreadWithSession]
    async with node(url, lifespan=lifespan([], http=client)) as oban:
        jobs = [cls.new() for cls in workers] + [function.new("a"), plain_function.new("b")]
        for made in await oban.enqueue_many(jobs):
            await reaches(oban, made, JobState.COMPLETED)
    assert sorted(client.used_by) == [
        *("by annotation", "function a", "loop", "plain function b"),
        *("session", "thread", "thread and session"),
    ]


async def through(job: Job, call_next: CallNext) -> Any:
    return await call_next(job)


async def test_it_surrounds_the_jobs_and_is_entered_again_by_a_second_start(url: URL) -> None:
    events: Events = []

    class Notes(Worker):
        async def process(self, job: Job, http: Client) -> None:
            events.append("job")

    oban = node(url, lifespan=lifespan(events, http=Client()))
    # The job waits already.
    await oban.enqueue(Notes.new())
    for _ in range(2):
        await oban.start()
        await eventually(lambda: events[-1] == "job")
        await oban.enqueue(Notes.new())
        await eventually(lambda: events[-2:] == ["job", "job"])
        await oban.stop()
        assert events == ["enter here", "job", "job", "exit"]
        events.clear()
        await oban.enqueue(Notes.new())
    await oban.stop()


@pytest.mark.parametrize("form", ["async", "thread"])
async def test_it_is_exited_after_jobs_that_exceed_the_grace_period(url: URL, form: str) -> None:
    events: Events = []
    begun = threading.Event()

    class OnLoop(Worker):
        async def process(self, job: Job) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                events.append("job has ended")

    class InThread(Worker):
        def process(self, job: Job) -> None:
            begun.set()
            while not job.cancelled():
                threading.Event().wait(0.005)
            events.append("job has ended")

    async with node(url, lifespan=lifespan(events), shutdown_grace_period=0.05) as oban:
        await oban.enqueue((OnLoop if form == "async" else InThread).new())
        await eventually(begun.is_set)
    assert events[0] == "enter here"
    assert sorted(events[1:]) == ["exit", "job has ended"]
    if form == "async":
        assert events[-1] == "exit"


async def test_a_client_that_was_stopped_is_freed_without_a_garbage_collection(sqlite_url: URL) -> None:
    gc.disable()
    try:
        oban = node(sqlite_url, lifespan=lifespan([]))
        await oban.start()
        await oban.stop()
        client = weakref.ref(oban)
        del oban
        left = client()
    finally:
        gc.enable()
    assert left is None


async def test_it_can_use_the_client_and_a_task_group(url: URL) -> None:
    @contextlib.asynccontextmanager
    async def around(oban: Oban) -> AsyncIterator[None]:
        async with asyncio.TaskGroup():
            await oban.enqueue(Simple.new(meta={"when": "before"}))
            yield
            await oban.enqueue(Simple.new(meta={"when": "after"}, schedule_in=60))

    class Simple(Worker):
        async def process(self, job: Job) -> None: ...

    async with node(url, lifespan=around) as oban:
        (first,) = await oban.list_jobs()
        await reaches(oban, first, JobState.COMPLETED)
    async with Oban(url) as reader:
        assert [made.meta["when"] for made in await reader.list_jobs()] == ["before", "after"]


async def test_a_client_without_queues_does_not_enter_it(sqlite_url: URL) -> None:
    events: Events = []
    async with Oban(sqlite_url, lifespan=lifespan(events)):
        pass
    assert events == []


# -- errors ------------------------------------------------------------------------------------------


async def test_what_it_raises_before_it_yields_is_raised_by_start(url: URL) -> None:
    @contextlib.asynccontextmanager
    async def fails(oban: Oban) -> AsyncIterator[None]:
        # As a cache that is down: it must not look as if the database were.
        raise ConnectionRefusedError("the cache is down")
        yield

    oban = node(url, lifespan=fails)
    with pytest.raises(ConnectionRefusedError, match="the cache is down"):
        await oban.start()
    assert oban.check_all_queues() == []
    await oban.stop()


async def test_what_it_raises_at_the_end_is_raised_by_stop_once_the_node_has_stopped(url: URL) -> None:
    @contextlib.asynccontextmanager
    async def fails(oban: Oban) -> AsyncIterator[None]:
        yield
        raise ValueError("cannot close")

    oban = node(url, lifespan=fails)
    await oban.start()
    with pytest.raises(ValueError, match="cannot close"):
        await oban.stop()
    assert oban.check_all_queues() == []
    async with Oban(url) as reader:
        assert await reader.check_cluster() == []
    await oban.stop()


async def test_an_end_that_takes_too_long_is_cut_off(
    sqlite_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oban.runner.runner.SHUTDOWN_TIMEOUT", 0.2)

    @contextlib.asynccontextmanager
    async def hangs(oban: Oban) -> AsyncIterator[None]:
        yield
        await asyncio.Event().wait()

    oban = node(sqlite_url, lifespan=hangs, shutdown_grace_period=0.1)
    await oban.start()
    with pytest.raises(TimeoutError, match="hangs did not end within"):
        await oban.stop()


async def test_a_second_stop_cuts_its_exit_short(sqlite_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oban.runner.runner.SHUTDOWN_TIMEOUT", 0.2)
    exiting = asyncio.Event()

    @contextlib.asynccontextmanager
    async def hangs(oban: Oban) -> AsyncIterator[None]:
        yield
        exiting.set()
        await asyncio.Event().wait()

    oban = node(sqlite_url, lifespan=hangs, shutdown_grace_period=60)
    await oban.start()
    first = asyncio.create_task(oban.stop())
    await exiting.wait()
    for stop in (oban.stop(), first):
        with pytest.raises(TimeoutError, match="hangs did not end within"):
            await within(stop, 10)


async def test_it_is_exited_when_the_start_fails_later(
    sqlite_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: Events = []

    async def fails(self: object) -> None:
        raise RuntimeError("no controller")

    monkeypatch.setattr("oban.runner.services.controller.Controller.tick", fails)
    oban = node(sqlite_url, lifespan=lifespan(events))
    with pytest.raises(RuntimeError, match="no controller"):
        await oban.start()
    assert events == ["enter here", "exit"]
    await oban.stop()


async def test_a_start_that_is_cancelled_ends_it(sqlite_url: URL) -> None:
    events: Events = []
    entering = asyncio.Event()

    @contextlib.asynccontextmanager
    async def waits(oban: Oban) -> AsyncIterator[None]:
        entering.set()
        try:
            await asyncio.Event().wait()
            yield
        finally:
            events.append("ended")

    oban = node(sqlite_url, lifespan=waits)
    starting = asyncio.create_task(oban.start())
    await entering.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert events == ["ended"]
    await oban.stop()


async def test_it_cannot_start_or_stop_its_own_client(sqlite_url: URL) -> None:
    refused: list[str] = []

    @contextlib.asynccontextmanager
    async def starts_and_stops(oban: Oban) -> AsyncIterator[None]:
        # As one writes the lifespan of a web application.
        with pytest.raises(ConfigError, match=r"cannot start or stop its Oban: start\(\) enters it"):
            await oban.start()
        refused.append("start")
        yield
        with pytest.raises(ConfigError, match=r"cannot start or stop its Oban"):
            await oban.stop()
        refused.append("stop")

    async with node(sqlite_url, lifespan=starts_and_stops):
        assert refused == ["start"]
    assert refused == ["start", "stop"]


async def test_an_end_while_jobs_run_is_logged(sqlite_url: URL, caplog: pytest.LogCaptureFixture) -> None:
    fail = asyncio.Event()

    async def background() -> None:
        await fail.wait()
        raise ValueError("the background task has failed")

    @contextlib.asynccontextmanager
    async def group(oban: Oban) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(background())
            yield

    with caplog.at_level(logging.ERROR, "oban.runner"):
        async with node(sqlite_url, lifespan=group):
            fail.set()
            await eventually(lambda: "has ended while jobs run" in caplog.text)
    assert "the background task has failed" in caplog.text


@pytest.mark.parametrize("made", [7, contextlib.nullcontext, contextlib.closing(contextlib.ExitStack())])
async def test_what_is_no_async_context_manager_is_refused(sqlite_url: URL, made: Any) -> None:
    oban = node(sqlite_url, lifespan=lambda oban: made)
    with pytest.raises(ConfigError, match="must return an async context manager, not an object of the type"):
        await oban.start()
    await oban.stop()


async def test_a_node_refuses_to_start_without_what_its_workers_need(sqlite_url: URL) -> None:
    events: Events = []

    class Needs(Worker, queue="media"):
        async def process(self, job: Job, http: Client) -> None: ...

    problem = r"Needs: the lifespan of this node yields nothing for the parameter http: Client of process"
    for options in ({}, {"lifespan": lifespan(events, other=1)}):
        oban = node(sqlite_url, queues={"media": 1}, **options)
        with pytest.raises(ConfigError, match=problem):
            await oban.start()
        await oban.stop()
    assert events == ["enter here", "exit"]


async def test_a_job_without_what_it_needs_is_a_failed_attempt(url: URL) -> None:
    class Needs(Worker, queue="media"):
        async def process(self, job: Job, http: Client) -> None: ...

    class NeedsInThread(Worker, queue="media"):
        def process(self, job: Job, http: Client) -> None: ...

    # The node does not run their queue, but the jobs are in another one.
    async with node(url) as oban:
        for cls in (Needs, NeedsInThread):
            row = await reaches(oban, await oban.enqueue(cls.new(queue="default")), JobState.RETRYABLE)
            error = row.errors[0]["error"]
            assert error.startswith("ConfigError: ")
            assert "yields nothing for the parameter http: Client of process" in error


async def test_a_function_that_is_called_directly_takes_its_resource_as_an_argument() -> None:
    @job
    async def send(to: str, http: Resource[Client] = injected) -> Record:
        http.used_by.append(to)
        return Record(None)

    client = Client()
    await send("a@b.c", http=client)
    assert client.used_by == ["a@b.c"]
