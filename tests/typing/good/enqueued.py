"""The filters of helpers for tests are typed, and so is whether a helper is awaited."""

from datetime import UTC, datetime, timedelta
from typing import assert_type

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban, SyncOban, Worker, job, worker
from oban.testing import all_enqueued, assert_enqueued, drain_queue, refute_enqueued, reset_oban


class Mail(Worker):
    async def process(self, job: Job) -> None:
        return None


@worker
class Plain:
    def process(self, job: Job) -> None:
        return None


@job
def send(to: str) -> None:
    return None


async def with_asyncio(oban: Oban, session: AsyncSession, connection: AsyncConnection) -> None:
    assert_type(await all_enqueued(), list[Job])
    assert_type(
        await all_enqueued(oban=oban, worker=Mail, state=["available", JobState.EXECUTING]), list[Job]
    )
    assert_type(await assert_enqueued(worker=send, args={"to": "a"}, tags=["a"], timeout=5), Job)
    assert_type(await drain_queue("a", session=session), dict[str, int])
    assert_type(await drain_queue("a", "Other"), dict[str, int])
    assert_type(await assert_enqueued(session=session, worker=[Mail, "b", Plain], queue=("a", "b")), Job)
    await refute_enqueued(oban="Other", session=connection)
    await refute_enqueued(scheduled_in=timedelta(hours=1), timeout=timedelta(seconds=1), meta={})
    await assert_enqueued(scheduled_at=(datetime.now(UTC), 10), attempted_at=None, priority=1, attempt=0)
    await reset_oban()
    await reset_oban(oban, session)


def without(oban: SyncOban, session: Session) -> None:
    assert_type(all_enqueued(oban=oban, session=session, tags="a"), list[Job])
    assert_type(assert_enqueued(oban=oban, timeout=0.5), Job)
    assert_type(drain_queue("a", session=session), dict[str, int])
    assert_type(drain_queue("a", SyncOban("sqlite://")), dict[str, int])
    assert_type(assert_enqueued(session=session, scheduled_in=(5, timedelta(seconds=1))), Job)
    refute_enqueued(oban=oban, state="completed")
    refute_enqueued(oban="Other", session=session)
    reset_oban(oban)
    reset_oban(session=session)
