"""`Oban` accepts some engines and refuses others, and leaves the application's engine open."""

import gc
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from oban import Job, JobState, Oban, Record, job, migration
from oban.errors import ConfigError, InstanceNotFound, InvalidTarget, UnsupportedDatabase
from tests.support.waiting import eventually


@job(name="tests.double")
async def double(number: int) -> Record:
    return Record(number * 2)


async def test_a_database_in_memory_runs_many_jobs_at_once() -> None:
    oban = Oban("sqlite+aiosqlite://", queues={"default": 10})
    async with oban.engine.begin() as connection:
        await connection.run_sync(migration.upgrade)
    async with oban:
        jobs = await oban.enqueue_many(double.new(number) for number in range(100))

        async def completed() -> bool:
            rows = await oban.list_jobs(select(Job).where(Job.state == JobState.COMPLETED))
            return len(rows) == len(jobs)

        await eventually(completed)
        returned = {row.id: row.meta["return"] for row in await oban.list_jobs()}
    assert returned == {made.id: made.args["number"] * 2 for made in jobs}


async def test_a_sync_engine_and_values_that_are_not_engines_are_refused(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(ConfigError, match=r"not Engine; use Oban\(engine.url\), or SyncOban"):
        Oban(engine)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not NoneType"):
        Oban(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://u:secret@h/d", "mysql is not supported; use postgresql or sqlite"),
        ("postgresql+pygresql://u:secret@h/d", "the driver pygresql is not supported for postgresql"),
        ("sqlite+pysqlite://", "the driver pysqlite does not work with asyncio"),
        ("postgresql+asyncpg://u:half@secret:secret@h/d", "the database URL cannot be read"),
        ("no url with secret", "the database URL cannot be read"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Oban(url)
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value, UnsupportedDatabase) == ("not supported" in words)


async def test_the_applications_engine_stays_open_when_oban_stops(url: URL) -> None:
    engine = create_async_engine(url)
    async with Oban(engine, queues={"default": 1}):
        pass
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1
    await engine.dispose()


async def test_an_instance_is_found_by_its_name_as_long_as_it_lives(url: URL) -> None:
    first = Oban(url, name="first")
    assert Oban.get_instance("first") is first
    with pytest.raises(InstanceNotFound, match="no Oban named 'second'"):
        Oban.get_instance("second")
    del first
    gc.collect()
    with pytest.raises(InstanceNotFound):
        Oban.get_instance("first")


async def test_the_newest_living_instance_of_a_name_is_found(url: URL) -> None:
    first, second = Oban(url, name="both"), Oban(url, name="both")
    assert Oban.get_instance("both") is second
    del second
    gc.collect()
    assert Oban.get_instance("both") is first


async def test_a_function_is_enqueued_through_the_instance_that_its_option_names(url: URL) -> None:
    @job(name="tests.elsewhere", oban="elsewhere")
    def work(number: int) -> None: ...

    with pytest.raises(InstanceNotFound, match="elsewhere"):
        await work.enqueue(1)
    async with Oban(url, name="elsewhere") as oban:
        enqueued = await work.enqueue(1)
        assert [row.id for row in await oban.list_jobs()] == [enqueued.id]


async def test_a_function_is_enqueued_in_the_transaction_of_the_caller(oban: Oban) -> None:
    @job(name="tests.together", oban=oban.options.name)
    def work(number: int, **more: int) -> None: ...

    async with AsyncSession(oban.engine, expire_on_commit=False) as session:
        await work.enqueue(1, session=session)
        assert await oban.list_jobs() == []
        await session.rollback()
        kept = await work.with_options(priority=2).enqueue(2, a=3, session=session)
        await session.commit()
    (row,) = await oban.list_jobs()
    assert (row.id, row.priority, row.args) == (kept.id, 2, {"number": 2, "more": {"a": 3}})
    with pytest.raises(InvalidTarget, match="session must be an AsyncSession"):
        await work.enqueue(1, session="x")  # type: ignore[call-overload]


async def test_a_runner_switches_a_file_to_write_ahead_logging(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/new.db")
    migration.upgrade(engine.url)
    async with Oban(engine, queues={"default": 1}), engine.connect() as connection:
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
    await engine.dispose()
