"""Jobs with a session that are interrupted, wait for a connection, enqueue jobs, or lose their connection."""

import asyncio
import gc
import threading
import time
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban, SyncOban, Worker, migration, worker
from oban.errors import ConfigError, WouldDeadlock
from oban.runner.execution.job_session_threads import ThreadSession
from tests.runner import effects as support
from tests.runner.effects import RUNNING, Halting, effect, effects, nothing_leaked
from tests.support.jobs import acknowledged, reaches, row_of
from tests.support.options import NO_POLLING
from tests.support.waiting import eventually, within


def thread_sessions() -> list[ThreadSession]:
    # Those of earlier tests can be garbage that was not collected yet.
    gc.collect()
    return [found for found in gc.get_objects() if type(found) is ThreadSession]


class Late(Worker, timeout=0.1):
    """Writes, and exceeds its timeout on the event loop."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.run_sync(lambda sync: effect(job, sync))
        await session.flush()
        await asyncio.Event().wait()


class LateInThread(Worker, timeout=0.1):
    """Writes, and exceeds its timeout in a thread, which ends later."""

    def process(self, job: Job, session: Session) -> None:
        effect(job, session)
        session.flush()
        deadline = time.monotonic() + 20
        while not job.cancelled() and time.monotonic() < deadline:
            time.sleep(0.005)


LATE = {"async": Late, "thread": LateInThread}


async def test_a_timeout_rolls_back(one_table: URL, form: str) -> None:
    async with Oban(one_table, **RUNNING) as oban:
        row = await reaches(oban, await oban.enqueue(LATE[form].new()), JobState.RETRYABLE)
        assert await effects(oban) == []
        assert row.errors[0]["error"].endswith("timed out after 0.1 s")
        await eventually(lambda: nothing_leaked(oban))


async def test_a_job_that_is_interrupted_in_a_statement_keeps_no_lock(table: URL) -> None:
    begun, locked = asyncio.Event(), asyncio.Event()

    class LateInStatement(Worker, timeout=0.3):
        async def process(self, job: Job, session: AsyncSession) -> None:
            begun.set()
            await locked.wait()
            await session.execute(text("UPDATE effects SET name = 'mine'"))

    async with Oban(table, **RUNNING) as oban:
        async with oban.engine.begin() as connection:
            await connection.execute(text("INSERT INTO effects (name) VALUES ('theirs')"))
        async with oban.engine.connect() as connection:
            job = await oban.enqueue(LateInStatement.new())
            await begun.wait()
            await connection.execute(text("UPDATE effects SET name = 'locked'"))
            locked.set()
            # The job has timed out. On SQLite its statement does not end before the lock is released.
            await asyncio.sleep(0.5)
            await connection.rollback()
        row = await reaches(oban, job, JobState.RETRYABLE)
        assert row.errors[0]["error"].endswith("timed out after 0.3 s")
        assert await effects(oban) == ["theirs"]
        await eventually(lambda: nothing_leaked(oban))
        async with oban.engine.begin() as connection:
            await within(connection.execute(text("UPDATE effects SET name = 'free'")), 2)


async def test_a_stop_puts_the_job_back_and_nothing_is_written(one_table: URL, form: str) -> None:
    halting = Halting(form, writes_first=one_table.get_backend_name() != "sqlite")
    engine = create_async_engine(one_table)
    async with Oban(engine) as client:
        oban = Oban(engine, **{**RUNNING, "shutdown_grace_period": 0.05})
        await oban.start()
        job = await oban.enqueue(halting.worker.new())
        await eventually(halting.begun.is_set)
        await oban.stop()
        row = await row_of(client, job)
        assert (row.state, row.attempt, row.errors) == (JobState.AVAILABLE, 0, [])
        # A thread continues, and ends too late.
        halting.go.set()
        await eventually(halting.ended.is_set)
        await eventually(lambda: not thread_sessions())
        assert await effects(client) == []
        assert (await row_of(client, job)).state is JobState.AVAILABLE
        await eventually(lambda: nothing_leaked(client))
    await engine.dispose()


async def test_more_jobs_than_connections_wait_their_turn(one_table: URL, form: str) -> None:
    pid = "SELECT 1" if one_table.get_backend_name() == "sqlite" else "SELECT pg_sleep(0.05)"

    def body(job: Job, session: Session) -> None:
        session.execute(text(pid))
        effect(job, session)

    made = support.worker(form, body)
    engine = create_async_engine(one_table, pool_size=2, max_overflow=0, pool_timeout=0.02)
    async with Oban(one_table) as client, Oban(engine, **{**RUNNING, "queues": {"default": 20}}) as oban:
        jobs = await client.enqueue_many(made.new() for _ in range(20))
        for job in jobs:
            row = await reaches(client, job, JobState.COMPLETED)
            assert (row.attempt, row.errors) == (1, [])
        assert await effects(client) == sorted(f"{job.id}/1" for job in jobs)
        await eventually(lambda: nothing_leaked(oban))
    await engine.dispose()


class Last(Worker):
    """The second job of a chain."""

    def process(self, job: Job, session: Session) -> None:
        effect(job, session)


class First(Worker):
    """Enqueues `Last`, and fails the first time."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        oban = Oban.get_instance("chain")
        await oban.enqueue(Last.new(), session=session)
        if job.attempt == 1:
            raise ValueError("after it had enqueued")


class FirstInThread(Worker):
    """The same in a thread."""

    def process(self, job: Job, session: Session) -> None:
        SyncOban.get_instance("chain").enqueue(Last.new(), session=session)
        if job.attempt == 1:
            raise ValueError("after it had enqueued")


class Added(Worker):
    """Enqueues `Last` by adding it to the session, and fails the first time."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        session.add(Last.new())
        if job.attempt == 1:
            raise ValueError("after it had enqueued")


class AddedInThread(Worker):
    """The same in a thread."""

    def process(self, job: Job, session: Session) -> None:
        session.add(Last.new())
        if job.attempt == 1:
            raise ValueError("after it had enqueued")


@pytest.mark.parametrize("first", [First, FirstInThread, Added, AddedInThread])
async def test_a_job_enqueues_the_next_exactly_once(one_table: URL, first: type[Worker]) -> None:
    lite = one_table.get_backend_name() == "sqlite"
    driver = "sqlite" if lite else "postgresql+psycopg"
    with SyncOban(one_table.set(drivername=driver), name="chain"):
        async with Oban(one_table, name="chain", **RUNNING) as oban:
            job = await oban.enqueue(first.new())
            await reaches(oban, job, JobState.RETRYABLE)
            assert [found.worker for found in await oban.list_jobs()] == [first.worker_name]
            await oban.retry_job(job.id)
            await reaches(oban, job, JobState.COMPLETED)
            _, last = await oban.list_jobs()
            await reaches(oban, last, JobState.COMPLETED)
            assert await effects(oban) == [f"{last.id}/1"]


async def test_a_job_that_it_enqueues_starts_at_once(one_table: URL) -> None:
    class Chained(Worker):
        async def process(self, job: Job, session: AsyncSession) -> None:
            await Oban.get_instance("chain").enqueue(Last.new(), session=session)

    async with Oban(one_table, name="chain", **{**NO_POLLING, "queues": {"default": 5}}) as oban:
        await oban.enqueue(Chained.new())
        await eventually(lambda: effects(oban), 5.0)


async def test_a_lost_connection_fails_the_attempt(postgresql_url: URL, form: str) -> None:
    def body(job: Job, session: Session) -> None:
        effect(job, session)
        if job.attempt == 1:
            session.flush()
            pid = session.scalar(text("SELECT pg_backend_pid()"))
            pids.append(pid)
            assert cut.wait(20)

    pids: list[int | None] = []
    cut = threading.Event()

    class OnLoop(Worker):
        async def process(self, job: Job, session: AsyncSession) -> None:
            await session.run_sync(lambda sync: effect(job, sync))
            if job.attempt == 1:
                pids.append(await session.scalar(text("SELECT pg_backend_pid()")))
                await eventually(cut.is_set)

    made = OnLoop if form == "async" else support.worker(form, body)
    with support.effects_table(postgresql_url):
        async with Oban(postgresql_url, **RUNNING) as oban:
            job = await oban.enqueue(made.new())
            await eventually(lambda: pids)
            async with oban.engine.begin() as connection:
                await connection.execute(text(f"SELECT pg_terminate_backend({pids[0]})"))
            cut.set()
            await reaches(oban, job, JobState.RETRYABLE)
            assert await effects(oban) == []
            await oban.retry_job(job.id)
            await reaches(oban, job, JobState.COMPLETED)
            assert await effects(oban) == [f"{job.id}/2"]
            await eventually(lambda: nothing_leaked(oban))


async def test_a_sync_process_runs_outside_of_any_event_loop(one_table: URL) -> None:
    class RunsALoop(Worker):
        def process(self, job: Job, session: Session) -> Any:
            effect(job, session)
            session.flush()
            value = asyncio.run(asyncio.sleep(0, "from a loop"))
            with session.begin_nested():
                session.add(support.Effect(name=value))

    async with Oban(one_table, **RUNNING) as oban:
        job = await reaches(oban, await oban.enqueue(RunsALoop.new()), JobState.COMPLETED)
        assert await effects(oban) == [f"{job.id}/1", "from a loop"]


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ("async", ValueError),
        *(("thread", error) for error in (StopIteration, KeyboardInterrupt, SystemExit, GeneratorExit)),
    ],
)
async def test_every_exception_is_recorded(one_table: URL, form: str, error: type[BaseException]) -> None:
    def body(job: Job, session: Session) -> None:
        effect(job, session)
        session.flush()
        raise error("from the job")

    async with Oban(one_table, **RUNNING) as oban:
        row = await reaches(oban, await oban.enqueue(support.worker(form, body).new()), JobState.RETRYABLE)
        assert "from the job" in row.errors[0]["error"]
        assert await effects(oban) == []


class Forgetful(Worker):
    """Writes, and then enqueues without `session=`."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        if job.args.get("writes", True):
            await session.run_sync(lambda sync: effect(job, sync))
            await session.flush()
        await session.scalars(text("SELECT name FROM effects"))
        await Oban.get_instance("forgetful").enqueue(Last.new())


class ForgetfulInThread(Worker):
    """The same in a thread."""

    def process(self, job: Job, session: Session) -> None:
        if job.args.get("writes", True):
            effect(job, session)
            session.flush()
        session.scalars(text("SELECT name FROM effects"))
        SyncOban.get_instance("forgetful").enqueue(Last.new())


FORGETFUL = {"async": Forgetful, "thread": ForgetfulInThread}


async def test_on_sqlite_a_job_does_not_wait_for_its_own_lock(one_table: URL, form: str) -> None:
    lite = one_table.get_backend_name() == "sqlite"
    driver = "sqlite" if lite else "postgresql+psycopg"
    made = FORGETFUL[form]
    with SyncOban(one_table.set(drivername=driver), name="forgetful"):
        async with Oban(one_table, name="forgetful", **RUNNING) as oban:
            reads = await oban.enqueue(made.new({"writes": False}))
            await reaches(oban, reads, JobState.COMPLETED)
            writes = await oban.enqueue(made.new())
            row = await reaches(oban, writes, *((JobState.RETRYABLE,) if lite else (JobState.COMPLETED,)))
            assert (WouldDeadlock.__name__ in str(row.errors)) == lite
            await acknowledged(oban)


class InMemory(Worker):
    """Uses the only connection."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.scalar(text("SELECT 1"))
        if job.args.get("reads"):
            await Oban.get_instance("memory").get_job(job.id)


async def test_in_memory_a_job_has_the_one_connection(sqlite_url: URL) -> None:
    async with Oban("sqlite+aiosqlite://", name="memory") as client:
        async with client.engine.begin() as connection:
            await connection.run_sync(migration.upgrade)
        async with Oban(client.engine, name="memory", **RUNNING) as oban:
            for made, args, state, error in [
                (InMemory, {}, JobState.COMPLETED, ""),
                (InMemory, {"reads": True}, JobState.RETRYABLE, "WouldDeadlock"),
                (Last, {}, JobState.RETRYABLE, "a database in memory has only one connection"),
            ]:
                row = await reaches(oban, await oban.enqueue(made.new(args)), state)
                assert error in str(row.errors)


async def test_a_process_that_returns_an_awaitable_is_asked_to_be_async(one_table: URL) -> None:
    class Half(Worker):
        def process(self, job: Job, session: Session) -> Any:
            effect(job, session)
            return asyncio.sleep(0)

    async with Oban(one_table, **RUNNING) as oban:
        row = await reaches(oban, await oban.enqueue(Half.new()), JobState.RETRYABLE)
        assert "make it async" in row.errors[0]["error"]
        assert await effects(oban) == []


def test_a_worker_in_a_child_process_cannot_have_a_session() -> None:
    class Plain:
        def process(self, job: Job, session: Session) -> None:
            pass

    with pytest.raises(ConfigError, match="Plain: a child process cannot have the job's session"):
        worker(executor="process")(Plain)
