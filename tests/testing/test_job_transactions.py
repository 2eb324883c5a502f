"""Jobs of a test share its connection: what they commit, roll back or break stays in their savepoints."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban, Record, SyncOban, Worker, migration, testing
from tests.testing.applications import ASYNC, Application, Awaited, with_clients
from tests.testing.peer_workers import Acts, Boom, InProcess


class Noop(Worker):
    """Does nothing."""

    async def process(self, job: Job) -> None:
        """Nothing."""


class Breaks(Worker):
    """Sends a statement that fails, after which PostgreSQL refuses all others of a transaction."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        session.add(Job(worker="written"))
        await session.flush()
        await session.execute(text("SELECT nothing FROM nowhere"))


class PlainBreaks(Worker):
    """Does the same in a thread."""

    def process(self, job: Job, session: Session) -> None:
        session.add(Job(worker="written"))
        session.flush()
        session.execute(text("SELECT nothing FROM nowhere"))


@pytest.mark.parametrize("worker", [Breaks, PlainBreaks])
@with_clients
async def test_a_statement_that_fails_leaves_the_transaction_usable(
    app: Application, worker: type[Worker]
) -> None:
    drained = await app.oban.enqueue(worker.new())
    counts = await app.testing.drain_queue(with_safety=True, with_scheduled=False)
    assert counts["retryable"] == 1
    with testing.mode("inline"):
        inline = await app.oban.enqueue(worker.new())
    with pytest.raises(DBAPIError, match="nowhere"):
        await app.testing.process_job(worker.new())
    jobs = await app.oban.list_jobs()
    assert [(job.id, str(job.state)) for job in jobs] == [
        (drained.id, "retryable"),
        (inline.id, "retryable"),
    ]


class Commits(Worker):
    """Commits, rolls back, and writes more."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        session.add(Job(worker="committed"))
        await session.commit()
        session.add(Job(worker="rolled back"))
        await session.rollback()
        session.add(Job(worker="at the end"))
        if job.args.get("fail"):
            raise Boom("no luck")


class PlainCommits(Worker):
    """Does the same in a thread."""

    def process(self, job: Job, session: Session) -> None:
        session.add(Job(worker="committed"))
        session.commit()
        session.add(Job(worker="rolled back"))
        session.rollback()
        session.add(Job(worker="at the end"))
        if job.args.get("fail"):
            raise Boom("no luck")


@pytest.mark.parametrize("worker", [Commits, PlainCommits])
@with_clients
async def test_a_worker_can_commit_and_roll_back(app: Application, worker: type[Worker]) -> None:
    for fail, written in ((False, ["committed", "at the end"]), (True, ["committed"])):
        job = await app.oban.enqueue(worker.new({"fail": fail}, queue="own"))
        await app.testing.drain_queue("own", with_safety=True, with_scheduled=False)
        others = [each for each in await app.oban.list_jobs() if each.id != job.id]
        assert [each.worker for each in others] == written
        await app.oban.delete_job(job)
        for each in others:
            await app.oban.delete_job(each)


class Enqueues(Worker):
    """Enqueues with its session and without it, and fails if it has to."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        await Noop.enqueue(session=session)
        await Noop.enqueue()
        if job.args.get("fail"):
            raise Boom("no luck")


class PlainEnqueues(Worker):
    """Does the same in a thread."""

    def process(self, job: Job, session: Session) -> None:
        Noop.enqueue_sync(session=session)
        Noop.enqueue_sync()
        if job.args.get("fail"):
            raise Boom("no luck")


@with_clients
async def test_what_a_job_enqueues_beside_its_session_is_in_the_savepoint_of_the_session(
    app: Application,
) -> None:
    for worker in [Enqueues, PlainEnqueues] if app.is_async else [PlainEnqueues]:
        for fail in (False, True):
            await app.oban.enqueue(worker.new({"fail": fail}, queue="own"))
            await app.testing.drain_queue("own", with_safety=True, with_scheduled=False)
            # On a node, a job that fails leaves the one that it has enqueued without the session.
            enqueued = await app.testing.all_enqueued(worker=Noop)
            assert len(enqueued) == (0 if fail else 2)
            for job in enqueued:
                await app.oban.delete_job(job)


class EnqueuesAndFails(Worker):
    """Enqueues without a session, and fails."""

    async def process(self, job: Job) -> None:
        await Noop.enqueue()
        raise Boom("no luck")


@with_clients(kinds=ASYNC)
async def test_what_a_job_without_a_session_enqueues_stays_if_it_fails(app: Application) -> None:
    await app.oban.enqueue(EnqueuesAndFails.new())
    counts = await app.testing.drain_queue(with_safety=True, with_scheduled=False)
    assert (counts["retryable"], counts["completed"]) == (1, 1)


@with_clients(kinds=["sqlite-sync", "postgresql-async"])
async def test_jobs_in_child_processes_run(app: Application) -> None:
    assert await app.testing.process_job(InProcess.new({"do": "record"})) == Record({"answer": 42})
    jobs = [InProcess.new({"do": do}) for do in ("record", "cancel", "fail")]
    with testing.mode("inline", with_safety=False), pytest.raises(Boom, match="no luck"):
        await app.oban.enqueue_many(jobs)
    assert [str(job.state) for job in jobs] == ["completed", "cancelled", "retryable"]
    assert jobs[0].recorded == {"answer": 42}


@with_clients
async def test_the_session_of_a_client_shows_how_drained_jobs_ended(app: Application) -> None:
    async with app.session() as session:
        session.own.add(job := Noop.new())
        client = Oban(session.own) if app.is_async else SyncOban(session.own)
        # Flushes the session.
        assert len(await Awaited(client).list_jobs()) == 1
        counts = await app.testing.drain_queue(oban=client)
        assert (counts["completed"], job.state) == (1, "completed")


@with_clients
async def test_after_a_rollback_a_job_that_ran_inline_is_new_again(app: Application) -> None:
    with testing.mode("inline"):
        job = Acts.new({"do": "record"})
        async with app.session() as session:
            await app.oban.enqueue(job, session=session.own)
            assert (job.state, job.attempt) == (JobState.COMPLETED, 1)
            await session.awaited.rollback()
        fresh = (job.state, job.attempt, job.meta, job.completed_at, job.attempted_by)
        assert fresh == (JobState.AVAILABLE, 0, {}, None, [])
        async with app.session() as session:
            await app.oban.enqueue(job, session=session.own)
            await session.awaited.commit()
    assert [each.recorded for each in await app.oban.list_jobs()] == [{"answer": 42}]


@with_clients(kinds=ASYNC)
async def test_drains_and_inline_jobs_at_the_same_time_share_the_connection(app: Application) -> None:
    await app.oban.enqueue_many([Noop.new() for _ in range(6)])
    drains = await asyncio.gather(*(app.testing.drain_queue() for _ in range(3)))
    assert sum(counts["completed"] for counts in drains) == 6
    with testing.mode("inline"):
        jobs = await asyncio.gather(*(app.oban.enqueue(Noop.new()) for _ in range(3)))
    assert {job.state for job in jobs} == {JobState.COMPLETED}


async def test_with_a_url_in_memory_jobs_commit() -> None:
    oban = Oban("sqlite+aiosqlite://")
    async with oban.engine.begin() as connection:
        await connection.run_sync(migration.upgrade)
    for worker in (Commits, PlainCommits):
        await oban.enqueue(worker.new(queue="own"))
    counts: Any = await testing.drain_queue("own", oban=oban)
    assert counts["completed"] == 2
    workers = [job.worker for job in await oban.list_jobs() if job.queue != "own"]
    assert workers == ["committed", "at the end"] * 2
    await oban.stop()


class Interrupted(Worker):
    """Runs when somebody presses Ctrl+C."""

    def process(self, job: Job) -> None:
        raise KeyboardInterrupt


@with_clients
async def test_an_interrupt_ends_the_test_with_safety_as_well(app: Application) -> None:
    with testing.mode("inline"), pytest.raises(KeyboardInterrupt):
        await app.oban.enqueue(Interrupted.new())
    await app.oban.enqueue(Interrupted.new())
    with pytest.raises(KeyboardInterrupt):
        await app.testing.drain_queue(with_safety=True, with_scheduled=False)
    assert {job.state for job in await app.oban.list_jobs()} == {"retryable"}


class ByBind(Worker):
    """Writes to the table that the session factory binds."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        session.add(Job(worker="written"))


class PlainByBind(Worker):
    """Does the same in a thread."""

    def process(self, job: Job, session: Session) -> None:
        session.add(Job(worker="written"))


@pytest.mark.parametrize("worker", [ByBind, PlainByBind])
@pytest.mark.parametrize("key", [Job, Job.__table__], ids=["class", "table"])
@with_clients(kinds=ASYNC)
async def test_binds_of_the_session_factory_lead_to_the_connection(
    app: Application, worker: type[Worker], key: Any
) -> None:
    assert isinstance(app.client, Oban)
    binds = {key: app.client.engine}
    async with app.session() as session:
        oban = Oban(session.own, session=async_sessionmaker(binds=binds))
        with testing.mode("inline"):
            job = await oban.enqueue(worker.new())
        assert (job.state, job.errors) == (JobState.COMPLETED, [])
        assert len(await oban.list_jobs()) == 2
