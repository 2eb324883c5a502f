"""Helpers that move the clock and run jobs are typed, and so is whether they are awaited."""

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import Job, Oban, SyncOban
from oban.clock import MovableClock
from oban.testing import drain_queue, insert_periodic_jobs, mode, process_job, travel


def moves() -> None:
    with travel(to=datetime(2030, 1, 1, tzinfo=UTC)) as moving, travel(timedelta(days=1), ticking=True):
        assert_type(moving, MovableClock)
        moving.advance(hours=1)
    with travel(days=1, hours=-2), travel():
        return


@travel(days=1)
def decorated(name: str) -> int:
    return len(name)


@travel(days=1)
async def decorated_with_asyncio(name: str) -> int:
    return len(name)


async def with_asyncio(oban: Oban, session: AsyncSession, job: Job) -> None:
    assert_type(decorated("a"), int)
    assert_type(await decorated_with_asyncio("a"), int)
    assert_type(await insert_periodic_jobs(), list[Job])
    assert_type(await insert_periodic_jobs(oban=oban, session=session), list[Job])
    assert_type(await drain_queue("media", oban="Other", session=session), dict[str, int])
    assert_type(await drain_queue(with_scheduled=datetime.now(UTC), with_limit=1), dict[str, int])
    assert_type(await process_job(job), Any)
    with mode("inline", with_safety=False), mode("manual"):
        assert_type(await process_job(job, oban=oban), Any)


def without(oban: SyncOban, session: Session, job: Job) -> None:
    assert_type(insert_periodic_jobs(oban=oban), list[Job])
    assert_type(insert_periodic_jobs(session=session), list[Job])
    assert_type(drain_queue(oban=oban, session=session), dict[str, int])
    assert_type(drain_queue(session=session), dict[str, int])
    assert_type(process_job(job, oban=oban), Any)
