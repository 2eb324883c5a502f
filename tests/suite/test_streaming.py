"""`enqueue_stream` inserts any number of jobs, and holds one batch of them in memory."""

from collections.abc import AsyncIterator, Iterator
from typing import Any
from weakref import WeakSet

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, Oban, Worker
from oban.errors import ConfigError, InvalidTarget
from oban.repository import insert
from tests.support.statements import recorded

BATCH = 10


class Import(Worker):
    """Its jobs do not run."""

    async def process(self, job: Job) -> None: ...


class Source:
    """Makes jobs, and records the largest number that was alive at once."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.most = 0

    def __iter__(self) -> Iterator[Job]:
        alive: WeakSet[Job] = WeakSet()
        for number in range(self.count):
            alive.add(job := Import.new({"n": number}))
            self.most = max(self.most, len(alive))
            yield job
            del job


async def slowly(jobs: Any) -> AsyncIterator[Job]:
    for job in jobs:
        yield job
        del job


async def stored(oban: Oban) -> list[int]:
    return [job.args["n"] for job in await oban.list_jobs()]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["iterable", "async iterable"])
@pytest.mark.parametrize("lent", [False, True], ids=["own transactions", "session"])
async def test_no_more_than_one_batch_is_alive_at_once(oban: Oban, asynchronous: bool, lent: bool) -> None:
    source = Source(3 * BATCH + 5)
    jobs = slowly(source) if asynchronous else source
    async with AsyncSession(oban.engine) as session:
        assert await oban.enqueue_stream(jobs, batch=BATCH, session=session if lent else None) == source.count
        await session.commit()
    assert await stored(oban) == [*range(source.count)]
    # The generator still refers to the last job of a batch.
    assert source.most <= BATCH + 1


async def test_each_batch_is_stored_before_the_next_one_is_created(oban: Oban) -> None:
    with recorded(oban.engine) as seen:
        made: list[int] = []

        def jobs() -> Iterator[Job]:
            for number in range(2 * BATCH):
                made.append(len(seen))
                yield Import.new({"n": number})
            raise LookupError

        with pytest.raises(LookupError):
            await oban.enqueue_stream(jobs(), batch=BATCH)
    assert [made.count(0), made.count(1)] == [BATCH, BATCH]
    assert len(seen) == 2
    assert await stored(oban) == [*range(2 * BATCH)]


async def test_in_a_session_all_batches_are_stored_or_none(oban: Oban) -> None:
    async with AsyncSession(oban.engine) as session:
        assert await oban.enqueue_stream(Source(3 * BATCH), batch=BATCH, session=session) == 3 * BATCH
        await session.rollback()
    assert await stored(oban) == []


async def test_jobs_that_are_already_in_the_session_are_inserted_once(oban: Oban) -> None:
    jobs = [*Source(3)]
    async with AsyncSession(oban.engine) as session:
        session.add(jobs[1])
        assert await oban.enqueue_stream(jobs, session=session) == 3
        await session.commit()
    assert sorted(await stored(oban)) == [0, 1, 2]


async def test_no_job_of_a_faulty_batch_is_stored(oban: Oban) -> None:
    jobs: list[Any] = [*Source(BATCH + 3), "no job"]
    with pytest.raises(InvalidTarget, match="a Job is needed, not str"):
        await oban.enqueue_stream(jobs, batch=BATCH)
    assert await stored(oban) == [*range(BATCH)]
    with pytest.raises(InvalidTarget, match="was enqueued before"):
        await oban.enqueue_stream(jobs[BATCH - 1 : BATCH])


async def test_an_empty_stream_inserts_nothing(oban: Oban) -> None:
    with recorded(oban.engine) as seen:
        assert await oban.enqueue_stream([]) == 0
        assert await oban.enqueue_stream(slowly([])) == 0
    assert seen == []


@pytest.mark.parametrize("batch", [0, -1, 1.5, True, None])
async def test_a_batch_is_a_positive_number(oban: Oban, batch: Any) -> None:
    with pytest.raises(ConfigError, match="batch must be a positive number"):
        await oban.enqueue_stream([], batch=batch)


@pytest.mark.parametrize("jobs", [None, 5, Job(worker="a")], ids=repr)
async def test_a_value_that_is_not_an_iterable_of_jobs_is_refused(oban: Oban, jobs: Any) -> None:
    with pytest.raises(InvalidTarget, match="an iterable of jobs is needed"):
        await oban.enqueue_stream(jobs)


async def test_a_batch_commits_itself(oban: Oban) -> None:
    """A batch is one message instead of three, except with several statements or a caller's session."""
    levels: list[Any] = []

    def note(connection: Connection, *_: Any) -> None:
        levels.append(connection.get_execution_options().get("isolation_level"))

    # The usual isolation level is unknown before the first connection.
    await stored(oban)
    event.listen(oban.engine.sync_engine, "before_cursor_execute", note)
    await oban.enqueue(Import.new())
    await oban.enqueue_many(Source(insert.BATCH + 1))
    async with AsyncSession(oban.engine) as session:
        await oban.enqueue_stream(Source(2), batch=1, session=session)
        await session.commit()
    assert levels == ["AUTOCOMMIT", None, None, None, None]
