"""`list_jobs` reads page by page, and `iterate_jobs` any number of jobs in constant memory."""

from collections.abc import AsyncIterator
from typing import Any
from weakref import WeakSet

import pytest
from sqlalchemy import URL, event, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine

from oban import Job, Oban, Worker
from oban.errors import ConfigError, InvalidTarget, NotEnqueued
from tests.support.statements import recorded

COUNT = 23
BATCH = 5


class Export(Worker):
    """Its jobs do not run."""

    async def process(self, job: Job) -> None: ...


@pytest.fixture
async def ids(oban: Oban) -> list[int]:
    """The ids of jobs whose priorities are in another order."""
    jobs = await oban.enqueue_many(Export.new({"n": n}, priority=n * 3 % 10) for n in range(COUNT))
    return [job.id for job in jobs]


@pytest.fixture(params=["own transactions", "AsyncSession", "AsyncConnection"])
async def caller(
    oban: Oban, ids: list[int], request: pytest.FixtureRequest
) -> AsyncIterator[AsyncSession | AsyncConnection | None]:
    if request.param == "own transactions":
        yield None
    elif request.param == "AsyncSession":
        async with AsyncSession(oban.engine) as session:
            yield session
    else:
        async with oban.engine.connect() as connection:
            yield connection


@pytest.mark.parametrize("by_instance", [True, False], ids=["job", "id"])
async def test_jobs_are_listed_page_by_page(oban: Oban, ids: list[int], by_instance: bool) -> None:
    pages = []
    after: Any = None
    while page := await oban.list_jobs(select(Job).where(Job.id != ids[3]), limit=10, after=after):
        pages.append([job.id for job in page])
        after = page[-1] if by_instance else page[-1].id
    expected = [id_ for id_ in ids if id_ != ids[3]]
    assert pages == [expected[:10], expected[10:20], expected[20:]]
    assert [job.id for job in await oban.list_jobs(limit=2)] == ids[:2]
    assert [job.id for job in await oban.list_jobs(after=ids[-2])] == ids[-1:]
    assert [job.id for job in await oban.list_jobs(after=-1, limit=2**40)] == ids
    assert await oban.list_jobs(after=2**70) == []


async def test_a_limit_keeps_the_order_of_the_statement(oban: Oban, ids: list[int]) -> None:
    latest = select(Job).order_by(Job.id.desc())
    assert [job.id for job in await oban.list_jobs(latest, limit=3)] == ids[:-4:-1]
    assert [job.id for job in await oban.list_jobs(select(Job).order_by(Job.id), limit=3)] == ids[:3]
    assert [job.id for job in await oban.list_jobs(select(Job).offset(3).order_by(Job.id), limit=3)] == ids[
        3:6
    ]


async def test_statements_that_have_no_pages_are_refused(oban: Oban, ids: list[int]) -> None:
    for statement in (select(Job).order_by(Job.priority), select(Job).order_by(Job.id.desc())):
        with pytest.raises(InvalidTarget, match=r"has another one: leave out order_by\(\)"):
            await oban.list_jobs(statement, after=ids[0])
        with pytest.raises(InvalidTarget, match=r"has another one: leave out order_by\(\)"):
            oban.iterate_jobs(statement)
    for statement in (select(Job).limit(3), select(Job).offset(3), select(Job).fetch(3)):
        with pytest.raises(InvalidTarget, match="cannot be read in pages"):
            await oban.list_jobs(statement, after=ids[0])
        with pytest.raises(InvalidTarget, match="cannot be read in pages"):
            oban.iterate_jobs(statement)
    for statement in (select(Job).limit(3), select(Job).fetch(3)):
        with pytest.raises(InvalidTarget, match="has a LIMIT of its own"):
            await oban.list_jobs(statement, limit=2)
    wrong: Any = select(Job.id)
    with pytest.raises(InvalidTarget, match="of Job and nothing else"):
        oban.iterate_jobs(wrong)
    with pytest.raises(NotEnqueued):
        await oban.list_jobs(after=Export.new())
    for size in (0, -1, True, "5", 1.5):
        with pytest.raises(ConfigError, match="limit must be a positive number of jobs"):
            await oban.list_jobs(limit=size)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="batch must be a positive number of jobs"):
            oban.iterate_jobs(batch=size)  # type: ignore[arg-type]


async def test_no_more_than_one_batch_is_alive_at_once(
    oban: Oban, ids: list[int], caller: AsyncSession | AsyncConnection | None
) -> None:
    loaded: WeakSet[Job] = WeakSet()
    found, most = [], 0

    def load(job: Job, _: object) -> None:
        loaded.add(job)

    event.listen(Job, "load", load)
    try:
        async for job in oban.iterate_jobs(session=caller, batch=BATCH):
            found.append(job.id)
            most = max(most, len(loaded))
    finally:
        event.remove(Job, "load", load)
    assert found == ids
    # This test still has the last job of the batch before.
    assert BATCH <= most <= BATCH + 1


async def test_jobs_of_the_callers_transaction_are_found(
    oban: Oban, ids: list[int], caller: AsyncSession | AsyncConnection | None
) -> None:
    await oban.delete_job(ids[0], caller)
    new = Export.new()
    await oban.enqueue(new, caller)
    jobs = [job async for job in oban.iterate_jobs(session=caller, batch=BATCH)]
    assert [job.id for job in jobs] == [*ids[1:], new.id]
    if isinstance(caller, AsyncSession):
        assert all(job in caller for job in jobs)
    if caller is not None:
        await caller.rollback()
        assert [job.id async for job in oban.iterate_jobs(session=caller)] == ids


async def test_no_connection_is_in_use_while_the_body_runs_or_after_a_break(url: URL, ids: list[int]) -> None:
    engine = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=10)
    oban = Oban(engine)
    seen = []
    async for job in oban.iterate_jobs(select(Job).where(Job.worker == Export.worker_name), batch=BATCH):
        assert await oban.delete_job(job)
        seen.append(job.id)
        if len(seen) == BATCH + 2:
            break
    assert seen == ids[: BATCH + 2]
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert [each.id for each in await oban.list_jobs()] == ids[BATCH + 2 :]
    await engine.dispose()


async def test_yield_per_is_the_size_of_a_batch(oban: Oban, ids: list[int]) -> None:
    statement = select(Job).where(Job.id > ids[2]).execution_options(yield_per=7)
    async with AsyncSession(oban.engine) as session:
        for caller in (None, session):
            assert sorted(job.id for job in await oban.list_jobs(statement, caller)) == ids[3:]
    with recorded(oban.engine) as sent:
        assert [job.id async for job in oban.iterate_jobs(statement)] == ids[3:]
    # The last one finds that there are no more.
    assert len([sql for sql in sent if "FROM oban_jobs" in sql]) == 4
    with recorded(oban.engine) as sent:
        assert [job.id async for job in oban.iterate_jobs(statement, batch=100)] == ids[3:]
    assert len([sql for sql in sent if "FROM oban_jobs" in sql]) == 2
