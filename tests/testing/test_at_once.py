"""Tests that use one client for several transactions, or several of its jobs, at once."""

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban, SyncOban, Worker, testing
from tests.support.databases import PostgreSQLFactory
from tests.support.internals import loop_of
from tests.testing.applications import ASYNC, Application, with_clients

#: Both parents run.
barrier: ContextVar[Any] = ContextVar("barrier")


class Child(Worker):
    """Does nothing."""

    def process(self, job: Job) -> None:
        """Nothing."""


class Parent(Worker):
    """Enqueues a child while a parent in another transaction does so, too."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        session.add(Job(worker="written", args=job.args))
        await asyncio.wait_for(barrier.get().wait(), 10)
        await Child.enqueue(job.args)


class PlainParent(Worker):
    """Does the same in a thread."""

    def process(self, job: Job, session: Session) -> None:
        session.add(Job(worker="written", args=job.args))
        barrier.get().wait()
        Child.enqueue_sync(job.args)


@pytest.fixture
def url(postgresql_factory: PostgreSQLFactory) -> URL:
    return postgresql_factory.create()


def _found(jobs: list[Job]) -> list[tuple[str, object]]:
    return sorted((job.worker.rpartition(".")[2], job.args["who"]) for job in jobs)


@pytest.mark.parametrize("how", ["inline", "drain"])
async def test_tasks_use_one_client_in_transactions_of_their_own(url: URL, how: str) -> None:
    barrier.set(asyncio.Barrier(2))
    engine = create_async_engine(url)
    oban = Oban(engine)

    async def use(who: int) -> list[tuple[str, object]]:
        async with AsyncSession(engine) as session:
            with testing.mode("inline" if how == "inline" else "manual"):
                await oban.enqueue(Parent.new({"who": who}), session=session)
            if how == "drain":
                await testing.drain_queue(oban=oban, session=session, with_recursion=False)
            return _found(await oban.list_jobs(session=session))

    for who, found in enumerate(await asyncio.gather(use(0), use(1))):
        assert found == [("Child", who), ("Parent", who), ("written", who)]
    assert loop_of(oban) is None
    await oban.enqueue(Child.new({"who": 2}))
    assert _found(await oban.list_jobs()) == [("Child", 2)]
    await engine.dispose()


def test_threads_use_one_client_in_transactions_of_their_own(url: URL) -> None:
    both_run = threading.Barrier(2, timeout=10)
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    oban = SyncOban(engine)

    def use(who: int) -> list[tuple[str, object]]:
        barrier.set(both_run)
        with Session(engine) as session:
            with testing.mode("inline"):
                oban.enqueue(PlainParent.new({"who": who}), session=session)
            return _found(oban.list_jobs(session=session))

    with ThreadPoolExecutor(2) as threads:
        for who, found in enumerate(threads.map(use, range(2))):
            assert found == [("Child", who), ("PlainParent", who), ("written", who)]
    assert oban.list_jobs() == []
    engine.dispose()


class Drops(Worker, max_attempts=2):
    """Deletes its own row."""

    def process(self, job: Job, session: Session) -> None:
        session.execute(text(f"DELETE FROM oban_jobs WHERE id = {job.id}"))


class AsyncDrops(Worker, max_attempts=2):
    """Does the same on the event loop."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.execute(text(f"DELETE FROM oban_jobs WHERE id = {job.id}"))


@pytest.mark.parametrize("worker", [Drops, AsyncDrops])
@with_clients
async def test_a_job_that_deletes_its_row_fails(app: Application, worker: type[Worker]) -> None:
    job = await app.oban.enqueue(worker.new())
    counts = await app.testing.drain_queue(with_safety=True, with_recursion=False)
    assert counts["retryable"] == 1
    stored = await app.oban.get_job(job.id)
    assert stored.state == JobState.RETRYABLE
    assert "has changed its row" in stored.errors[-1]["error"]


class Writes(Worker):
    """Writes with its session, and lets other tasks go on meanwhile."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        for _ in range(2):
            session.add(Job(worker="written", args=job.args))
            await session.flush()
            await asyncio.sleep(0)
        if job.args["depth"]:
            await _enqueue_two(job.args["depth"] - 1)


async def _enqueue_two(depth: int) -> None:
    await asyncio.gather(*(Writes.enqueue({"who": who, "depth": depth}) for who in range(2)))


@with_clients(kinds=ASYNC)
async def test_jobs_that_tasks_enqueue_at_once_run_one_after_another(app: Application) -> None:
    with testing.mode("inline"):
        await _enqueue_two(depth=1)
    found = [(job.worker.rpartition(".")[2], job.state) for job in await app.oban.list_jobs()]
    assert sorted(found) == [("Writes", "completed")] * 6 + [("written", "available")] * 12


@with_clients(kinds=ASYNC)
async def test_drains_at_once_run_one_after_another(app: Application) -> None:
    await app.oban.enqueue_many([Writes.new({"who": who, "depth": 0}, queue="q") for who in range(4)])
    counts = await asyncio.gather(*(app.testing.drain_queue("q") for _ in range(2)))
    assert [each["completed"] for each in counts] == [4, 0]


async def test_outside_of_inline_mode_a_sync_session_enqueues_on_the_event_loop(url: URL) -> None:
    # A SyncOban of an earlier test would be found first, as long as nothing has collected it.
    gc.collect()
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    async with Oban(url, queues={"other": 1}) as node:
        with testing.mode("manual"), Session(engine) as session:
            Child.enqueue_sync({"who": 0}, session=session)
            session.commit()
        assert _found(await node.list_jobs()) == [("Child", 0)]
    engine.dispose()


class Once(Worker, unique={"period": 60}):
    """Does nothing."""

    def process(self, job: Job) -> None:
        """Nothing."""


@with_clients
async def test_duplicates_of_one_call_show_how_their_job_ended(app: Application) -> None:
    with testing.mode("inline"):
        first, second = await app.oban.enqueue_many([Once.new(), Once.new()])
    assert (first.conflict, second.conflict, second.id) == (False, True, first.id)
    assert first.state == second.state == JobState.COMPLETED
