"""Sessions that find their engine by model, or by statement: jobs are locked and written where jobs are."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, event, select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from oban import Job, Oban, SyncOban, migration
from oban.errors import InvalidTarget
from oban.models import Base
from tests.support.databases import Factory
from tests.support.routers import ByFlush, ByModel, ByStatement, unused_engine
from tests.support.rows import delete_rows, insert_rows, lasting_url, read_rows, row
from tests.support.workers import Noop


class TenantJob(Job):
    """A subclass of the application, on the same table."""


def _routed(router: type[ByStatement]) -> Callable[[AsyncEngine], AsyncSession]:
    def make(engine: AsyncEngine) -> AsyncSession:
        own = type("Own", (router,), {"primary": engine.sync_engine})
        return AsyncSession(sync_session_class=own, expire_on_commit=False)

    return make


def _bound(*keys: Any, default: bool = False) -> Callable[[AsyncEngine], AsyncSession]:
    def make(engine: AsyncEngine) -> AsyncSession:
        bind = unused_engine() if default else None
        return AsyncSession(bind, binds=dict.fromkeys(keys, engine), expire_on_commit=False)

    return make


SESSIONS: dict[str, Callable[[AsyncEngine], AsyncSession]] = {
    "binds of the base class": _bound(Base),
    "binds of the class": _bound(Job),
    "binds of the table": _bound(Job.__table__),
    "binds of a subclass": _bound(TenantJob),
    "another default": _bound(Base, default=True),
    "by statement": _routed(ByStatement),
    "by flush": _routed(ByFlush),
    "by model": _routed(ByModel),
}


@pytest.fixture(scope="module", params=["sqlite", "asyncpg"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture
async def engine(oban: Oban, url: URL) -> AsyncIterator[AsyncEngine]:
    await delete_rows(oban.engine)
    made = create_async_engine(url)
    yield made
    await made.dispose()


@pytest.mark.parametrize("make", SESSIONS.values(), ids=SESSIONS)
async def test_every_call_uses_the_one_connection_that_jobs_are_written_on(
    oban: Oban, engine: AsyncEngine, make: Callable[[AsyncEngine], AsyncSession]
) -> None:
    ids = await insert_rows(oban.engine, *(row("retryable") for _ in range(5)))
    begun: list[Any] = []
    event.listen(engine.sync_engine, "begin", begun.append)
    async with make(engine) as session:
        job = await oban.enqueue(Noop.new(), session=session)
        await oban.enqueue_many([Noop.new(), Noop.new()], session=session)
        assert await oban.get_job(job.id, session=session) is job
        assert await oban.retry_job(ids[0], session=session)
        assert await oban.cancel_many_jobs(select(Job).where(Job.id == ids[1]), session=session) == 1
        assert await oban.delete_job(ids[2], session=session)
        await oban.update_job(ids[3], lambda job: {"priority": job.priority + 1}, session=session)
        await oban.pause_queue("media", session=session)
        assert len(await oban.list_jobs(session=session)) == 7
        assert len(begun) == 1
        await session.rollback()
        assert len(await read_rows(oban.engine)) == 5
        # The statements of the application go where they went before.
        assert "get_bind" not in vars(session.sync_session)
        job = await oban.enqueue(Noop.new(), session=session)
        await session.commit()
    assert len(await read_rows(oban.engine)) == 6


async def test_an_async_scoped_session_with_binds_works(oban: Oban, engine: AsyncEngine) -> None:
    sessions = async_scoped_session(
        async_sessionmaker(binds={Base: engine}, expire_on_commit=False), lambda: None
    )
    job = await oban.enqueue(Noop.new(), session=sessions)
    await sessions.commit()
    assert list(await read_rows(oban.engine)) == [job.id]
    await sessions.remove()


async def test_a_session_without_an_engine_for_jobs_is_refused(oban: Oban) -> None:
    async with AsyncSession() as session:
        with pytest.raises(InvalidTarget, match=r"no engine for jobs: .* binds=\{Job: engine\}"):
            await oban.enqueue(Noop.new(), session=session)


async def test_a_session_that_writes_jobs_to_another_kind_of_database_is_refused(
    oban: Oban, engine: AsyncEngine
) -> None:
    other = create_async_engine(
        "postgresql+asyncpg://nowhere" if "sqlite" in engine.url.drivername else "sqlite+aiosqlite://"
    )
    async with AsyncSession(engine, binds={Job: other}) as session:
        with pytest.raises(InvalidTarget, match="the session is not on"):
            await oban.enqueue(Noop.new(), session=session)


@pytest.mark.parametrize("driver", ["psycopg2", "pysqlite"])
def test_a_scoped_session_with_a_router_works(
    driver: str, asyncpg_factory: Factory, sqlite_factory: Factory
) -> None:
    factory = sqlite_factory if driver == "pysqlite" else asyncpg_factory
    url = factory.create()
    engine = create_engine(url.set(drivername=f"{url.get_backend_name()}+{driver}"))
    own = type("Own", (ByStatement,), {"primary": engine})
    oban = SyncOban(engine)
    sessions: list[Any] = [scoped_session(sessionmaker(class_=own)), own(), Session(binds={Base: engine})]
    for session in sessions:
        job = oban.enqueue(Noop.new(), session=session)
        assert oban.cancel_job(job, session=session)
        assert [found.id for found in oban.list_jobs(session=session)] == [job.id]
        session.rollback()
        session.close()
        assert oban.list_jobs() == []
    engine.dispose()
    factory.drop(url)


async def test_the_schema_of_jobs_is_looked_up_on_their_own_engine(asyncpg_factory: Factory) -> None:
    url = asyncpg_factory.create()
    migration.upgrade(url, prefix="private")
    engine = create_async_engine(url)
    private = engine.execution_options(schema_translate_map={None: "private"})
    oban = Oban(engine, name="private", prefix="private")
    async with AsyncSession(engine, binds={Base: private}, expire_on_commit=False) as session:
        session.add(Noop.new())
        await oban.enqueue(Noop.new(), session=session)
        await session.commit()
    assert len(await oban.list_jobs()) == 2
    async with AsyncSession(private, binds={Base: engine}) as session:
        session.add(Noop.new())
        with pytest.raises(InvalidTarget, match="not in 'private'"):
            await oban.enqueue(Noop.new(), session=session)
    await engine.dispose()
    asyncpg_factory.drop(url)
