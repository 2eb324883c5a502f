"""Edge cases of sessions and filters: times set late, odd ids, large integers, printing, other loops."""

import asyncio
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, insert, literal, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, Oban, Worker, filters
from oban.errors import WrongLoop
from tests.support.options import BRIEF
from tests.support.rows import TABLE
from tests.support.waiting import eventually

LATER = datetime(2077, 1, 1, tzinfo=UTC)


class Noop(Worker):
    async def process(self, job: Job) -> None:
        return None


async def test_a_time_that_is_set_after_creation_counts_in_bulk(oban: Oban) -> None:
    job = Noop.new()
    job.scheduled_at = LATER
    async with AsyncSession(oban.engine) as session:
        await session.run_sync(lambda sync: sync.bulk_save_objects([job]))
        await session.commit()
    assert [str(found.state) for found in await oban.list_jobs()] == ["scheduled"]


async def test_a_job_with_a_time_from_an_sql_expression_is_left_to_the_stager(oban: Oban) -> None:
    worker = literal(Noop.worker_name)
    async with AsyncSession(oban.engine) as session:
        await session.execute(insert(Job).values(worker="w", scheduled_at=func.coalesce(None, TABLE_TIME)))
        await session.execute(
            insert(TABLE).from_select(["worker", "scheduled_at"], select(worker, TABLE_TIME))
        )
        await session.execute(insert(TABLE).from_select(["worker"], select(worker)))
        await session.commit()
    states = [str(found.state) for found in await oban.list_jobs()]
    assert states == ["scheduled", "scheduled", "available"]


TABLE_TIME = literal(LATER, TABLE.c.scheduled_at.type)


@pytest.mark.parametrize("id_", [-(2**80), -1, 0, 2**63, 2**80])
async def test_an_id_that_no_job_has_returns_none(oban: Oban, id_: int) -> None:
    assert await oban.get_job(id_) is None


async def test_as_integer_is_none_for_19_digits_on_every_database(oban: Oban) -> None:
    numbers = [10**18 - 1, -(10**18) + 1, 10**18, -(10**18), 2**63 - 1, 7]
    await oban.enqueue_many(Noop.new({"n": number}) for number in numbers)
    async with AsyncSession(oban.engine) as session:
        found = (await session.scalars(select(filters.args("n").as_integer()).order_by(Job.id))).all()
    assert list(found) == [10**18 - 1, -(10**18) + 1, None, None, None, 7]


def test_a_statement_with_filters_can_be_printed() -> None:
    printed = str(select(Job).where(filters.args("a") == 1, filters.tags("x")))
    assert "oban_jobs" in printed


async def test_a_node_refuses_calls_from_another_loop_and_continues(oban: Oban) -> None:
    class Misuses(Worker, max_attempts=1):
        def process(self, job: Job) -> None:
            asyncio.run(node.get_job(job.id))

    async with Oban(oban.engine, name="node", queues={"default": 2}, **BRIEF) as node:
        job = await oban.enqueue(Misuses.new())
        await eventually(lambda: _state(oban, job.id, "discarded"))
        failed = await oban.get_job(job.id)
        assert failed is not None
        assert WrongLoop.__name__ in failed.errors[0]["error"]
        after = await oban.enqueue(Noop.new())
        await eventually(lambda: _state(oban, after.id, "completed"))


async def test_the_session_of_a_job_begins_no_transaction_after_the_job(oban: Oban) -> None:
    kept: list[AsyncSession] = []

    class Keeps(Worker):
        async def process(self, job: Job, session: AsyncSession) -> None:
            kept.append(session)

    async with Oban(oban.engine, name="node", queues={"default": 2}, **BRIEF):
        job = await oban.enqueue(Keeps.new())
        await eventually(lambda: _state(oban, job.id, "completed"))
        await eventually(lambda: not kept[0].sync_session.autobegin)
        with pytest.raises(InvalidRequestError, match="Autobegin is disabled"):
            await kept[0].execute(select(Job.id))


async def _state(oban: Oban, id_: int, state: str) -> bool:
    job = await oban.get_job(id_)
    return job is not None and job.state == state
