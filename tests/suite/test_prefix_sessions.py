"""With a prefix, a session of the application does not confuse the tables of two schemas."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import URL, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, Oban, Periodic, Worker, migration
from oban.errors import InvalidTarget
from tests.support.options import BRIEF
from tests.support.waiting import eventually


class Second(Worker):
    async def process(self, job: Job) -> None:
        return None


class First(Worker):
    async def process(self, job: Job, session: AsyncSession) -> None:
        await Oban.get_instance("private").enqueue(Second.new(), session=session)


@pytest.fixture
def factory(request: pytest.FixtureRequest) -> object:
    """PostgreSQL only, as SQLite has no schemas."""
    return request.getfixturevalue("asyncpg_factory")


@pytest.fixture
async def private(url: URL) -> AsyncIterator[Oban]:
    """A client whose tables are in a schema of a database that has the same tables in `public`."""
    migration.upgrade(url, prefix="private")
    async with Oban(url, name="private", prefix="private") as client:
        yield client


async def counts(oban: Oban) -> tuple[int, int]:
    async with oban.engine.connect() as connection:
        found = await connection.execute(
            text("SELECT (SELECT count(*) FROM public.oban_jobs), (SELECT count(*) FROM private.oban_jobs)")
        )
        return tuple(found.one())


async def test_jobs_that_the_session_would_insert_into_another_schema_are_refused(private: Oban) -> None:
    async with AsyncSession(private.engine) as session:
        job = Second.new()
        session.add(job)
        with pytest.raises(InvalidTarget, match="not in 'private'"):
            await private.enqueue(job, session=session)
        await session.rollback()
    assert await counts(private) == (0, 0)


async def test_a_returned_job_is_never_loaded_from_or_written_to_the_other_schema(private: Oban) -> None:
    async with Oban(private.engine, name="public") as public:
        await public.enqueue(Second.new(queue="public"))
    async with AsyncSession(private.engine) as session:
        job = await private.enqueue(Second.new(queue="private"), session=session)
        (listed,) = await private.list_jobs(session=session)
        listed.priority = 7
        await session.commit()
        assert (job.id, job.queue) == (1, "private")
        assert (await private.update_job(job, {"priority": 5}, session=session)).priority == 5
        await session.commit()
    async with AsyncSession(private.engine) as session:
        found = await session.execute(text("SELECT queue, priority FROM public.oban_jobs"))
        assert list(map(tuple, found)) == [("public", 0)]
    assert [job.priority for job in await private.list_jobs()] == [5]


async def test_a_session_with_the_schema_adds_jobs_there(private: Oban) -> None:
    engine = private.engine.execution_options(schema_translate_map={None: "private"})
    async with AsyncSession(engine) as session:
        session.add(Second.new())
        await private.enqueue(Second.new(), session=session)
        await session.commit()
    assert await counts(private) == (0, 2)


async def test_a_job_with_a_session_enqueues_within_the_schema(url: URL, private: Oban) -> None:
    async with Oban(url, name="private", prefix="private", queues={"default": 2}, **BRIEF) as oban:
        await oban.enqueue(First.new())
        await eventually(lambda: _completed(oban))
    assert await counts(private) == (0, 2)


async def _completed(oban: Oban) -> bool:
    return [str(job.state) for job in await oban.list_jobs()] == ["completed"] * 2


async def test_the_jobs_of_the_schema_are_counted(private: Oban) -> None:
    await private.enqueue(Job(worker="x"))
    async with Oban(private.engine) as other:
        for statement in (None, select(Job), select(Job).where(Job.queue == "default")):
            assert (await private.count_jobs(statement))["default"]["available"] == 1
            assert await other.count_jobs(statement) == {}


async def test_periodic_entries_are_in_the_schema_of_the_client(private: Oban) -> None:
    entry = Periodic("nightly", "0 3 * * *", Second.new())
    async with AsyncSession(private.engine) as session:
        await private.add_periodic(entry, session=session)
        await private.update_periodic("nightly", session=session, queue="slow")
        await private.pause_periodic("nightly", session=session)
        await private.run_periodic("nightly", session=session)
        await session.commit()
    assert [(info.queue, info.paused) for info in await private.list_periodic()] == [("slow", True)]
    assert await counts(private) == (0, 1)
    assert await Oban(private.engine, name="private").list_periodic() == []
    await private.delete_periodic("nightly")
    assert await private.list_periodic() == []
