"""Jobs that a `select(Job)` names, and jobs that were changed before they are enqueued."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, JobState, Oban, Worker
from tests.support.databases import PostgreSQLFactory
from tests.support.internals import stage_statement


class Quick(Worker, queue="quick"):
    async def process(self, job: Job) -> None: ...


async def test_a_statement_with_a_limit_and_a_random_order_changes_that_many_jobs(oban: Oban) -> None:
    await oban.enqueue_many(Quick.new() for _ in range(100))
    some = select(Job).where(Job.state == JobState.AVAILABLE).order_by(func.random()).limit(20)
    assert await oban.cancel_many_jobs(some) == 20
    assert len(await oban.update_many_jobs(some, {"priority": 3})) == 20
    assert await oban.delete_many_jobs(some) == 20
    assert len(await oban.list_jobs()) == 80


async def test_an_integer_with_a_text_of_its_own_is_an_id(oban: Oban) -> None:
    class Named(int):
        """As a member of an enum of integers."""

        def __str__(self) -> str:
            return "Named"

    id_ = Named((await oban.enqueue(Quick.new())).id)
    assert [job.id for job in await oban.update_many_jobs([id_], {"priority": 3})] == [id_]
    assert await oban.cancel_many_jobs([id_]) == 1
    assert await oban.delete_job(id_)


async def test_a_time_that_is_set_later_replaces_the_delay_of_a_new_job(oban: Oban) -> None:
    job = Quick.new(schedule_in=60)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    job.scheduled_at = tomorrow
    assert (await oban.enqueue(job)).scheduled_at == tomorrow


async def test_a_job_added_to_a_session_waits_for_the_time_that_was_set_on_it(oban: Oban) -> None:
    job = Quick.new()
    job.scheduled_at = datetime.now(UTC) + timedelta(days=1)
    job.tags.append(" Late ")
    async with AsyncSession(oban.engine) as session, session.begin():
        session.add(job)
    [row] = await oban.list_jobs()
    assert (row.state, row.tags) == (JobState.SCHEDULED, ["late"])


async def test_a_job_added_to_a_session_can_be_managed_in_it(oban: Oban) -> None:
    job = Quick.new()
    async with AsyncSession(oban.engine, expire_on_commit=False) as session, session.begin():
        session.add(job)
        assert await oban.cancel_job(job, session=session)
    assert job.state is JobState.CANCELLED
    assert [row.state for row in await oban.list_jobs()] == [JobState.CANCELLED]


async def test_a_json_null_and_the_string_null_stay_different(oban: Oban) -> None:
    jobs = await oban.enqueue_many(Quick.new({"cc": None, "text": "null"}) for _ in range(3))
    assert [row.args for row in await oban.list_jobs()] == [job.args for job in jobs]


@pytest.mark.slow
async def test_batches_of_management_do_not_deadlock_with_a_runner(
    postgresql_factory: PostgreSQLFactory,
) -> None:
    url = postgresql_factory.create()
    async with Oban(url, queues={"quick": 20}, watch_interval=0.02) as oban, Oban(url, name="other") as other:

        async def manage() -> None:
            for _ in range(12):
                await other.update_many_jobs(select(Job).where(Job.queue == "quick"), {"priority": 1})
                await other.cancel_many_jobs(select(Job).where(Job.id % 7 == 0))
                await other.retry_many_jobs(select(Job).where(Job.id % 14 == 0))

        async def enqueue() -> None:
            for _ in range(30):
                await oban.enqueue_many(Quick.new() for _ in range(20))

        await asyncio.gather(manage(), manage(), enqueue())
        async with oban.engine.connect() as connection:
            # The server updates its statistics only when a connection has been idle, unless it is told to.
            await connection.execute(text("SELECT pg_stat_force_next_flush()"))
            deadlocks = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            assert (await connection.execute(deadlocks)).scalar() == 0
    postgresql_factory.drop(url)


async def test_the_stager_finds_due_jobs_through_their_own_index_on_postgresql(
    postgresql_factory: PostgreSQLFactory,
) -> None:
    url = postgresql_factory.create()
    async with Oban(url) as oban:
        await oban.enqueue_many(Quick.new(schedule_in=3600 + n) for n in range(500))
        statement = stage_statement(oban)
        sql = str(statement.compile(oban.engine.sync_engine, compile_kwargs={"literal_binds": True}))
        async with oban.engine.connect() as connection:
            # The planner would scan a table this small.
            await connection.execute(text("SET enable_seqscan = off"))
            plan = " ".join(str(row) for row in await connection.exec_driver_sql("EXPLAIN " + sql))
    assert "oban_jobs_staging_index" in plan, plan
    postgresql_factory.drop(url)
