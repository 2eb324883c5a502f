import asyncio
from datetime import timedelta

import pytest
from shop import Confirm, CountOrders, Order, place, remind
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Oban, testing
from oban.clock import MovableClock

pytestmark = pytest.mark.asyncio


async def test_an_order_is_confirmed_by_a_job(oban: Oban, oban_session: AsyncSession) -> None:
    order = await place(oban_session, "lamp")
    assert (await testing.drain_queue("mailers"))["completed"] == 1
    await oban_session.refresh(order)
    assert order.confirmed


@pytest.mark.parametrize("run", [1, 2])
async def test_each_test_begins_with_nothing(oban: Oban, oban_session: AsyncSession, run: int) -> None:
    assert await oban.list_jobs() == []
    assert await oban_session.get(Order, 1) is None
    await place(oban_session, "lamp")
    assert len(await oban.list_jobs()) == 1


async def test_a_rollback_takes_the_job_with_it(oban: Oban, oban_session: AsyncSession) -> None:
    await Confirm.enqueue({"order": 1}, session=oban_session)
    await oban_session.rollback()
    assert await oban.list_jobs() == []


@pytest.mark.oban(mode="inline")
async def test_jobs_run_at_once(oban: Oban, oban_session: AsyncSession) -> None:
    order = await place(oban_session, "lamp")
    await oban_session.refresh(order)
    assert order.confirmed
    count = await CountOrders.enqueue({})
    assert (count.state, count.recorded) == ("completed", 1)
    assert (await remind.enqueue(-1)).state == "retryable"


@pytest.mark.oban("inline", with_safety=False)
async def test_errors_of_jobs_are_raised(oban: Oban) -> None:
    with pytest.raises(ValueError, match="there is no such order"):
        await remind.enqueue(-1)


async def test_jobs_are_not_run_without_the_marker(oban: Oban) -> None:
    assert (await remind.enqueue(1)).state == "available"


async def test_a_reminder_comes_tomorrow(oban: Oban, oban_clock: MovableClock) -> None:
    job = await remind.with_options(schedule_in=timedelta(days=1)).enqueue(7)
    now = oban_clock.now()
    assert (await testing.drain_queue("mailers", with_scheduled=now))["completed"] == 0
    now = oban_clock.advance(days=1)
    assert (await testing.drain_queue("mailers", with_scheduled=now))["completed"] == 1
    assert (await oban.get_job(job.id)).completed_at == oban_clock.now()


async def test_a_statement_that_fails_leaves_nothing_behind(oban: Oban, oban_session: AsyncSession) -> None:
    await place(oban_session, "lamp")
    with pytest.raises(Exception, match="nowhere"):
        await oban_session.execute(text("SELECT * FROM nowhere"))


class TestOneLoopForAllTests:
    pytestmark = pytest.mark.asyncio(loop_scope="session")
    loop: asyncio.AbstractEventLoop | None = None

    @pytest.mark.parametrize("run", [1, 2])
    async def test_the_client_works_on_it(self, oban: Oban, oban_session: AsyncSession, run: int) -> None:
        cls = type(self)
        assert cls.loop in (None, asyncio.get_running_loop())
        cls.loop = asyncio.get_running_loop()
        await place(oban_session, "lamp")
        assert (await testing.drain_queue("mailers"))["completed"] == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_one_loop_for_the_module(oban: Oban) -> None:
    await remind.enqueue(1)
    assert (await testing.drain_queue("mailers"))["completed"] == 1
