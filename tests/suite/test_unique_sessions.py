"""Sessions and INSERT statements of the application cannot store a unique job twice."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, MetaData, bindparam, create_engine, func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban, Unique, UniqueConflict, Worker, compat, migration
from oban.dialects import for_bind
from oban.errors import InvalidTarget
from tests.support.databases import SQLiteFactory
from tests.support.locks import waits_for_lock
from tests.support.rows import TABLE, read_rows
from tests.support.statements import recorded
from tests.support.waiting import eventually


class Once(Worker, unique=True):
    """Its jobs are unique by worker, queue and args."""

    async def process(self, job: Job) -> None: ...


class Often(Worker):
    """Its jobs are not unique."""

    async def process(self, job: Job) -> None: ...


class Alone(Worker, unique={"states": "incomplete"}):
    """Its finished jobs keep nothing out."""

    async def process(self, job: Job) -> None: ...


class Special(Job):
    """A subclass of the application's."""


def once(*numbers: int) -> list[Job]:
    return [Once.new({"n": n}) for n in numbers]


def rows_of(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    return [{"worker": job.worker, "args": job.args} for job in jobs]


@pytest.fixture
async def session(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    async with AsyncSession(engine) as opened:
        yield opened


def add(session: Session, jobs: Sequence[Job]) -> None:
    for job in jobs:
        session.add(job)
        session.flush()


def add_all(session: Session, jobs: Sequence[Job]) -> None:
    session.add_all(jobs)
    session.flush()


def merge(session: Session, jobs: Sequence[Job]) -> None:
    for job in jobs:
        session.merge(job)
    session.flush()


#: How an application inserts jobs.
Way = Callable[[Session, Sequence[Job]], Any]
WAYS: dict[str, Way] = {
    "add": add,
    "add_all": add_all,
    "merge": merge,
    "bulk_save_objects": lambda session, jobs: session.bulk_save_objects(jobs),
    "bulk_save_objects, ids": lambda session, jobs: session.bulk_save_objects(jobs, return_defaults=True),
    "bulk_insert_mappings": lambda session, jobs: session.bulk_insert_mappings(Job, rows_of(jobs)),
    "insert, many": lambda session, jobs: session.execute(insert(Job), rows_of(jobs)),
    "insert, one by one": lambda session, jobs: [
        session.execute(insert(Job).values(**row)) for row in rows_of(jobs)
    ],
    "insert, values": lambda session, jobs: session.execute(insert(Job).values(rows_of(jobs))),
    "insert, columns": lambda session, jobs: session.execute(
        insert(Job).values([{Job.worker: job.worker, Job.args: job.args} for job in jobs])
    ),
    "insert, returning": lambda session, jobs: session.scalars(
        insert(Job).returning(Job, sort_by_parameter_order=True), rows_of(jobs)
    ).all(),
    "table, many": lambda session, jobs: session.connection().execute(insert(TABLE), rows_of(jobs)),
    "table, values": lambda session, jobs: session.connection().execute(
        insert(TABLE).values(rows_of(jobs)).returning(TABLE.c.id)
    ),
    "table, parameters": lambda session, jobs: session.connection().execute(
        insert(TABLE).values(worker=bindparam("name"), args=bindparam("document")),
        [{"name": job.worker, "document": job.args} for job in jobs],
    ),
}


async def test_no_way_to_insert_stores_a_unique_job_twice(
    oban: Oban, engine: AsyncEngine, session: AsyncSession
) -> None:
    for n, (name, way) in enumerate(WAYS.items()):
        print(name)
        first = 10 * n
        stored = await oban.enqueue(Once.new({"n": first}))
        await session.run_sync(way, [*once(first + 1, first + 2), Often.new(), Often.new()])
        await session.commit()
        with pytest.raises(UniqueConflict) as caught:
            await session.run_sync(way, [Often.new(), *once(first + 3, first)])
        assert caught.value.job_id == stored.id
        await session.rollback()
        with pytest.raises(UniqueConflict):
            await session.run_sync(way, [*once(first + 4, first + 5, first + 4), Often.new()])
        await session.rollback()
        assert (await oban.enqueue(Once.new({"n": first + 2}))).conflict
    rows = (await read_rows(engine)).values()
    unique = [row for row in rows if row["worker"] == Once.worker_name]
    assert [row["args"]["n"] % 10 for row in unique] == [0, 1, 2] * len(WAYS)
    assert all(row["unique_rule"] == unique[0]["unique_rule"] for row in unique)
    assert len({row["unique_key"] for row in unique}) == len(unique)
    assert len(rows) == 5 * len(WAYS)


async def test_an_earlier_job_of_the_same_flush_has_no_id_yet(session: AsyncSession) -> None:
    session.add_all(once(1, 1))
    with pytest.raises(UniqueConflict, match="an earlier job") as caught:
        await session.flush()
    assert caught.value.job_id is None


async def test_the_new_jobs_of_a_flush_are_judged_with_one_statement_each(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    session.add_all([*once(*range(20)), Often.new()])
    with recorded(engine) as seen:
        await session.flush()
    inserts = [statement for statement in seen if "INSERT INTO oban_jobs" in statement]
    assert len(seen) - len(inserts) == 2
    if engine.dialect.name == "postgresql":
        assert len(inserts) == 1


async def test_jobs_that_are_not_unique_take_no_other_statement(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    for way in ("add_all", "insert, many", "insert, values", "bulk_save_objects"):
        with recorded(engine) as seen:
            await session.run_sync(WAYS[way], [Often.new({"n": n}) for n in range(5)])
        assert seen, way
        assert all(statement.startswith("INSERT INTO oban_jobs") for statement in seen), way


@pytest.mark.parametrize("way", ["add_all", "insert, many"])
async def test_a_savepoint_ends_a_conflict(
    way: str, oban: Oban, engine: AsyncEngine, session: AsyncSession
) -> None:
    stored = await oban.enqueue(Once.new({"n": 1}))
    session.add(Often.new())
    with pytest.raises(UniqueConflict):
        async with session.begin_nested():
            await session.run_sync(WAYS[way], once(2, 1))
    await session.run_sync(WAYS[way], once(2))
    await session.commit()
    rows = await read_rows(engine)
    assert [row["args"] for row in rows.values()] == [stored.args, {}, {"n": 2}]


async def test_a_session_and_enqueue_see_each_others_jobs_in_one_transaction(
    oban: Oban, engine: AsyncEngine, session: AsyncSession
) -> None:
    (added,) = once(1)
    session.add(added)
    found = await oban.enqueue(Once.new({"n": 1}), session=session)
    assert (found.id, found.conflict) == (added.id, True)
    enqueued = await oban.enqueue(Once.new({"n": 2}), session=session)
    ids = [added.id, enqueued.id]
    with pytest.raises(UniqueConflict) as caught:
        async with session.begin_nested():
            session.add_all(once(2))
    assert caught.value.job_id == ids[1]
    await session.commit()
    assert list(await read_rows(engine)) == ids


async def test_a_stored_job_and_an_earlier_one_count_in_the_states_of_the_rule(
    oban: Oban, session: AsyncSession
) -> None:
    imported = [Alone.new({"n": 1}) for _ in range(3)]
    for job in imported:
        job.state = JobState.COMPLETED
    session.add_all(imported)
    session.add(Alone.new({"n": 1}))
    await session.commit()
    # The state of the new job itself makes no difference.
    late = Alone.new({"n": 1})
    late.state = JobState.COMPLETED
    session.add(late)
    with pytest.raises(UniqueConflict):
        await session.flush()


@pytest.mark.parametrize("timestamp", ["inserted_at", "scheduled_at"])
async def test_a_job_is_unique_within_the_period(timestamp: Any, session: AsyncSession) -> None:
    unique = Unique(period=60, timestamp=timestamp)
    old = datetime.now(UTC) - timedelta(minutes=2)

    def made(at: datetime | None = None) -> Job:
        job = Once.new({}, unique=unique)
        if at is not None:
            setattr(job, timestamp, at)
        return job

    session.add_all([made(old), made(old)])
    await session.commit()
    session.add(made())
    await session.commit()
    session.add(made(old))
    with pytest.raises(UniqueConflict):
        await session.flush()


async def test_options_of_a_job_decide_however_the_session_inserts_it(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    def turned_off() -> Job:
        return Once.new({}, unique=False)

    def turned_on() -> Job:
        return Often.new({}, unique={"fields": ["worker"]})

    for make in (turned_off, turned_on):
        session.add(make())
        await session.flush()
        for way in ("add", "bulk_save_objects", "merge"):
            try:
                async with session.begin_nested():
                    await session.run_sync(WAYS[way], [make()])
            except UniqueConflict:
                assert make is turned_on
            else:
                assert make is turned_off
    await session.commit()
    rows = (await read_rows(engine)).values()
    assert [row["unique_key"] is None for row in rows] == [True] * 4 + [False]


async def test_a_key_of_the_applications_own_is_left_alone(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    jobs = once(1, 1)
    for job in jobs:
        job.unique_key = "mine"
    session.add_all(jobs)
    await session.execute(insert(Job), [{**row, "unique_key": "mine"} for row in rows_of(jobs)])
    await session.commit()
    rows = await read_rows(engine)
    assert [row["unique_key"] for row in rows.values()] == ["mine"] * 4


async def test_a_job_that_was_rolled_back_gets_the_key_of_its_new_args(
    oban: Oban, session: AsyncSession
) -> None:
    (job,) = once(1)
    session.add(job)
    await session.flush()
    first = job.unique_key
    await session.rollback()
    job.args = {"n": 2}
    session.add(job)
    await session.commit()
    await session.refresh(job)
    assert first != job.unique_key == (await oban.enqueue(Once.new({"n": 2}))).unique_key


async def test_a_subclass_of_job_is_judged_like_a_job(session: AsyncSession) -> None:
    session.add_all([Special(worker=Once.worker_name), *once(3)])
    await session.flush()
    session.add(Special(worker=Once.worker_name, args={"n": 3}))
    with pytest.raises(UniqueConflict):
        await session.flush()


async def test_each_connection_of_a_flush_has_its_own_keys(sqlite_factory: SQLiteFactory) -> None:
    urls = [sqlite_factory.create() for _ in range(2)]
    engines = [create_engine(url.set(drivername="sqlite+pysqlite")) for url in urls]
    with Session(engines[0]) as session:
        connections = [session.connection(bind_arguments={"bind": engine}) for engine in engines]
        # As `ShardedSession` does it.
        choose: Any = lambda _, job: connections[job.priority]  # noqa: E731
        session.connection_callable = choose
        first, second = (Once.new({}, priority=number) for number in range(2))
        # An id is for one of the databases.
        second.id = 100
        add_all(session, [first, second])
        with pytest.raises(UniqueConflict):
            add_all(session, [*once(1), *once(1)])
        session.rollback()
    for engine, url in zip(engines, urls, strict=True):
        engine.dispose()
        sqlite_factory.drop(url)


async def test_without_private_names_of_sessions_a_flush_is_guarded_all_the_same(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "current_flush", lambda _: None)
    session.add_all(once(1, 2))
    await session.flush()
    session.add_all(once(3, 3))
    with pytest.raises(UniqueConflict):
        await session.flush()


async def test_values_that_only_the_database_knows_are_not_judged(
    engine: AsyncEngine, session: AsyncSession
) -> None:
    worker = func.lower(Once.worker_name, type_=TABLE.c.worker.type)
    for _ in range(2):
        await session.execute(insert(Job).values(worker=worker))
        await session.execute(insert(Job).from_select(["worker"], select(worker)))
        await session.execute(insert(Job).values([{"worker": worker}, {"worker": worker}]))
    await session.commit()
    rows = await read_rows(engine)
    assert [row["unique_key"] for row in rows.values()] == [None] * 8


async def test_a_unique_job_needs_a_transaction(url: URL) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        session.add(Often.new())
        await session.flush()
        for way in ("add", "insert, many"):
            with pytest.raises(InvalidTarget, match="AUTOCOMMIT"):
                await session.run_sync(WAYS[way], once(1))
            await session.rollback()
    assert [row["worker"] for row in (await read_rows(engine)).values()] == [Often.worker_name]
    await engine.dispose()


async def test_sessions_at_once_leave_one_job_of_each_key(url: URL) -> None:
    options: dict[str, Any] = {} if "postgresql" in url.drivername else {"connect_args": {"timeout": 60}}
    engine = create_async_engine(url, pool_size=20, max_overflow=0, **options)

    async def add(n: int) -> None:
        async with AsyncSession(engine) as session, session.begin():
            if n % 2:
                session.add(Once.new({"n": n % 5}))
            else:
                await session.execute(insert(Job), rows_of(once(n % 5)))

    found = await asyncio.gather(*map(add, range(60)), return_exceptions=True)
    assert [type(error).__name__ for error in found if error is not None] == ["UniqueConflict"] * 55
    assert len(await read_rows(engine)) == 5
    await engine.dispose()


async def test_sessions_and_enqueue_at_once_leave_one_job(oban: Oban, engine: AsyncEngine) -> None:
    async def add(n: int) -> None:
        async with AsyncSession(engine) as session:
            session.add(Once.new({"n": n}))
            await session.commit()

    rounds = 8
    for n in range(rounds):
        calls = [add(n) if i % 2 else oban.enqueue(Once.new({"n": n})) for i in range(8)]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert result is None or isinstance(result, Job | UniqueConflict), repr(result)
    rows = await read_rows(engine)
    assert [row["args"] for row in rows.values()] == [{"n": n} for n in range(rounds)]


@pytest.mark.parametrize("factory", ["asyncpg"], indirect=True)
@pytest.mark.parametrize("way", ["add_all", "insert, many"])
async def test_the_loser_against_a_transaction_that_rolls_back_is_inserted(
    way: str, engine: AsyncEngine, session: AsyncSession
) -> None:
    session.add_all(once(1))
    await session.flush()

    async def insert_another() -> None:
        async with AsyncSession(engine) as other, other.begin():
            await other.run_sync(WAYS[way], once(1))

    waiting = asyncio.create_task(insert_another())
    await eventually(lambda: waits_for_lock(engine))
    await session.rollback()
    await waiting
    assert len(await read_rows(engine)) == 1


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("way", ["add_all", "insert, many"])
async def test_an_old_snapshot_gets_a_serialization_failure(server_url: URL, way: str, level: str) -> None:
    engine = create_async_engine(server_url, isolation_level=level)
    async with AsyncSession(engine) as session, AsyncSession(engine) as other:
        await session.scalar(select(func.count(Job.id)))
        await other.run_sync(WAYS[way], once(1))
        await other.commit()
        with pytest.raises(DBAPIError) as caught:
            await session.run_sync(WAYS[way], once(1))
        assert for_bind(engine.sync_engine).is_transient(caught.value)
        await session.rollback()
        with pytest.raises(UniqueConflict):
            await session.run_sync(WAYS[way], once(1))
    await engine.dispose()


@pytest.mark.parametrize("way", ["add_all", "insert, many", "table, values"])
async def test_keys_are_claimed_in_the_schema_of_the_jobs(server_url: URL, way: str) -> None:
    migration.upgrade(server_url, prefix="private")
    public = create_async_engine(server_url)
    private = public.execution_options(schema_translate_map={None: "private"})
    for engine in (private, public):
        async with AsyncSession(engine) as session:
            await session.run_sync(WAYS[way], once(1))
            await session.commit()
            with pytest.raises(UniqueConflict):
                await session.run_sync(WAYS[way], once(1))
    async with public.connect() as connection:
        copied = TABLE.to_metadata(MetaData(), schema="private")
        for option, target in (({}, copied), ({"schema_translate_map": {None: "private"}}, TABLE)):
            with pytest.raises(UniqueConflict):
                await connection.execute(insert(target), rows_of(once(2, 1)), execution_options=option)
            await connection.rollback()
        for schema in ("public", "private"):
            found = await connection.scalar(text(f"SELECT count(*) FROM {schema}.oban_unique_keys"))
            assert found == 1
    await public.dispose()


async def test_a_transaction_that_will_be_prepared_is_guarded(server_url: URL) -> None:
    engine = create_engine(server_url.set(drivername="postgresql+psycopg2"))
    for job in once(1, 2):
        with Session(engine, twophase=True) as session:
            session.add(job)
            session.prepare()
            session.commit()
    with Session(engine, twophase=True) as session:
        session.add_all(once(3, 2))
        with pytest.raises(UniqueConflict):
            session.flush()
    engine.dispose()
