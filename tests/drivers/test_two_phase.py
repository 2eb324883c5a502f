"""Calls with `session=` take part in a two-phase commit, where the database and the driver have one."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban, SyncOban
from oban.errors import InvalidTarget
from tests.drivers.callers import DRIVERS, Application, Order, is_sqlite
from tests.support.databases import PostgreSQLFactory, SQLiteFactory
from tests.support.rows import TABLE
from tests.support.schema import sync_engine
from tests.support.statements import recorded
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def url(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """A PostgreSQL database whose server prepares transactions."""
    made = postgresql_factory.create()
    with sync_engine(made).connect() as connection:
        allowed = connection.scalar(text("SHOW max_prepared_transactions"))
    if allowed == "0":
        pytest.skip("the server has max_prepared_transactions = 0")
    yield made
    postgresql_factory.drop(made)


@pytest.fixture(params=[driver for driver in DRIVERS if not is_sqlite(driver)])
async def app(request: pytest.FixtureRequest, url: URL) -> AsyncIterator[Application]:
    application = Application(request.param, url)
    await application.make_tables()
    yield application
    await application.dispose()


def new_job(queue: str = "default") -> Job:
    return Job(worker="tests.Any", queue=queue)


async def test_every_call_takes_part_in_a_two_phase_commit(app: Application) -> None:
    jobs = await app.oban.enqueue_many([new_job() for _ in range(5)])
    cancelled, retried, updated, deleted, staged = (job.id for job in jobs)
    await app.oban.cancel_many_jobs([retried])
    async with app.session(twophase=True, expire_on_commit=False) as session:
        new = await app.oban.enqueue(new_job(), session=session.own)
        later = Job(worker="tests.Any", schedule_in=60)
        many = await app.oban.enqueue_many([new_job(), later], session=session.own)
        await app.oban.cancel_job(cancelled, session=session.own)
        await app.oban.retry_job(retried, session=session.own)
        await app.oban.update_job(updated, {"queue": "moved"}, session=session.own)
        await app.oban.update_job(staged, {"schedule_in": 60}, session=session.own)
        await app.oban.delete_job(deleted, session=session.own)
        added = new_job()
        session.add(added, Order(customer="Ann"))
        await session.commit()
    states = {job.id: job.state for job in await app.oban.list_jobs()}
    assert states == {
        cancelled: JobState.CANCELLED,
        retried: JobState.AVAILABLE,
        updated: JobState.AVAILABLE,
        staged: JobState.SCHEDULED,
        new.id: JobState.AVAILABLE,
        many[0].id: JobState.AVAILABLE,
        many[1].id: JobState.SCHEDULED,
        max(states): JobState.AVAILABLE,
    }
    await app.oban.delete_many_jobs(list(states))


async def test_a_job_added_before_the_call_takes_part(app: Application) -> None:
    async with app.session(twophase=True, expire_on_commit=False) as session:
        session.add(new_job("added"))
        await app.oban.enqueue(new_job("enqueued"), session=session.own)
        await session.commit()
    jobs = await app.oban.list_jobs()
    assert sorted(job.queue for job in jobs) == ["added", "enqueued"]
    await app.oban.delete_many_jobs(jobs)


async def test_jobs_that_are_only_added_take_part(app: Application) -> None:
    async with app.session(twophase=True, expire_on_commit=False) as session:
        session.add(new_job("first"))
        await session.commit()
        # What a savepoint has changed is undone with it, settings included.
        savepoint = await session.run(lambda sync: sync.begin_nested())
        session.add(new_job("undone"))
        await session.run(lambda sync: sync.flush())
        await session.run(lambda _: savepoint.rollback())
        session.add(new_job("second"))
        await session.commit()
    jobs = await app.oban.list_jobs()
    assert [job.queue for job in jobs] == ["first", "second"]
    await app.oban.delete_many_jobs(jobs)


async def test_a_flush_mutes_its_transaction_once(app: Application) -> None:
    async with app.session(twophase=True) as session:
        for _ in range(2):
            with recorded(app.engine) as seen:
                session.add(*(new_job() for _ in range(5)))
                await session.run(lambda sync: sync.flush())
                session.add(*(new_job() for _ in range(5)))
                await session.commit()
            assert len([statement for statement in seen if "oban.notify" in statement]) == 1
    await app.oban.delete_many_jobs(await app.oban.list_jobs())


async def test_a_rollback_leaves_nothing(app: Application) -> None:
    async with app.session(twophase=True, expire_on_commit=False) as session:
        job = await app.oban.enqueue(new_job(), session=session.own)
        await session.rollback()
    assert job.id is None
    assert await app.oban.list_jobs() == []


@pytest.fixture(params=["psycopg", "psycopg2"])
def engine(request: pytest.FixtureRequest, url: URL) -> Iterator[Engine]:
    engine = create_engine(url.set(drivername=f"postgresql+{request.param}"))
    yield engine
    engine.dispose()


@pytest.mark.parametrize("within", ["connection", "session"])
def test_a_connection_with_a_two_phase_transaction(engine: Engine, within: str) -> None:
    oban = SyncOban(engine)
    with engine.connect() as connection:
        transaction = connection.begin_twophase()
        target: Session | Connection = connection if within == "connection" else Session(connection)
        job = oban.enqueue(new_job(), session=target)
        oban.cancel_job(job.id, session=target)
        transaction.prepare()
        transaction.commit()
    assert [job.state for job in oban.list_jobs()] == [JobState.CANCELLED]
    oban.delete_many_jobs([job.id])


def test_other_transactions_on_the_connection_announce(engine: Engine) -> None:
    oban = SyncOban(engine)
    with engine.connect() as connection, engine.connect() as listening:
        listening.exec_driver_sql('LISTEN "public.oban_insert"')
        listening.commit()
        transaction = connection.begin_twophase()
        oban.enqueue(new_job("silent"), session=connection)
        transaction.prepare()
        transaction.commit()
        with connection.begin():
            oban.enqueue(new_job("loud"), session=connection)
        driver = listening.connection.driver_connection
        assert driver is not None
        if engine.driver == "psycopg":
            heard = [notice.payload for notice in driver.notifies(timeout=5, stop_after=1)]
        else:
            listening.exec_driver_sql("SELECT 1")
            heard = [notice.payload for notice in driver.notifies]
        assert heard == ['{"queue": "loud"}']
    oban.delete_many_jobs(oban.list_jobs())


async def test_a_node_finds_the_job_by_polling(url: URL) -> None:
    engine: AsyncEngine = create_async_engine(url)
    async with Oban(engine, queues={"polled": 1}, poll_interval=0.1, stage_interval=0.1) as oban:
        async with AsyncSession(engine, twophase=True, expire_on_commit=False) as session:
            job = await oban.enqueue(new_job("polled"), session=session)
            await session.commit()

        async def ran() -> bool:
            found = await oban.get_job(job.id)
            return found is not None and found.attempt == 1

        await eventually(ran)
    async with engine.begin() as connection:
        await connection.execute(TABLE.delete())
    await engine.dispose()


def test_sqlite_has_none(sqlite_factory: SQLiteFactory) -> None:
    url = sqlite_factory.create()
    engine = sync_engine(url)
    with Session(engine, twophase=True) as session, pytest.raises(InvalidTarget) as raised:
        SyncOban(engine).enqueue(new_job(), session=session)
    assert str(raised.value) == ("sqlite has no two-phase commit: make the session without twophase=True")
    sqlite_factory.drop(url)
