"""`all_enqueued`, `assert_enqueued` and `refute_enqueued` with each kind of client, on each database."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL, create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Job, Oban, SyncOban, clock
from oban.testing import all_enqueued, assert_enqueued, refute_enqueued
from tests.support.waiting import within


class Helpers:
    """A client that works in a transaction, and the helpers with it, all of them awaited."""

    def __init__(self, oban: Oban | SyncOban) -> None:
        self.oban: Any = oban

    async def enqueue(self, worker: str, **options: Any) -> Job:
        job: Job = await awaited(self.oban.enqueue(Job(worker=worker, **options)))
        return job

    async def all(self, **filters: Any) -> list[Job]:
        found: list[Job] = await awaited(all_enqueued(oban=self.oban, **filters))
        return found

    async def check(self, **filters: Any) -> Job:
        job: Job = await awaited(assert_enqueued(oban=self.oban, **filters))
        return job

    async def refute(self, **filters: Any) -> None:
        assert await awaited(refute_enqueued(oban=self.oban, **filters)) is None


async def awaited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def sync_url(url: URL) -> URL:
    driver = "pysqlite" if url.get_backend_name() == "sqlite" else "psycopg"
    return url.set(drivername=f"{url.get_backend_name()}+{driver}")


@pytest.fixture(params=["async", "sync"])
async def helpers(request: pytest.FixtureRequest, url: URL) -> AsyncIterator[Helpers]:
    if request.param == "sync":
        engine = create_engine(sync_url(url))
        with engine.connect() as connection:
            yield Helpers(SyncOban(connection))
        engine.dispose()
    else:
        async_engine = create_async_engine(url)
        async with async_engine.connect() as connection:
            yield Helpers(Oban(connection))
        await async_engine.dispose()


async def test_a_delay_is_counted_from_the_moved_clock(helpers: Helpers) -> None:
    with clock.use(clock.MovableClock()) as moving:
        await helpers.enqueue("a", schedule_in=timedelta(days=1))
        await helpers.check(scheduled_in=timedelta(days=1))
        moving.advance(hours=23)
        await helpers.check(scheduled_in=3600)
        await helpers.refute(scheduled_in=timedelta(days=1))


async def test_a_job_that_is_there_is_not_waited_for(helpers: Helpers) -> None:
    await helpers.enqueue("a")
    await within(helpers.check(timeout=3600), 30)
    with pytest.raises(AssertionError):
        await within(helpers.refute(timeout=3600), 30)


async def test_an_async_assertion_waits_for_a_job(url: URL) -> None:
    async with Oban(url, name="waiting") as oban:
        waiting = asyncio.ensure_future(assert_enqueued(oban="waiting", worker="a", timeout=3600))
        refuting = asyncio.ensure_future(refute_enqueued(oban=oban, worker="a", timeout=3600))
        await asyncio.sleep(0.03)
        assert not waiting.done()
        await oban.enqueue(Job(worker="b"))
        job = await oban.enqueue(Job(worker="a"))
        assert (await within(waiting)).id == job.id
        with pytest.raises(AssertionError, match="no enqueued job should match"):
            await within(refuting)


async def test_an_assertion_waits_for_another_task_in_the_same_transaction(url: URL) -> None:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        oban = Oban(connection)
        waiting = asyncio.ensure_future(assert_enqueued(oban=oban, args={"n": 19}, timeout=3600))
        for number in range(20):
            await oban.enqueue(Job(worker="a", args={"n": number}))
            # Gives the other task a turn, also between the statements of an enqueue.
            await asyncio.sleep(0.002)
        assert (await within(waiting)).args == {"n": 19}
    await engine.dispose()


def test_a_sync_assertion_waits_for_a_job(url: URL) -> None:
    oban = SyncOban(sync_url(url), name="waiting")
    found: list[Job] = []

    def wait() -> None:
        # With a name, the type depends on where the call is.
        result: Any = assert_enqueued(oban="waiting", worker="a", timeout=60)
        found.append(result)

    thread = threading.Thread(target=wait)
    thread.start()
    job = oban.enqueue(Job(worker="a"))
    thread.join(60)
    assert [each.id for each in found] == [job.id]
    with pytest.raises(AssertionError, match="should match"):
        refute_enqueued(oban=oban, timeout=60)
    oban.stop()


async def test_with_a_session_its_transaction_is_looked_at(url: URL) -> None:
    async with Oban(url, name="other") as oban, AsyncSession(oban.engine) as session:
        job = Job(worker="a", args={"n": 1})
        # The session has not flushed it yet.
        session.add(job)
        found = await assert_enqueued(oban="other", session=session, worker="a")
        assert (found.id, found is job) == (job.id, False)
        job.args = {"n": 2}
        assert [each.args for each in await all_enqueued(oban=oban, session=session)] == [{"n": 2}]
        await refute_enqueued(oban=oban)
        with pytest.raises(AssertionError, match="pass its session"):
            await assert_enqueued(oban=oban)
        with pytest.raises(AssertionError, match="in the transaction of session="):
            await assert_enqueued(oban=oban, session=session, worker="b")
        await session.rollback()
        await refute_enqueued(oban=oban, session=session)


async def test_a_sync_session_chooses_the_sync_client(url: URL) -> None:
    engine = create_engine(sync_url(url))
    oban = SyncOban(engine, name="both")
    async with Oban(url, name="both"):
        with Session(engine) as session:
            oban.enqueue(Job(worker="a"), session=session)
            assert [job.worker for job in all_enqueued(oban="both", session=session)] == ["a"]
            assert assert_enqueued(oban="both", session=session).worker == "a"
            refute_enqueued(oban="both", session=session, worker="b")
        assert await all_enqueued(oban="both") == []
    engine.dispose()


async def test_a_job_that_a_session_has_loaded_before_is_read_again(url: URL) -> None:
    async with Oban(url) as oban, AsyncSession(oban.engine, expire_on_commit=False) as session:
        job = await oban.enqueue(Job(worker="a"), session=session)
        await session.commit()
        await oban.cancel_job(job.id)
        await refute_enqueued(oban=oban, session=session)
        assert (await assert_enqueued(oban=oban, session=session, state="cancelled")).id == job.id


async def test_tables_in_a_schema_are_looked_at(server_of_prefix: Oban) -> None:
    oban = server_of_prefix
    await oban.enqueue(Job(worker="a", args={"n": 1}, tags=["x"]))
    assert len(await all_enqueued(oban=oban, args={"n": 1}, tags="x", worker="a")) == 1
    with pytest.raises(AssertionError, match="args"):
        await assert_enqueued(oban=oban, args={"n": 2})
    async with AsyncSession(oban.engine) as session:
        await assert_enqueued(oban=oban, session=session)
    async with oban.engine.connect() as connection:
        await assert_enqueued(oban=Oban(connection, prefix="jobs"), args={"n": 1})


async def test_a_coroutine_that_is_cancelled_stops_waiting(url: URL) -> None:
    async with Oban(url) as oban:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.03):
                await refute_enqueued(oban=oban, timeout=3600)
        assert await all_enqueued(oban=oban) == []
