import pytest
from shop import Order, remind
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Oban, testing

pytestmark = pytest.mark.asyncio


async def test_the_client_works_in_the_session(
    oban: Oban, session: AsyncSession, oban_options: dict[str, str]
) -> None:
    session.add(Order(item="lamp"))
    await oban.enqueue(remind.new(1))
    # The call has flushed the session.
    assert not session.new
    assert (await testing.drain_queue("mailers", oban=oban_options["name"]))["completed"] == 1
    await session.rollback()
    assert await oban.list_jobs() == []
