"""The sessions of jobs come from the application's own factory, and still commit with the outcome."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlmodel
import sqlmodel.ext.asyncio.session
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from oban import Job, JobState, Oban, SyncOban, Worker
from oban.errors import ConfigError
from tests.runner.effects import RUNNING, Base, Effect, effect, effects, nothing_leaked, worker
from tests.support.jobs import reaches
from tests.support.routers import ByStatement
from tests.support.waiting import eventually

pytestmark = pytest.mark.either_driver

SQLITE = "sqlite+aiosqlite://"


class OwnSession(AsyncSession):
    pass


class OwnSyncSession(Session):
    pass


def never_called() -> AsyncSession:
    raise RuntimeError("no tenant")


async def coroutine_function() -> AsyncSession:
    return AsyncSession()


shared = AsyncSession()


@pytest.mark.parametrize(
    ("session", "message"),
    [
        (5, "not an object of type int"),
        (shared, "not an object of type AsyncSession"),
        (sessionmaker(), "jobs in threads get its sync_session_class"),
        (scoped_session(sessionmaker()), "jobs in threads get its sync_session_class"),
        (Session, "jobs in threads get its sync_session_class"),
        (async_scoped_session(async_sessionmaker(), int), "pass the session_factory of the async_scoped_ses"),
        (coroutine_function, "coroutine_function is a coroutine function"),
        (lambda: 5, "<lambda> returned an object of type int"),
        (lambda: shared, "<lambda> returned the same session twice"),
        (lambda engine: AsyncSession(engine), "<lambda> raised TypeError: .* required positional argument"),
        (never_called, "never_called raised RuntimeError: no tenant"),
        (async_sessionmaker(expire="never"), "raised TypeError"),
    ],
)
def test_what_makes_no_new_session_is_refused(session: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"session must be an async_sessionmaker, .*{message}"):
        Oban(SQLITE, session=session)


def test_a_client_that_runs_no_jobs_takes_no_session() -> None:
    with pytest.raises(ConfigError, match="SyncOban runs no jobs: leave out session"):
        SyncOban("sqlite://", session=async_sessionmaker())


async def test_jobs_get_the_sessions_of_the_factory(table: URL, form: str) -> None:
    seen: list[Any] = []

    def body(job: Job, session: Session) -> None:
        effect(job, session)
        seen.append((type(session), session.info, session.expire_on_commit))
        if job.attempt == 1:
            session.flush()
            raise ValueError("rolled back")

    factory = async_sessionmaker(
        class_=OwnSession, sync_session_class=OwnSyncSession, info={"tenant": 7}, autobegin=False
    )
    async with Oban(table, session=factory, **RUNNING) as oban:
        job = await oban.enqueue(worker(form, body).new(max_attempts=2))
        await reaches(oban, job, JobState.RETRYABLE)
        assert await effects(oban) == []
        await oban.retry_job(job)
        await reaches(oban, job, JobState.COMPLETED)
        assert await effects(oban) == [f"{job.id}/2"]
        assert seen == [(OwnSyncSession, {"tenant": 7}, True)] * 2
        await eventually(lambda: nothing_leaked(oban))


async def test_jobs_on_the_loop_get_the_class_of_the_factory(one_table: URL) -> None:
    seen: list[Any] = []

    class OnLoop(Worker):
        async def process(self, job: Job, session: AsyncSession) -> None:
            seen.append(type(session))

    async with Oban(one_table, session=OwnSession, **RUNNING) as oban:
        await reaches(oban, await oban.enqueue(OnLoop.new()), JobState.COMPLETED)
        assert seen == [OwnSession]


async def test_the_sessions_of_sqlmodel_work(one_table: URL, form: str) -> None:
    found: list[Any] = []

    class OnLoop(Worker):
        async def process(self, job: Job, session: sqlmodel.ext.asyncio.session.AsyncSession) -> None:
            session.add(Effect(name="one"))
            found.append((await session.exec(sqlmodel.select(Effect.name))).all())

    class InThread(Worker):
        def process(self, job: Job, session: sqlmodel.Session) -> None:
            session.add(Effect(name="one"))
            found.append(session.exec(sqlmodel.select(Effect.name)).all())

    made = OnLoop if form == "async" else InThread
    factory = async_sessionmaker(class_=sqlmodel.ext.asyncio.session.AsyncSession)
    async with Oban(one_table, session=factory, **RUNNING) as oban:
        await reaches(oban, await oban.enqueue(made.new()), JobState.COMPLETED)
        assert found == [["one"]]
        assert await effects(oban) == ["one"]


#: Factories that are bound to an engine of another database.
ELSEWHERE: dict[str, Callable[[AsyncEngine], Any]] = {
    "async_sessionmaker": async_sessionmaker,
    # As one wrote before there was an async_sessionmaker.
    "sessionmaker": lambda engine: sessionmaker(engine, class_=AsyncSession),  # type: ignore[call-overload]
    "function": lambda engine: lambda: OwnSession(engine),
}


@pytest.mark.parametrize("make", ELSEWHERE.values(), ids=ELSEWHERE.keys())
async def test_sessions_connect_through_the_engine_of_the_instance(
    one_table: URL, form: str, make: Callable[[AsyncEngine], Any]
) -> None:
    elsewhere = create_async_engine(SQLITE)
    async with Oban(one_table, session=make(elsewhere), **RUNNING) as oban:
        job = await reaches(oban, await oban.enqueue(worker(form, effect).new()), JobState.COMPLETED)
        assert await effects(oban) == [f"{job.id}/1"]


async def test_classes_that_are_bound_to_the_engine_of_the_instance_are_part_of_the_transaction(
    one_table: URL, form: str
) -> None:
    def body(job: Job, session: Session) -> None:
        effect(job, session)
        session.flush()
        # On SQLite, two connections could not write at the same time.
        assert session.connection() is session.connection(bind_arguments={"mapper": Effect})
        if job.attempt == 1:
            raise ValueError("rolled back")

    engine = create_async_engine(one_table)
    async with Oban(engine, session=async_sessionmaker(binds={Base: engine}), **RUNNING) as oban:
        job = await oban.enqueue(worker(form, body).new(max_attempts=2))
        await reaches(oban, job, JobState.RETRYABLE)
        assert await effects(oban) == []
        await oban.retry_job(job)
        await reaches(oban, job, JobState.COMPLETED)
        assert await effects(oban) == [f"{job.id}/2"]
    await engine.dispose()


async def test_classes_that_are_bound_to_another_engine_keep_it(one_table: URL) -> None:
    elsewhere = create_async_engine(SQLITE)
    async with elsewhere.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    factory = async_sessionmaker(binds={Effect: elsewhere})
    async with Oban(one_table, session=factory, **RUNNING) as oban:
        await reaches(oban, await oban.enqueue(worker("async", effect).new()), JobState.COMPLETED)
        assert await effects(oban) == []
        async with AsyncSession(elsewhere) as session:
            assert len((await session.scalars(sqlmodel.select(Effect))).all()) == 1
    await elsewhere.dispose()


async def test_a_router_writes_with_the_outcome(one_table: URL, form: str) -> None:
    engine = create_async_engine(one_table)

    class Routing(ByStatement):
        primary = engine.sync_engine

    def body(job: Job, session: Session) -> None:
        effect(job, session)
        session.flush()
        if job.attempt == 1:
            raise ValueError("rolled back")

    async with Oban(engine, session=async_sessionmaker(sync_session_class=Routing), **RUNNING) as oban:
        job = await oban.enqueue(worker(form, body).new(max_attempts=2))
        await reaches(oban, job, JobState.RETRYABLE)
        assert await effects(oban) == []
        await oban.retry_job(job)
        await reaches(oban, job, JobState.COMPLETED)
        assert await effects(oban) == [f"{job.id}/2"]
    await engine.dispose()


async def test_a_factory_that_binds_jobs_to_the_engine_of_the_instance_keeps_its_own(one_table: URL) -> None:
    engine, elsewhere = create_async_engine(one_table), create_async_engine(SQLITE)
    async with elsewhere.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    factory = async_sessionmaker(elsewhere, binds={Job: engine})
    async with Oban(engine, session=factory, **RUNNING) as oban:
        await reaches(oban, await oban.enqueue(worker("async", effect).new()), JobState.COMPLETED)
        assert await effects(oban) == []
        async with AsyncSession(elsewhere) as session:
            assert len((await session.scalars(sqlmodel.select(Effect))).all()) == 1
    await engine.dispose()
    await elsewhere.dispose()


async def test_a_session_in_a_thread_cannot_use_an_engine_of_the_event_loop(one_table: URL) -> None:
    engine = create_async_engine(one_table)

    class Routing(ByStatement):
        primary = engine.sync_engine

    def read(job: Job, session: Session) -> None:
        session.scalars(sqlmodel.select(Effect)).all()

    factories = {
        async_sessionmaker(binds={Base: create_async_engine(SQLITE)}): effect,
        async_sessionmaker(sync_session_class=Routing): read,
    }
    for factory, body in factories.items():
        async with Oban(engine, session=factory, **RUNNING) as oban:
            job = await oban.enqueue(worker("thread", body).new())
            row = await reaches(oban, job, JobState.RETRYABLE)
            assert "an engine that belongs to the event loop; make process async" in row.errors[0]["error"]
    await engine.dispose()


async def test_a_job_that_uses_another_database_as_well_does_not_wait_for_itself(one_table: URL) -> None:
    elsewhere = create_async_engine(SQLITE)
    async with elsewhere.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)

    class Both(Worker):
        async def process(self, job: Job, session: AsyncSession) -> None:
            await session.execute(text("UPDATE oban_jobs SET priority = 1"))
            # The session's last transaction is not that of the lock.
            session.add(Effect(name="elsewhere"))
            await session.flush()
            await Oban.get_instance().enqueue(Both.new(queue="none"))

    async with Oban(one_table, session=async_sessionmaker(binds={Effect: elsewhere}), **RUNNING) as oban:
        job = await oban.enqueue(Both.new(max_attempts=1))
        expected = JobState.DISCARDED if one_table.drivername.startswith("sqlite") else JobState.COMPLETED
        row = await reaches(oban, job, expected)
        assert all("WouldDeadlock" in error["error"] for error in row.errors)
    await elsewhere.dispose()
