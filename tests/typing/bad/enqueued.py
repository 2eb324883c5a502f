"""Each line that is marked is an error for every checker, and no other line is."""

from sqlalchemy.orm import Session

from oban import Job, Oban, SyncOban
from oban.testing import all_enqueued, assert_enqueued, refute_enqueued, reset_oban


async def with_asyncio(oban: Oban, session: Session) -> None:
    await all_enqueued(wroker="a")  # error
    await all_enqueued(timeout=5)  # error
    await assert_enqueued("a")  # error
    await assert_enqueued(queue=5)  # error
    await assert_enqueued(scheduled_at=5)  # error
    await assert_enqueued(timeout="5")  # error
    await refute_enqueued(oban=oban, session=session)  # error
    await refute_enqueued(priority="high")  # error
    await reset_oban(oban, session)  # error


def without(oban: SyncOban) -> Job:
    reset_oban(5)  # error
    return all_enqueued(oban=oban)  # error
