import pytest
from shop import Order, place, remind
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Oban, testing

pytestmark = pytest.mark.anyio


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


@pytest.mark.oban(mode="inline")
async def test_jobs_run_at_once(oban: Oban) -> None:
    assert (await remind.enqueue(1)).state == "completed"


async def test_jobs_are_not_run_without_the_marker(oban: Oban) -> None:
    assert (await remind.enqueue(1)).state == "available"
