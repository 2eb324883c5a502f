"""Nodes, clients and migrations work however the sqlite3 driver begins transactions."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import URL, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban, Record, SyncOban, Worker, migration
from oban.errors import WouldDeadlock
from tests.support.databases import SQLiteFactory
from tests.support.jobs import reaches
from tests.support.options import BRIEF, NO_POLLING
from tests.support.sqlite_modes import EARLY, MODES, async_engine, sync_engine
from tests.support.workers import Noop


@pytest.fixture
def url(sqlite_factory: SQLiteFactory) -> URL:
    return sqlite_factory.create()


@pytest.mark.parametrize("mode", MODES)
async def test_a_node_runs_what_other_processes_enqueue(url: URL, mode: str) -> None:
    engine = async_engine(url, mode)
    with SyncOban(url.set(drivername="sqlite")) as other:
        async with Oban(engine, queues={"default": 2}, **NO_POLLING) as oban:
            for _ in range(2):
                job = await asyncio.to_thread(other.enqueue, Noop.new())
                await reaches(oban, job, JobState.COMPLETED)
            async with engine.connect() as connection:
                assert (await connection.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
    await engine.dispose()


@pytest.mark.parametrize("mode", MODES)
def test_a_client_enqueues_alone_and_in_a_session(url: URL, mode: str) -> None:
    engine = sync_engine(url, mode)
    oban = SyncOban(engine)
    alone = oban.enqueue(Noop.new())
    with Session(engine, expire_on_commit=False) as session:
        lost = oban.enqueue(Noop.new(), session=session)
        session.rollback()
        kept = oban.enqueue(Noop.new(), session=session)
        session.commit()
    oban.cancel_job(alone)
    rows = {job.id: job.state for job in oban.list_jobs()}
    assert rows == {alone.id: JobState.CANCELLED, kept.id: JobState.AVAILABLE}
    assert lost.state is not None
    engine.dispose()


async def read_and_enqueue(job: Job, session: AsyncSession) -> Record:
    await session.scalar(select(Job.id).limit(1))
    return Record((await Oban.get_instance("modes").enqueue(Noop.new())).id)


class Reads(Worker, max_attempts=1):
    async def process(self, job: Job, session: AsyncSession) -> Record:
        return await read_and_enqueue(job, session)


class TakesTheLock(Worker, max_attempts=5, discard_on=WouldDeadlock):
    async def process(self, job: Job, session: AsyncSession) -> Record:
        await session.execute(text(job.args["statement"]))
        return await read_and_enqueue(job, session)

    def backoff(self, job: Job) -> float:
        return 0.0


@pytest.mark.parametrize("mode", [*EARLY, "default"])
async def test_only_a_job_that_has_written_would_wait_for_its_own_lock(url: URL, mode: str) -> None:
    engine = async_engine(url, mode)
    async with Oban(engine, name="modes", queues={"default": 5}, **BRIEF) as oban:
        reading = await oban.enqueue(Reads.new())
        assert (await reaches(oban, reading, JobState.COMPLETED)).meta["return"] > reading.id
        for statement in ("UPDATE oban_jobs SET id = id WHERE 0", "UPDATE oban_jobs SET priority = 1"):
            writing = await oban.enqueue(TakesTheLock.new({"statement": statement}))
            row = await reaches(oban, writing, JobState.DISCARDED)
            # On a busy machine, the lock may not be free in time for the first attempts.
            assert "WouldDeadlock" in row.errors[-1]["error"]
    await engine.dispose()


async def test_a_job_whose_session_locks_at_its_begin_would_wait_for_itself(url: URL) -> None:
    engine = async_engine(url, "BEGIN IMMEDIATE")
    async with Oban(engine, name="modes", queues={"default": 5}, **BRIEF) as oban:
        row = await reaches(oban, await oban.enqueue(Reads.new()), JobState.DISCARDED)
        assert "WouldDeadlock" in row.errors[0]["error"]
    await engine.dispose()


class ReadsWhileOthersWrite(Worker, max_attempts=1):
    async def process(self, job: Job, session: AsyncSession) -> Record:
        count = len((await session.scalars(select(Job.id))).all())
        await asyncio.to_thread(_enqueue_elsewhere, job.args["url"])
        return Record(count)


class ReadsInAThread(Worker, max_attempts=1):
    def process(self, job: Job, session: Session) -> Record:
        count = len(session.scalars(select(Job.id)).all())
        _enqueue_elsewhere(job.args["url"])
        return Record(count)


def _enqueue_elsewhere(url: str) -> None:
    with SyncOban(url) as other:
        other.enqueue(Noop.new(queue="elsewhere"))


@pytest.mark.parametrize("reader", [ReadsWhileOthersWrite, ReadsInAThread])
@pytest.mark.parametrize("mode", [*EARLY, "default"])
async def test_a_job_that_has_only_read_ends_although_others_have_written(
    url: URL, mode: str, reader: type[Worker]
) -> None:
    await _runs_while_others_write(url, mode, reader)


async def _runs_while_others_write(url: URL, mode: str, reader: type[Worker]) -> None:
    engine = async_engine(url, mode)
    async with Oban(engine, queues={"default": 5}, **BRIEF) as oban:
        job = await oban.enqueue(reader.new({"url": str(url.set(drivername="sqlite"))}))
        row = await reaches(oban, job, JobState.COMPLETED, JobState.DISCARDED)
        assert (row.errors, row.meta) == ([], {"recorded": True, "return": 1})
    await engine.dispose()


@pytest.mark.parametrize("mode", [*EARLY, "default"])
def test_migrations_at_once_wait_for_each_other(sqlite_factory: SQLiteFactory, mode: str) -> None:
    engine = sync_engine(sqlite_factory.create(empty=True), mode)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(migration.upgrade, [engine] * 4)) == [[]] * 4
    with engine.connect() as connection:
        tables = connection.scalars(text("SELECT name FROM sqlite_schema WHERE type = 'table'")).all()
    assert "oban_jobs" in tables
    assert "oban_lock" not in tables
    engine.dispose()


@pytest.mark.parametrize("mode", [*EARLY, "default"])
async def test_a_migration_joins_the_transaction_of_a_connection(
    sqlite_factory: SQLiteFactory, mode: str
) -> None:
    engine = async_engine(sqlite_factory.create(empty=True), mode)
    async with engine.connect() as connection:
        await connection.exec_driver_sql("CREATE TABLE own (id INTEGER)")
        await connection.run_sync(migration.upgrade)
        await connection.commit()
    async with engine.connect() as connection:
        names = await connection.scalars(text("SELECT name FROM sqlite_schema WHERE type = 'table'"))
        assert {"own", "oban_jobs"} <= set(names)
    await engine.dispose()
