"""Clients on a session or connection of the application: every call joins its transaction."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session, create_async_engine
from sqlalchemy.orm import Session, scoped_session

from oban import Job, JobNotFound, Oban, SyncOban, Unique
from oban.errors import ConfigError, InvalidTarget
from tests.drivers.callers import Application, Awaited, Order
from tests.support.databases import SQLiteFactory

KINDS = ("connection", "session", "savepoint session", "scoped session")
SAVEPOINTS: Any = {"join_transaction_mode": "create_savepoint", "expire_on_commit": False}


def new(**fields: Any) -> Job:
    return Job(worker="Any", **fields)


def client(caller: Any, **options: Any) -> Any:
    """A client on a session or connection, with methods that are awaited."""
    if isinstance(caller, (AsyncConnection, AsyncSession, async_scoped_session)):
        return Oban(caller, **options)
    return Awaited(SyncOban(caller, **options))


@asynccontextmanager
async def caller_of(engine: Any, kind: str) -> AsyncIterator[tuple[Any, Any]]:
    """A session or connection of the application, and its transaction, with methods that are awaited."""
    if isinstance(engine, Engine):
        with engine.connect() as connection:
            transaction = connection.begin()
            if kind == "connection":
                yield connection, Awaited(transaction)
                return
            bound = kind == "savepoint session"
            session = Session(connection, **SAVEPOINTS) if bound else Session(engine)
            scoped: Any = scoped_session(cast(Any, lambda: session))
            yield (
                (scoped if kind == "scoped session" else session),
                Awaited(transaction if bound else session),
            )
            await asyncio.to_thread(session.close)
        return
    async with engine.connect() as connection:
        begun = await connection.begin()
        if kind == "connection":
            yield connection, begun
            return
        bound = kind == "savepoint session"
        made = AsyncSession(connection, **SAVEPOINTS) if bound else AsyncSession(engine)
        all_tasks: Any = async_scoped_session(cast(Any, lambda: made), scopefunc=lambda: 1)
        yield (all_tasks if kind == "scoped session" else made), (begun if bound else made)
        await made.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_rollback_undoes_every_call(application: Application, kind: str) -> None:
    async with caller_of(application.engine, kind) as (caller, transaction):
        oban = client(caller)
        job = await oban.enqueue(new())
        many = await oban.enqueue_many([new(), new(unique=Unique()), new(unique=Unique())])
        assert [each.conflict for each in many] == [False, False, True]
        assert await oban.enqueue_stream(iter([new(), new()])) == 2
        assert await oban.cancel_job(job) is True
        await oban.update_job(many[0], {"priority": 3})
        await oban.pause_queue("default")
        assert len(await oban.list_queue_settings()) == 1
        assert [(each.state, each.priority) for each in await oban.list_jobs(limit=2)] == [
            ("cancelled", 0),
            ("available", 3),
        ]
        await transaction.rollback()
    assert await application.oban.list_jobs() == []
    assert await application.oban.list_queue_settings() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_the_application_commits(application: Application, kind: str) -> None:
    async with caller_of(application.engine, kind) as (caller, transaction):
        job = await client(caller).enqueue(new())
        await transaction.commit()
    assert [each.id for each in await application.oban.list_jobs()] == [job.id]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_transaction_goes_on_after_a_call_that_fails(application: Application, kind: str) -> None:
    async with caller_of(application.engine, kind) as (caller, transaction):
        oban = client(caller)
        job = await oban.enqueue(new())
        with pytest.raises(JobNotFound):
            await oban.update_many_jobs([job, 999_999], {"priority": 9})
        assert (await oban.get_job(job.id)).priority == 0
        await transaction.commit()
    assert len(await application.oban.list_jobs()) == 1


@pytest.mark.parametrize("kind", ["session", "savepoint session", "scoped session"])
async def test_a_session_is_flushed_before_a_call(application: Application, kind: str) -> None:
    await application.make_tables()
    async with caller_of(application.engine, kind) as (caller, transaction):
        caller.add(Order(customer="Ada"))
        oban = client(caller)
        await oban.enqueue(new())
        # Otherwise the order would still be pending.
        count = caller.execute(select(func.count()).select_from(Order.__table__))
        assert (count if isinstance(application.engine, Engine) else await count).scalar_one() == 1
        await transaction.rollback()


async def test_calls_at_the_same_time_take_turns(application: Application) -> None:
    async with caller_of(application.engine, "connection") as (caller, transaction):
        oban = client(caller)
        await asyncio.gather(*(oban.enqueue(new()) for _ in range(10)))
        assert len(await oban.list_jobs()) == 10
        await transaction.rollback()


async def test_a_session_has_its_next_transaction_after_a_commit(application: Application) -> None:
    async with caller_of(application.engine, "session") as (caller, transaction):
        oban = client(caller)
        await oban.enqueue(new())
        await transaction.commit()
        await oban.enqueue(new())
        await transaction.rollback()
        assert len(await oban.list_jobs()) == 1


async def test_a_closed_connection_is_refused(application: Application) -> None:
    async with caller_of(application.engine, "connection") as (caller, _):
        oban = client(caller)
    with pytest.raises(ResourceClosedError):
        await oban.list_jobs()


async def test_autocommit_connections(application: Application) -> None:
    engine: Any = application.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with caller_of(engine, "connection") as (caller, transaction):
        oban = client(caller)
        if "sqlite" in application.driver:
            # Oban sends BEGIN, and the driver rolls back.
            await oban.enqueue(new())
            await transaction.rollback()
        else:
            with pytest.raises(InvalidTarget, match="AUTOCOMMIT"):
                await oban.enqueue(new())
    assert await application.oban.list_jobs() == []


async def test_a_connection_that_is_not_open_is_refused(sqlite_factory: SQLiteFactory) -> None:
    engine = create_async_engine(sqlite_factory.create())
    with pytest.raises(InvalidTarget, match="not open"):
        await Oban(engine.connect()).list_jobs()
    await engine.dispose()


async def test_queues_need_an_engine(sqlite_factory: SQLiteFactory) -> None:
    engine = create_async_engine(sqlite_factory.create())
    async with engine.connect() as connection:
        oban = Oban(connection, queues={"default": 1})
        with pytest.raises(ConfigError, match="transaction of a session or connection"):
            await oban.start()
        assert oban.engine is engine
        await oban.stop()
    await engine.dispose()


def test_sessions_of_the_other_kind_are_refused(sqlite_factory: SQLiteFactory) -> None:
    session = Session()
    with pytest.raises(ConfigError, match="AsyncEngine"):
        Oban(session)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Engine"):
        SyncOban(AsyncSession())  # type: ignore[arg-type]
    with pytest.raises(InvalidTarget, match="no engine for jobs"):
        SyncOban(session)
