"""With asyncpg, no statement needs a query about types, which takes about 30 ms on each new connection."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import URL, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import Cancel, Job, Oban, Snooze, Worker, filters
from tests.support.databases import PostgreSQLFactory
from tests.support.introspection import record_introspections
from tests.support.options import FAST_POLLING
from tests.support.waiting import eventually

TOMORROW = datetime.now(UTC) + timedelta(days=1)


class Ends(Worker):
    """Ends as its args say."""

    async def process(self, job: Job) -> object:
        match job.args.get("how"):
            case "fail":
                raise ValueError("as asked")
            case "cancel":
                return Cancel("as asked")
            case "snooze":
                return Snooze(3600)
        return None


class Reads(Worker):
    """Loads its own job in its session."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.get_one(Job, job.id)


class ReadsInThread(Worker):
    """Does so in a thread."""

    def process(self, job: Job, session: Session) -> None:
        session.get_one(Job, job.id)


@pytest.fixture
def url(asyncpg_factory: PostgreSQLFactory) -> Iterator[URL]:
    made = asyncpg_factory.create()
    yield made
    asyncpg_factory.drop(made)


@pytest.fixture
def introspections(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    return record_introspections(monkeypatch)


async def test_calls_that_enqueue_look_no_type_up(url: URL, introspections: list[list[int]]) -> None:
    async with Oban(url) as oban, AsyncSession(oban.engine) as session:
        await oban.enqueue(Ends.new({"n": 1}))
        await oban.enqueue(Ends.new({"n": 1}, scheduled_at=TOMORROW, tags=["a"], meta={"a": 1}))
        await oban.enqueue_many(Ends.new(schedule_in=3600 * n) for n in range(3))
        await oban.enqueue(Ends.new(), session=session)
        await oban.enqueue_many([Ends.new(), Ends.new()], session=session)
        session.add(Ends.new())
        await session.flush()
        session.add_all([Ends.new(), Ends.new(scheduled_at=TOMORROW)])
        await session.commit()
        counts = await oban.count_jobs()
    assert (counts["default"]["available"], counts["default"]["scheduled"]) == (7, 4)
    assert introspections == []


async def test_calls_that_manage_jobs_look_no_type_up(url: URL, introspections: list[list[int]]) -> None:
    async with Oban(url) as oban, AsyncSession(oban.engine) as session:
        jobs = await oban.enqueue_many(Ends.new({"n": n}) for n in range(6))
        one, *rest = jobs
        await oban.get_job(one.id)
        await oban.list_jobs(select(Job).where(filters.state("available", "retryable")), limit=2)
        assert len([job async for job in oban.iterate_jobs(batch=4)]) == len(jobs)
        await oban.count_jobs(queue="default")
        await oban.count_jobs(select(Job).where(Job.id > 1))
        await oban.update_job(one, {"priority": 1})
        await oban.update_many_jobs(rest, {"scheduled_at": TOMORROW})
        await oban.update_many_jobs(select(Job).where(Job.id == one.id), lambda job: {"tags": [job.queue]})
        assert await oban.cancel_job(one)
        assert await oban.cancel_many_jobs(select(Job).where(Job.state == "scheduled"), session=session)
        await session.commit()
        await oban.wait(one, timeout=30)
        assert await oban.retry_job(one)
        assert await oban.retry_many_jobs(rest[:2])
        assert await oban.delete_job(one)
        assert await oban.delete_many_jobs(select(Job).where(Job.state.in_(["cancelled", "available"])))
        await oban.wait_until_empty(timeout=30)
    assert introspections == []


async def test_a_node_looks_no_type_up(url: URL, introspections: list[list[int]]) -> None:
    options = {**FAST_POLLING, "heartbeat_interval": 0.1, "election_interval": 0.1, "rescue_interval": 0.1}
    async with Oban(url, queues={"default": 3}, **options) as oban:
        await oban.pause_queue("default")
        await oban.scale_queue("default", 4)
        await oban.resume_queue("default")
        await oban.list_queue_settings()
        await oban.check_cluster()
        for how in ("complete", "fail", "cancel", "snooze"):
            await oban.enqueue_many([Ends.new({"how": how}), Ends.new({"how": how}, schedule_in=0.1)])
        last = await oban.enqueue_many([Reads.new(), ReadsInThread.new()])
        for job in last:
            assert (await oban.wait(job, timeout=30)).state == "completed"
        await eventually(lambda: oban.is_leader)
    assert introspections == []
