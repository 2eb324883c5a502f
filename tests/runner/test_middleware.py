"""Middleware runs around each attempt, on the event loop, in the job's thread or around its child process."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import CallNext, Cancel, Job, JobState, Middleware, Oban, Record, Snooze, Worker, current_job, job
from tests.runner import process_workers
from tests.runner.effects import RUNNING, effect, effects, nothing_leaked, worker
from tests.support.jobs import reaches
from tests.support.options import BRIEF
from tests.support.waiting import eventually

pytestmark = pytest.mark.either_driver

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")
user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="none")


class Log:
    """Notes what runs, where, and with which context variables."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []

    def note(self, name: str, job: Job) -> None:
        assert current_job() is job
        on_loop = threading.current_thread() is threading.main_thread()
        self.entries.append((name, "loop" if on_loop else "thread", request_id.get(), user.get()))

    def on_loop(self, name: str, variable: contextvars.ContextVar[str]) -> Middleware:
        async def middleware(job: Job, call_next: CallNext) -> Any:
            with setting(variable, name):
                self.note(f"{name} in", job)
                result = await call_next(job)
                self.note(f"{name} out", job)
            return Record([name, result.value])

        return middleware

    def plain(self, name: str, variable: contextvars.ContextVar[str]) -> Middleware:
        def middleware(job: Job, call_next: CallNext) -> Any:
            with setting(variable, name):
                self.note(f"{name} in", job)
                result = call_next(job)
                self.note(f"{name} out", job)
            return Record([name, result.value])

        return middleware


@contextlib.contextmanager
def setting(variable: contextvars.ContextVar[str], value: str) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


@pytest.mark.parametrize("with_session", [False, True])
async def test_around_an_async_process_all_of_it_runs_on_the_loop(url: URL, with_session: bool) -> None:
    log = Log()
    own = [log.on_loop("own", user)]

    class Plain(Worker, middleware=own):
        async def process(self, job: Job) -> Record:
            log.note("process", job)
            return Record("done")

    class InSession(Worker, middleware=own):
        async def process(self, job: Job, session: AsyncSession) -> Record:
            log.note("process", job)
            return Record("done")

    async with Oban(url, middleware=[log.plain("shared", request_id)], **RUNNING) as oban:
        made = (InSession if with_session else Plain).new()
        row = await reaches(oban, await oban.enqueue(made), JobState.COMPLETED)
    assert row.meta["return"] == ["shared", ["own", "done"]]
    assert log.entries == [
        ("shared in", "loop", "shared", "none"),
        ("own in", "loop", "shared", "own"),
        ("process", "loop", "shared", "own"),
        ("own out", "loop", "shared", "own"),
        ("shared out", "loop", "shared", "none"),
    ]


@pytest.mark.parametrize("with_session", [False, True])
async def test_around_a_plain_process_the_plain_part_runs_inside_in_its_thread(
    url: URL, with_session: bool
) -> None:
    log = Log()
    own = [log.on_loop("own", user)]

    class Plain(Worker, middleware=own):
        def process(self, job: Job) -> Record:
            log.note("process", job)
            return Record("done")

    class InSession(Worker, middleware=own):
        def process(self, job: Job, session: Session) -> Record:
            log.note("process", job)
            return Record("done")

    # A database in memory has no sessions in threads; these are files.
    async with Oban(url, middleware=[log.plain("shared", request_id)], **RUNNING) as oban:
        made = (InSession if with_session else Plain).new()
        row = await reaches(oban, await oban.enqueue(made), JobState.COMPLETED)
    # The plain one is inside, although it is the first one.
    assert row.meta["return"] == ["own", ["shared", "done"]]
    assert log.entries == [
        ("own in", "loop", "none", "own"),
        ("shared in", "thread", "shared", "own"),
        ("process", "thread", "shared", "own"),
        ("shared out", "thread", "shared", "own"),
        ("own out", "loop", "none", "own"),
    ]


async def in_a_child(job: Job, call_next: CallNext) -> Any:
    result = await call_next(job)
    return Record(["around", result.value[0]]) if isinstance(result, Record) else result


def sees_the_failure(job: Job, call_next: CallNext) -> Any:
    try:
        return call_next(job)
    except Exception as error:
        if job.meta.get("handled"):
            return Cancel(f"handled: {str(error).splitlines()[-1]}")
        raise


async def test_around_a_child_process_it_runs_on_the_node(sqlite_url: URL) -> None:
    async with Oban(sqlite_url, middleware=[in_a_child, sees_the_failure], **RUNNING) as oban:
        row = await reaches(oban, await process_workers.add.enqueue(1, 2), JobState.COMPLETED)
        assert row.meta["return"] == ["around", 3]
        cases = {do: process_workers.InProcess.new({"do": do}) for do in ("cancel", "snooze", "raise")}
        cases["handled"] = process_workers.InProcess.new({"do": "raise"}, meta={"handled": True})
        await oban.enqueue_many(cases.values())
        assert (await reaches(oban, cases["cancel"], JobState.CANCELLED)).errors[0][
            "error"
        ] == "no such account"
        assert (await reaches(oban, cases["snooze"], JobState.SCHEDULED)).meta["snoozed"] == 1
        failed = await reaches(oban, cases["raise"], JobState.RETRYABLE)
        # As it is without middleware: the traceback of the child process only.
        assert failed.errors[0]["error"].startswith("Traceback")
        assert "ChildFailed" not in failed.errors[0]["error"]
        handled = await reaches(oban, cases["handled"], JobState.CANCELLED)
        assert handled.errors[0]["error"].startswith("handled: ")


async def fails_afterwards(job: Job, call_next: CallNext) -> Any:
    await call_next(job)
    raise ValueError("after the job")


def fails_afterwards_plainly(job: Job, call_next: CallNext) -> Any:
    call_next(job)
    raise ValueError("after the job")


@pytest.mark.parametrize("middleware", [fails_afterwards, fails_afterwards_plainly])
async def test_what_a_job_has_written_is_rolled_back_if_a_middleware_fails(
    table: URL, form: str, middleware: Middleware
) -> None:
    async with Oban(table, **RUNNING) as oban:
        made = worker(form, lambda job, session: effect(job, session), middleware=[middleware]).new()
        row = await reaches(oban, await oban.enqueue(made), JobState.RETRYABLE)
        assert row.errors[0]["error"].endswith("ValueError: after the job")
        assert await effects(oban) == []
        await eventually(lambda: nothing_leaked(oban))


async def on_the_loop(job: Job, call_next: CallNext) -> Any:
    return await call_next(job)


def in_the_thread(job: Job, call_next: CallNext) -> Any:
    return call_next(job)


@pytest.mark.parametrize("middleware", [on_the_loop, in_the_thread])
async def test_what_a_job_has_written_is_committed_with_its_outcome(
    table: URL, form: str, middleware: Middleware
) -> None:
    def body(job: Job, session: Session) -> Snooze:
        effect(job, session)
        session.flush()
        return Snooze(60)

    async with Oban(table, **RUNNING) as oban:
        made = worker(form, body, middleware=[middleware, middleware]).new()
        row = await reaches(oban, await oban.enqueue(made), JobState.SCHEDULED)
        assert await effects(oban) == [f"{row.id}/1"]
        await eventually(lambda: nothing_leaked(oban))


async def skips(job: Job, call_next: CallNext) -> Any:
    return Record("skipped")


async def test_a_job_with_a_session_can_be_skipped(one_table: URL, form: str) -> None:
    async with Oban(one_table, **RUNNING) as oban:
        made = worker(form, effect, middleware=[skips]).new()
        row = await reaches(oban, await oban.enqueue(made), JobState.COMPLETED)
        assert row.meta["return"] == "skipped"
        assert await effects(oban) == []


async def test_a_session_that_cannot_be_opened_fails_the_job_that_middleware_surrounds() -> None:
    from oban import migration

    url = "sqlite+aiosqlite:///file:around?mode=memory&cache=shared&uri=true"
    oban = Oban(url, middleware=[on_the_loop], **RUNNING)
    async with oban.engine.begin() as connection:
        await connection.run_sync(migration.upgrade)
    async with oban:
        row = await reaches(oban, await oban.enqueue(worker("thread", effect).new()), JobState.RETRYABLE)
    assert "a database in memory has only one connection" in row.errors[0]["error"]


async def waits_before(job: Job, call_next: CallNext) -> Any:
    await asyncio.Event().wait()


async def waits_after(job: Job, call_next: CallNext) -> Any:
    await call_next(job)
    await asyncio.Event().wait()


@pytest.mark.parametrize("middleware", [waits_before, waits_after])
async def test_a_timeout_interrupts_middleware(
    url: URL, form: str, middleware: Middleware, caplog: pytest.LogCaptureFixture
) -> None:
    # Long enough for the thread of the job to end before, on a slow machine as well.
    timeout = 1.0 if (form, middleware) == ("thread", waits_after) else 0.05
    caplog.set_level("INFO", "oban.executor")
    async with Oban(url, middleware=[middleware], **RUNNING) as oban:
        made = worker(form, lambda job, session: None, timeout=timeout).new()
        row = await reaches(oban, await oban.enqueue(made), JobState.RETRYABLE)
    assert "timed out after" in row.errors[0]["error"]
    # Nothing continues in a thread.
    assert [record.levelname for record in caplog.records if record.name == "oban.executor"] == ["WARNING"]


@pytest.mark.parametrize("raises", [False, True], ids=["returns", "raises"])
async def test_a_timeout_waits_for_the_thread_and_middleware_sees_a_cancellation(
    url: URL, raises: bool
) -> None:
    seen: list[str] = []

    async def watching(job: Job, call_next: CallNext) -> Any:
        try:
            return await call_next(job)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    class Slow(Worker, timeout=0.05, middleware=[watching]):
        def process(self, job: Job) -> None:
            while not job.cancelled():
                threading.Event().wait(0.005)
            seen.append("process has ended")
            if raises:
                raise Cancel("too late")

    async with Oban(url, **RUNNING) as oban:
        row = await reaches(oban, await oban.enqueue(Slow.new()), JobState.RETRYABLE)
    assert seen == ["process has ended", "cancelled"]
    assert row.errors[0]["error"].endswith("timed out after 0.05 s")


async def test_a_timeout_during_the_commit_comes_too_late(
    sqlite_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "oban.executor")

    # Enough time to get to the commit on a busy machine.
    class CommitsLate(Worker, timeout=1, middleware=[on_the_loop]):
        def process(self, job: Job, session: Session) -> None:
            @event.listens_for(session, "before_commit")
            def wait(_: Session) -> None:
                while not job.cancelled():
                    threading.Event().wait(0.005)

    async with Oban(sqlite_url, **RUNNING) as oban:
        row = await reaches(oban, await oban.enqueue(CommitsLate.new()), JobState.COMPLETED)
    assert row.errors == []
    states = [record.__dict__["state"] for record in caplog.records if "state" in record.__dict__]
    assert states == ["executing", "executing", "completed"]


@pytest.mark.parametrize("middleware", [on_the_loop, in_the_thread, waits_before, waits_after])
async def test_a_job_that_does_not_end_in_the_grace_period_is_put_back(
    one_table: URL, middleware: Middleware
) -> None:
    begun, go = threading.Event(), threading.Event()

    async def begins(job: Job, call_next: CallNext) -> Any:
        begun.set()
        return await call_next(job)

    def body(job: Job, session: Session) -> None:
        effect(job, session)
        if middleware in (on_the_loop, in_the_thread):
            go.wait(20)

    forms = ["thread"] if middleware in (on_the_loop, in_the_thread) else ["async", "thread"]
    jobs = [worker(form, body).new() for form in forms]
    async with Oban(one_table) as reader:
        async with Oban(
            one_table, middleware=[begins, middleware], queues={"default": 5}, shutdown_grace_period=0.05
        ) as oban:
            await oban.enqueue_many(jobs)
            await eventually(begun.is_set)
        for made in jobs:
            await reaches(reader, made, JobState.AVAILABLE)
        go.set()
        assert await effects(reader) == []


async def test_functions_have_middleware_and_their_decorated_results_are_awaited(url: URL) -> None:
    events: list[str] = []

    async def around(job: Job, call_next: CallNext) -> Any:
        result = await call_next(job)
        events.append(result.value)
        return result

    @job(middleware=[around])
    async def on_loop() -> Record:
        return Record("on the loop")

    @job(middleware=[around])
    def in_thread() -> Any:
        # As a plain decorator around an async function does.
        return coroutine()

    async def coroutine() -> Record:
        return Record("awaited")

    async with Oban(url, **RUNNING) as oban:
        for function, value in ((on_loop, "on the loop"), (in_thread, "awaited")):
            row = await reaches(oban, await function.enqueue(), JobState.COMPLETED)
            assert row.meta["return"] == value
    assert events == ["on the loop", "awaited"]


async def test_args_can_be_converted_before_they_are_parsed(url: URL) -> None:
    def renames(job: Job, call_next: CallNext) -> Any:
        job.args = {"a": job.args["old"]}
        return call_next(job)

    class Reads(Worker, middleware=[renames]):
        async def process(self, job: Job, args: dict[str, Any]) -> Record:
            return Record(args)

    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        row = await reaches(oban, await oban.enqueue(Reads.new({"old": 1})), JobState.COMPLETED)
    assert row.meta["return"] == {"a": 1}
