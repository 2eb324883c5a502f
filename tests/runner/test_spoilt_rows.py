"""Rows of other programs can be read even if Python or JSON has no value for what they contain."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import URL, func, select

from oban import Job, JobState, Oban
from oban.repository import fetch, poll, rescue, runs, stage
from tests.support.internals import database_of
from tests.support.rows import insert_row

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
TIMES = {
    "postgresql": {
        "infinity": LAST,
        "-infinity": FIRST,
        "294276-12-31 23:59:59": LAST,
        "10000-01-01": LAST,
        "4713-01-01 BC": FIRST,
        "0001-12-31 BC": FIRST,
        "0001-01-01": FIRST,
        "9999-12-31 23:59:59.999999": LAST,
    },
    "sqlite": {
        "soon": FIRST,
        "": FIRST,
        "20000-01-01 00:00:00.000000": FIRST,
        "2024-13-41 00:00:00.000000": FIRST,
        "-0044-03-15 00:00:00.000000": FIRST,
        "0001-01-01 00:00:00.000000": FIRST,
        "9999-12-31 23:59:59.999999": LAST,
    },
}


async def spoil(oban: Oban, id_: int, **columns: str) -> None:
    """Write SQL expressions into a row, without the types of SQLAlchemy."""
    values = ", ".join(f"{column} = {expression}" for column, expression in columns.items())
    async with oban.engine.begin() as connection:
        await connection.exec_driver_sql(f"UPDATE oban_jobs SET {values} WHERE id = {id_}")


async def test_a_time_outside_of_python_years_is_read_as_the_nearest_one(url: URL) -> None:
    names = [column.key for column in Job.__table__.c if column.key.endswith("_at")]
    async with Oban(url) as oban:
        for stored, read in TIMES[url.get_backend_name()].items():
            id_ = await insert_row(oban.engine, "completed")
            await spoil(oban, id_, **dict.fromkeys(names, f"'{stored}'"))
            job = await oban.get_job(id_)
            assert job is not None
            assert {getattr(job, name) for name in names} == {read}, stored
            # Each call uses other statements.
            assert [found.id for found in await oban.list_jobs()] == [id_]
            assert (await oban.update_job(id_, {"priority": 1})).completed_at == read
            assert await oban.retry_job(id_)
            (claimed,) = await database_of(oban).write(
                fetch.acknowledge_and_fetch, [], "default", 1, "node", "owner"
            )
            assert (claimed.id, claimed.inserted_at) == (id_, read)
            assert await oban.cancel_job(id_)
            assert await oban.delete_job(id_)


async def test_a_job_that_is_never_due_does_not_hide_when_other_jobs_are_due(url: URL) -> None:
    times = TIMES[url.get_backend_name()]
    async with Oban(url) as oban:
        for stored, read in times.items():
            id_ = await insert_row(oban.engine, "scheduled")
            await spoil(oban, id_, scheduled_at=f"'{stored}'")
            due = await database_of(oban).read(stage.seconds_until_due)
            # "Never" is far away; all other jobs are already due.
            assert due is not None
            assert (due > timedelta(days=365_000).total_seconds()) == (read == LAST), stored
            polled = (await database_of(oban).read(poll.poll, "Oban", ())).due_in
            assert polled == pytest.approx(due, rel=1e-3)
            await oban.delete_job(id_)


async def test_queries_order_group_and_compare_by_such_times(url: URL) -> None:
    async with Oban(url) as oban:
        ids = [
            await insert_row(oban.engine, scheduled_at=datetime(year, 1, 1, tzinfo=UTC)) for year in (3, 1, 2)
        ]
        order = [ids[1], ids[2], ids[0]]
        statements = [
            select(Job).order_by(Job.scheduled_at),
            select(Job).distinct().order_by(Job.scheduled_at),
            select(Job).where(Job.scheduled_at > FIRST - timedelta(0)).order_by(Job.scheduled_at),
        ]
        found = [[job.id for job in await oban.list_jobs(statement)] for statement in statements]
        assert found == [order, order, order[1:]]
        counted = select(Job.scheduled_at, func.count()).group_by(Job.scheduled_at).order_by(Job.scheduled_at)
        async with oban.engine.connect() as connection:
            rows = (await connection.execute(counted)).all()
            assert [(at.year, at.tzinfo, number) for at, number in rows] == [(n, UTC, 1) for n in (1, 2, 3)]
            assert await connection.scalar(select(func.max(Job.scheduled_at))) == datetime(
                3, 1, 1, tzinfo=UTC
            )


async def test_text_that_is_not_utf_8_is_read_on_sqlite(sqlite_url: URL) -> None:
    async with Oban(sqlite_url) as oban:
        id_ = await insert_row(oban.engine)
        await spoil(oban, id_, worker="CAST(x'ff41' AS TEXT)", args="""CAST(x'7b2261223a22ff227d' AS TEXT)""")
        (job,) = await database_of(oban).write(fetch.acknowledge_and_fetch, [], "default", 1, "node", "owner")
        assert (job.worker, job.args) == ("\ufffdA", {"a": "\ufffd"})


async def test_lists_and_documents_that_are_not_json_do_not_break_statements_about_other_jobs(
    sqlite_url: URL,
) -> None:
    async with Oban(sqlite_url) as oban:
        kept = {"recorded": True, "return": 1, "mine": 2}
        spoilt, good = [await insert_row(oban.engine, "completed", meta=kept) for _ in range(2)]
        await spoil(oban, spoilt, meta="'no JSON'")
        assert await oban.retry_many_jobs([spoilt, good]) == 2
        job = await oban.get_job(good)
        assert job is not None
        assert (job.state, job.meta) == (JobState.AVAILABLE, {"mine": 2})
        running = [await insert_row(oban.engine, "executing", attempted_by=["node", "me"]) for _ in range(2)]
        await spoil(oban, running[0], attempted_by="'no JSON'")
        held = [(id_, 1, "me") for id_ in running]
        assert await database_of(oban).read(runs.lost_runs, held) == {held[0]}


NO_NAMES = {
    "postgresql": ["'{}'", "'{NULL,NULL}'", "'{{a,b},{c,d}}'", "'{node}'"],
    "sqlite": ["'[]'", "'[null, null]'", "'null'", "'[1, 2]'", """'{"node": "owner"}'""", """'["node"]'"""],
}


async def test_an_executing_job_that_names_no_owner_is_rescued_once(url: URL) -> None:
    async with Oban(url) as oban:
        rows = NO_NAMES[url.get_backend_name()]
        ids = [await insert_row(oban.engine, "executing") for _ in rows]
        for id_, names in zip(ids, rows, strict=True):
            await spoil(oban, id_, attempted_by=names)
        rescued = await database_of(oban).write(rescue.rescue, 1.0, 1.0)
        assert [job.id for job in rescued] == ids
        assert {job.state for job in await oban.list_jobs()} == {JobState.AVAILABLE}
        assert await database_of(oban).write(rescue.rescue, 1.0, 1.0) == []
