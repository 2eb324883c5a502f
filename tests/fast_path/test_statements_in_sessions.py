"""A statement in a caller's session that is run again past SQLAlchemy does the same as one that is not."""

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import URL, bindparam, event, insert, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Job, Oban, SyncOban, migration
from oban.database import quoted_rows
from oban.database.transaction import Transaction
from oban.models import COLUMN_KEYS
from tests.support.databases import Factory, SQLiteFactory
from tests.support.internals import break_compiled_statements, database_of, record_compiled_statements

TABLE: Any = Job.__table__
#: Leaves no column to a default of Python's.
_VALUES = {"worker": "w", "state": "available", "unique_key": None, "unique_rule": None}
WITH_KEY = insert(TABLE).values(id=bindparam("key"), **_VALUES).returning(TABLE.c.id)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SQL of the compiled statements that are run again, past SQLAlchemy."""
    return record_compiled_statements(monkeypatch)


@pytest.fixture
async def engine(url: URL) -> AsyncIterator[AsyncEngine]:
    """An engine of the application."""
    made = create_async_engine(url)
    yield made
    await made.dispose()


@pytest.fixture
async def lite(sqlite_factory: SQLiteFactory) -> AsyncIterator[AsyncEngine]:
    """An engine of the application, where the database makes no difference."""
    url = sqlite_factory.create()
    made = create_async_engine(url)
    yield made
    await made.dispose()
    sqlite_factory.drop(url)


def key_inserted(tx: Transaction, key: int) -> Any:
    return tx.rows(WITH_KEY, {"key": key})[0].id


async def enqueued(oban: Oban, session: AsyncSession, count: int = 3) -> list[Job]:
    return [await oban.enqueue(Job(worker="w", args={"n": n}), session=session) for n in range(count)]


async def test_jobs_are_stored_and_shown_as_by_sqlalchemy(engine: AsyncEngine, runs: list[str]) -> None:
    oban = Oban(engine)
    async with AsyncSession(engine, expire_on_commit=False) as session, session.begin():
        jobs = [
            await oban.enqueue(Job(worker="w", args={"n": n}, tags=["x"], priority=1), session=session)
            for n in range(3)
        ]
        # The first statement is that of SQLAlchemy.
        assert len(runs) == 2
        assert all(job in session for job in jobs)
        shown = [{key: getattr(job, key) for key in COLUMN_KEYS} for job in jobs]
    async with AsyncSession(engine) as session:
        for values in shown:
            stored = await session.get_one(Job, values["id"])
            assert {key: getattr(stored, key) for key in COLUMN_KEYS} == values


async def test_a_rollback_takes_the_jobs_back(engine: AsyncEngine, runs: list[str]) -> None:
    oban = Oban(engine)
    async with AsyncSession(engine) as session:
        await enqueued(oban, session)
        await session.commit()
        kept = await enqueued(oban, session)
        async with session.begin_nested() as savepoint:
            dropped = await enqueued(oban, session)
            await savepoint.rollback()
        assert [job.id for job in dropped] == [None] * 3
        assert all(job in session for job in kept)
        await session.rollback()
        assert [job.id for job in kept] == [None] * 3
    assert len(runs) == 8
    assert len(await oban.list_jobs()) == 3


async def test_an_error_is_that_of_sqlalchemy(engine: AsyncEngine, runs: list[str]) -> None:
    database = database_of(Oban(engine))
    async with AsyncSession(engine) as session:
        for key in range(1, 4):
            await database.run(session, key_inserted, key)
        await session.commit()
        assert len(runs) == 2
        with pytest.raises(IntegrityError) as ours:
            await database.run(session, key_inserted, 1)
        assert len(runs) == 3
        assert session.in_transaction()
        await session.rollback()
        with pytest.raises(IntegrityError) as theirs:
            await session.execute(WITH_KEY, {"key": 1})
    # The database has done this to the other one.
    quoted_rows.hide(theirs.value)
    assert type(ours.value.orig) is type(theirs.value.orig)
    assert (ours.value.statement, ours.value.params) == (theirs.value.statement, theirs.value.params)
    assert str(ours.value) == str(theirs.value)


async def test_after_the_end_of_a_transaction_sqlalchemy_decides_what_happens(
    lite: AsyncEngine, runs: list[str]
) -> None:
    oban = Oban(lite)
    async with AsyncSession(lite) as session:
        await enqueued(oban, session)
        await session.commit()
        connection = await session.connection()
        await connection.rollback()
        runs.clear()
        # It begins another one on the connection.
        await oban.enqueue(Job(worker="w"), session=session)
        assert runs == []
        assert connection.in_transaction()
    async with AsyncSession(lite) as session, session.begin():
        await session.rollback()
        with pytest.raises(InvalidRequestError, match="closed transaction inside context manager"):
            await oban.enqueue(Job(worker="w"), session=session)


def _log_statements(engine: AsyncEngine, seen: list[Any]) -> Callable[[], object]:
    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    handler, logger = Recorder(), logging.getLogger("sqlalchemy.engine.Engine")
    logger.addHandler(handler)
    engine.echo = True
    logger.setLevel(logging.INFO)

    def stop() -> None:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)

    return stop


def _listen(name: str, of: str) -> Callable[[AsyncEngine, list[Any]], Callable[[], object]]:
    def listen(engine: AsyncEngine, seen: list[Any]) -> Callable[[], object]:
        target: Any = {"engine": engine.sync_engine, "session": Session}[of]

        def listener(*args: Any) -> Any:
            seen.append([str(getattr(arg, "statement", arg)) for arg in args])
            # What SQLAlchemy uses instead, of a listener that can replace it.
            return {"before_cursor_execute": args[2:4], "before_execute": args[1:4]}.get(name)

        retval = name in ("before_cursor_execute", "before_execute")
        event.listen(target, name, listener, **({"retval": True} if retval else {}))
        return lambda: event.remove(target, name, listener)

    return listen


@pytest.mark.parametrize(
    "observe",
    [
        *(
            _listen(name, "engine")
            for name in (
                "before_execute",
                "after_execute",
                "before_cursor_execute",
                "after_cursor_execute",
                "do_execute",
            )
        ),
        _listen("do_orm_execute", "session"),
        _log_statements,
    ],
    ids=[
        *("before_execute", "after_execute", "before_cursor_execute", "after_cursor_execute", "do_execute"),
        *("do_orm_execute", "log"),
    ],
)
async def test_whatever_observes_statements_sees_them(
    lite: AsyncEngine, runs: list[str], observe: Callable[[AsyncEngine, list[Any]], Callable[[], object]]
) -> None:
    oban = Oban(lite)
    async with AsyncSession(lite) as session:
        await enqueued(oban, session)
        await session.commit()
        assert len(runs) == 2
        seen: list[Any] = []
        stop = observe(lite, seen)
        try:
            await enqueued(oban, session)
            await session.commit()
        finally:
            stop()
        assert len(runs) == 2
        assert sum("INSERT INTO oban_jobs" in str(each) for each in seen) == 3


async def test_a_listener_for_errors_is_called(lite: AsyncEngine, runs: list[str]) -> None:
    database = database_of(Oban(lite))
    async with AsyncSession(lite) as session:
        for key in range(1, 4):
            await database.run(session, key_inserted, key)
        heard: list[Any] = []
        event.listen(lite.sync_engine, "handle_error", heard.append)
        with pytest.raises(IntegrityError):
            await database.run(session, key_inserted, 1)
        assert heard[0].execution_context.compiled is not None
    assert len(runs) == 2


async def test_a_session_with_an_execute_of_its_own_executes_each_statement(
    lite: AsyncEngine, runs: list[str]
) -> None:
    seen: list[Any] = []

    class Own(Session):
        def execute(self, statement: Any, *args: Any, **options: Any) -> Any:
            seen.append(statement)
            return super().execute(statement, *args, **options)

    async with AsyncSession(lite, sync_session_class=Own) as session:
        await enqueued(Oban(lite), session)
    assert len(seen) == 3
    assert runs == []


async def test_listeners_for_the_begin_of_a_transaction_are_no_reason_to_execute_again(
    lite: AsyncEngine, runs: list[str]
) -> None:
    begun: list[Any] = []
    event.listen(lite.sync_engine, "begin", begun.append)
    async with AsyncSession(lite) as session:
        await enqueued(Oban(lite), session)
    assert len(begun) == 1
    assert len(runs) == 2


async def test_options_of_a_connection_that_are_not_known_leave_everything_to_sqlalchemy(
    lite: AsyncEngine, runs: list[str]
) -> None:
    oban = Oban(lite)
    async with AsyncSession(lite.execution_options(mine=True)) as session:
        await enqueued(oban, session)
    assert runs == []


async def test_statements_stay_in_the_schema_of_the_session(
    postgresql_factory: Factory, runs: list[str]
) -> None:
    url = postgresql_factory.create(empty=True)
    engine = create_async_engine(url)
    try:
        for name in ("one", "two"):
            migration.upgrade(url, prefix=name)
        oban, prefixed = Oban(engine), Oban(engine, prefix="two", name="two")
        mapped = engine.execution_options(schema_translate_map={None: "one"})
        async with AsyncSession(mapped) as one, AsyncSession(engine) as two:
            for _ in range(3):
                await oban.enqueue(Job(worker="w"), session=one)
                await prefixed.enqueue(Job(worker="v"), session=two)
                await prefixed.enqueue(Job(worker="v"), session=one)
            await one.commit()
            await two.commit()
            for name, count in (("one", 3), ("two", 6)):
                found = await two.scalar(text(f"SELECT count(*) FROM {name}.oban_jobs"))
                assert found == count
        assert len(runs) == 7
    finally:
        await engine.dispose()
        postgresql_factory.drop(url)


async def test_each_driver_has_compiled_statements_of_its_own(
    postgresql_factory: Factory, runs: list[str]
) -> None:
    url = postgresql_factory.create()
    engines = [
        create_async_engine(url.set(drivername=f"postgresql+{each}")) for each in ("asyncpg", "psycopg")
    ]
    try:
        oban = Oban(engines[0])
        for engine in (*engines, *engines):
            async with AsyncSession(engine) as session, session.begin():
                await enqueued(oban, session, 2)
        assert len(await oban.list_jobs()) == 8
        assert len(set(runs)) == 2
        assert len(runs) == 6
    finally:
        for engine in engines:
            await engine.dispose()
        postgresql_factory.drop(url)


async def test_a_sqlalchemy_without_the_private_names_executes_everything(
    lite: AsyncEngine, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_compiled_statements(monkeypatch)
    oban = Oban(lite)
    async with AsyncSession(lite, expire_on_commit=False) as session, session.begin():
        jobs = await enqueued(oban, session)
    assert runs == []
    assert [job.id for job in await oban.list_jobs()] == [job.id for job in jobs]


def test_it_works_without_asyncio(url: URL, runs: list[str]) -> None:
    drivers = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}
    with SyncOban(url.set(drivername=drivers[url.get_backend_name()])) as oban:
        with Session(oban.engine, expire_on_commit=False) as session, session.begin():
            jobs = [oban.enqueue(Job(worker="w", args={"n": n}), session=session) for n in range(3)]
        assert len(runs) == 2
        found = oban.list_jobs()
    assert [(job.id, job.args, job.inserted_at) for job in found] == [
        (job.id, {"n": n}, job.inserted_at) for n, job in enumerate(jobs)
    ]
