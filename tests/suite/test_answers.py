"""`why`, `stats`, `health` and `list_attempts` answer in every kind of client, also inside a job."""

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import Health, Job, Oban, Record, SyncOban, Worker
from tests.support.databases import Factory
from tests.support.options import FAST_POLLING
from tests.support.schema import sync_engine


@pytest.fixture(params=["sqlite", "asyncpg"])
def factory(request: pytest.FixtureRequest) -> Factory:
    """Each database once."""
    made: Factory = request.getfixturevalue(f"{request.param}_factory")
    return made


def unserved(health: Health) -> list[str]:
    return [finding.code for finding in health.problems if finding.code == "unserved_queue"]


@pytest.mark.parametrize("kind", ["session", "connection"])
async def test_a_joined_client_sees_its_transaction(oban: Oban, kind: str) -> None:
    async with oban.engine.connect() as connection, AsyncSession(connection) as session:
        joined = Oban(session if kind == "session" else connection)
        job = await joined.enqueue(Job(worker="app.Mail", queue="mail"))
        assert [reason.code for reason in (await joined.why(job)).reasons] == ["no_node"]
        assert (await joined.stats()).counts["available"] == 1
        assert unserved(await joined.health()) == ["unserved_queue"]
        assert await joined.list_attempts(job) == []
        # The checks of `health` leave the transaction usable, and it is still not committed.
        assert await joined.get_job(job.id) is not None
        assert (await oban.why(job)).reasons[0].code == "missing"


def test_a_joined_sync_client_sees_its_transaction(url: URL) -> None:
    with Session(sync_engine(url)) as session:
        joined = SyncOban(session)
        job = joined.enqueue(Job(worker="app.Mail", queue="mail"))
        assert [reason.code for reason in joined.why(job).reasons] == ["no_node"]
        assert joined.stats().counts["available"] == 1
        assert unserved(joined.health()) == ["unserved_queue"]
        assert joined.list_attempts(job) == []
        job_id = job.id
        session.rollback()
        assert joined.why(job_id).reasons[0].code == "missing"


class Asking(Worker):
    async def process(self, job: Job, session: AsyncSession) -> Record:
        oban = Oban.get_instance()
        new = await oban.enqueue(Job(worker="app.Mail", queue="mail"), session=session)
        return Record(
            {
                "why": [(await oban.why(new, within)).reasons[0].code for within in (session, None)],
                "available": [(await oban.stats(within)).counts["available"] for within in (session, None)],
                "executing": (await oban.why(job)).runs,
                "health": (await oban.health()).severity != "unknown",
                "attempts": len(await oban.list_attempts(job, session)),
            }
        )


async def test_a_job_asks_in_its_session_and_beside_it(url: URL) -> None:
    async with Oban(url, queues={"default": 1}, **FAST_POLLING) as oban:
        job = await oban.enqueue(Asking.new())
        ended = await oban.wait(job, timeout=10)
        assert ended.recorded == {
            "why": ["no_node", "missing"],
            "available": [1, 0],
            "executing": True,
            "health": True,
            "attempts": 0,
        }
        (attempt,) = await oban.list_attempts(job)
        assert attempt.outcome == "completed"
