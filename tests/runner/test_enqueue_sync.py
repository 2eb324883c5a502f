"""`enqueue_sync` of a worker without a `SyncOban`: the node that runs in this process enqueues."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban, Worker, job
from oban.errors import InstanceNotFound, InvalidTarget, WouldDeadlock
from oban.middleware import CallNext
from tests.runner import process_workers
from tests.runner.effects import RUNNING, effect
from tests.support.jobs import reaches
from tests.support.waiting import eventually
from tests.support.workers import Noop

NAME = "sync-calls"
NODE: dict[str, Any] = {**RUNNING, "name": NAME}


class Next(Noop, oban=NAME):
    pass


@job(oban=NAME)
async def following() -> None:
    pass


class InThread(Worker, oban=NAME, max_attempts=1):
    def process(self, job: Job) -> None:
        Next.enqueue_sync({"by": job.id})
        following.enqueue_sync()


class InSession(Worker, oban=NAME, max_attempts=1):
    """Enqueues in its own transaction, which it rolls back the first time."""

    def process(self, job: Job, session: Session) -> None:
        Next.enqueue_sync({"by": job.id}, session=session)
        if job.args:
            raise ValueError("rolled back")


class Locked(Worker, oban=NAME, max_attempts=1):
    """Enqueues beside its own transaction, which has written."""

    def process(self, job: Job, session: Session) -> None:
        effect(job, session)
        session.flush()
        Next.enqueue_sync({"by": job.id})


async def enqueued_by(oban: Oban, made: Job) -> int:
    return sum(each.args == {"by": made.id} for each in await oban.list_jobs())


async def test_a_plain_worker_enqueues_through_its_node(url: URL) -> None:
    async with Oban(url, **NODE) as oban:
        made = await oban.enqueue(InThread.new())
        await reaches(oban, made, JobState.COMPLETED)
        assert await enqueued_by(oban, made) == 1
        await oban.wait_until_empty(timeout=10)
        assert {each.state for each in await oban.list_jobs()} == {JobState.COMPLETED}


async def test_a_plain_worker_enqueues_in_its_own_transaction(table: URL) -> None:
    async with Oban(table, **NODE) as oban:
        made = await oban.enqueue(InSession.new())
        await reaches(oban, made, JobState.COMPLETED)
        assert await enqueued_by(oban, made) == 1
        made = await oban.enqueue(InSession.new({"fail": True}))
        await reaches(oban, made, JobState.DISCARDED)
        assert await enqueued_by(oban, made) == 0


async def test_a_job_that_would_wait_for_its_own_lock_is_told(table: URL) -> None:
    async with Oban(table, **NODE) as oban:
        made = await oban.enqueue(Locked.new())
        row = await reaches(oban, made, JobState.COMPLETED, JobState.DISCARDED)
        if table.get_backend_name() == "sqlite":
            assert WouldDeadlock.__name__ in row.errors[0]["error"]
        else:
            assert await enqueued_by(oban, made) == 1


async def test_any_thread_enqueues_through_the_node(sqlite_url: URL) -> None:
    async with Oban(sqlite_url, **NODE) as oban:
        made = await asyncio.to_thread(Next.enqueue_sync)
        await reaches(oban, made, JobState.COMPLETED)
        with pytest.raises(InvalidTarget, match="not AsyncSession"):
            await asyncio.to_thread(Next.enqueue_sync, session=AsyncSession(oban.engine))  # type: ignore[arg-type]
    with pytest.raises(InstanceNotFound, match="no Oban of this name that runs jobs"):
        await asyncio.to_thread(Next.enqueue_sync)


async def test_the_event_loop_is_not_blocked_by_an_async_worker(sqlite_url: URL) -> None:
    class OnLoop(Worker, oban=NAME, max_attempts=1):
        async def process(self, job: Job) -> None:
            Next.enqueue_sync()

    async with Oban(sqlite_url, **NODE) as oban:
        row = await reaches(oban, await oban.enqueue(OnLoop.new()), JobState.DISCARDED)
        assert "use `await ….enqueue(…)`" in row.errors[0]["error"]


async def test_plain_middleware_around_an_async_worker_enqueues(url: URL) -> None:
    def middleware(job: Job, call_next: CallNext) -> Any:
        if job.worker != Next.worker_name:
            Next.enqueue_sync({"by": job.id})
        return call_next(job)

    async with Oban(url, **NODE, middleware=[middleware]) as oban:
        made = await oban.enqueue(Noop.new())
        await reaches(oban, made, JobState.COMPLETED)
        assert await enqueued_by(oban, made) == 1


def waiting_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[Exception]]:
    errors: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


async def test_a_job_of_the_grace_period_can_enqueue(sqlite_url: URL) -> None:
    begun, go = threading.Event(), threading.Event()

    class Waits(Worker, oban=NAME, max_attempts=1):
        def process(self, job: Job) -> None:
            begun.set()
            go.wait(10)
            Next.enqueue_sync({"by": job.id})

    async with Oban(sqlite_url) as client:
        oban = Oban(sqlite_url, **{**NODE, "shutdown_grace_period": 10})
        await oban.start()
        made = await oban.enqueue(Waits.new())
        await eventually(begun.is_set)
        stopping = asyncio.create_task(oban.stop())
        await asyncio.sleep(0)
        go.set()
        await stopping
        await reaches(client, made, JobState.COMPLETED)
        assert await enqueued_by(client, made) == 1


def test_a_thread_does_not_wait_for_a_loop_that_has_ended(sqlite_url: URL) -> None:
    oban = Oban(sqlite_url, **NODE)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(oban.start())
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.wait(tasks))
    thread, errors = waiting_thread(Next.enqueue_sync)
    thread.join(0.05)
    assert thread.is_alive()
    loop.close()
    thread.join(10)
    assert [type(error) for error in errors] == [InstanceNotFound]
    with pytest.raises(InstanceNotFound, match="no Oban of this name that runs jobs"):
        Next.enqueue_sync()


async def test_a_child_process_has_no_node(sqlite_url: URL) -> None:
    async with Oban(sqlite_url, **NODE) as oban:
        row = await reaches(oban, await oban.enqueue(process_workers.EnqueuesSync.new()), JobState.DISCARDED)
        assert "where the Oban of its node cannot be used; create SyncOban(" in row.errors[0]["error"]
