"""A statement that is run again past SQLAlchemy gives and raises just what SQLAlchemy would."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, Text, bindparam, create_engine, event, insert, literal, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session

from oban import Job, Oban, SyncOban, migration
from oban.repository import prepared, session
from oban.repository.session import rows_of
from oban.types import JobState
from tests.databases import Factory


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SQL of the statements that were run past SQLAlchemy."""
    run = prepared.Prepared.rows
    seen: list[str] = []

    def counted(self: Any, *given: Any) -> Any:
        seen.append(self._sql)
        return run(self, *given)

    monkeypatch.setattr(prepared.Prepared, "rows", counted)
    return seen


QUERY = (
    select(Job.id, Job.state, Job.args, Job.tags, Job.scheduled_at, literal("fixed", Text).label("fixed"))
    .where(Job.worker == bindparam("name", type_=Text), Job.max_attempts > literal(1))
    .order_by(Job.id)
)


async def ran(oban: Oban, statement: Any, parameters: dict[str, Any]) -> Any:
    """Rows of a statement that is a transaction by itself."""

    def work(given: Session) -> Any:
        session.alone(given)
        return rows_of(given, statement, parameters)

    return await oban._database.write(session.plain(work))


async def test_rows_have_the_same_values_and_names_each_time(oban: Oban, runs: list[str]) -> None:
    jobs = [Job(worker="a", args={"n": n}, tags=["x"]) for n in range(3)]
    await oban.enqueue_many(jobs)
    await oban.enqueue_many([Job(worker="b"), Job(worker="b")])
    # The first connection is not kept yet, and the first run on a kept one is SQLAlchemy's.
    every = [await ran(oban, QUERY, {"name": "a"}) for _ in range(4)]
    assert len(runs) >= 1
    assert every[1:] == every[:-1]
    for row, job in zip(every[-1], jobs, strict=True):
        assert (row.id, row.args, row.tags, row.fixed) == (job.id, job.args, ["x"], "fixed")
        assert row.state is JobState.AVAILABLE
        assert row.scheduled_at == job.scheduled_at
        assert row._mapping["id"] == job.id
    assert len(await ran(oban, QUERY, {"name": "b"})) == 2
    assert await ran(oban, QUERY, {"name": "c"}) == []


async def test_a_list_of_values_is_left_to_sqlalchemy(oban: Oban, runs: list[str]) -> None:
    await oban.enqueue_many([Job(worker="a"), Job(worker="b"), Job(worker="c")])
    query = select(Job.worker).where(Job.worker.in_(bindparam("names", expanding=True))).order_by(Job.id)
    runs.clear()
    for names in (["a"], ["a", "b"], ["c"], ["b", "c", "a"]):
        found = await ran(oban, query, {"names": names})
        assert [row.worker for row in found] == sorted(names)
    assert runs == []


async def test_a_default_that_is_made_for_each_row_is_left_to_sqlalchemy(oban: Oban, runs: list[str]) -> None:
    table: Any = Job.__table__
    # The state depends on the time.
    statement = insert(table).values(worker="w").returning(table.c.state)
    now = datetime.now(UTC)
    found = [
        await ran(oban, statement, {"scheduled_at": now + timedelta(hours=hours)}) for hours in (-1, 1, -1, 1)
    ]
    assert [row.state for (row,) in found] == ["available", "scheduled", "available", "scheduled"]
    assert runs == []


async def test_an_error_is_that_of_sqlalchemy(url: URL, runs: list[str]) -> None:
    table: Any = Job.__table__
    again = insert(table).values(id=bindparam("key"), worker="w", state="available").returning(table.c.id)
    errors: list[IntegrityError] = []
    async with Oban(url) as oban:
        for key in range(0, 100, 10):
            for more in range(3):
                await ran(oban, again, {"key": key + 1 + more})
            with pytest.raises(IntegrityError) as caught:
                await ran(oban, again, {"key": key + 1})
            errors.append(caught.value)
            runs.append("failed")
    # Of SQLAlchemy the first time, and past it later.
    assert runs.index("failed") < len(errors) < len(runs)
    assert {type(error.orig) for error in errors} == {type(errors[0].orig)}
    assert {error.statement for error in errors} == {errors[0].statement}
    assert not any(error.connection_invalidated for error in errors)
    assert all("[SQL: INSERT INTO oban_jobs" in str(error) for error in errors)


async def test_whoever_runs_statements_in_sqlalchemys_place_is_asked_from_then_on(url: URL) -> None:
    async with Oban(url) as oban:
        for _ in range(3):
            await oban.enqueue(Job(worker="w"))
        seen: list[str] = []
        event.listen(oban.engine.sync_engine, "do_execute", lambda *given: seen.append(given[1]))
        for _ in range(3):
            await oban.enqueue(Job(worker="w"))
        assert sum(sql.startswith("INSERT INTO oban_jobs") for sql in seen) == 3


async def test_whoever_listens_for_errors_hears_of_them(url: URL) -> None:
    async with Oban(url) as oban:
        for _ in range(3):
            await oban.enqueue(Job(worker="w"))
        heard: list[str] = []
        event.listen(oban.engine.sync_engine, "handle_error", lambda given: heard.append(given.statement))
        with pytest.raises(DBAPIError):
            await ran(oban, text("SELECT nothing FROM oban_jobs"), {})
        assert heard == ["SELECT nothing FROM oban_jobs"]


async def test_with_a_prefix_statements_stay_in_its_schema(
    postgresql_factory: Factory, runs: list[str]
) -> None:
    url = postgresql_factory.create(empty=True)
    try:
        for prefix in ("one", "two"):
            migration.upgrade(url, prefix=prefix)
        async with Oban(url, prefix="one") as one, Oban(url, prefix="two", name="two") as two:
            for number in range(4):
                await one.enqueue(Job(worker="w", args={"n": number}))
                await two.enqueue(Job(worker="v", args={"n": number}))
                await two.enqueue(Job(worker="v"))
            assert len(await one.list_jobs()) == 4
            assert len(await two.list_jobs()) == 8
        assert {sql.partition("(")[0].strip() for sql in runs} == {
            "INSERT INTO one.oban_jobs",
            "INSERT INTO two.oban_jobs",
        }
    finally:
        postgresql_factory.drop(url)


@pytest.fixture
def altering(server_url: URL) -> Iterator[Any]:
    """Changes the table, as a migration does while nodes are up."""
    engine = create_engine(server_url.set(drivername="postgresql+psycopg"))

    def alter(change: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE oban_jobs {change}"))

    yield alter
    engine.dispose()


async def test_when_the_table_changes_one_call_may_fail_and_the_next_ones_do_not(
    server_url: URL, altering: Any, runs: list[str]
) -> None:
    failed = 0
    async with Oban(server_url) as oban:
        for change in ("ALTER id TYPE int", "ADD extra int", "ALTER id TYPE bigint", "DROP extra"):
            for _ in range(3):
                await oban.enqueue(Job(worker="w"))
            altering(change)
            try:
                await oban.enqueue(Job(worker="w"))
            except DBAPIError:
                failed += 1
        await oban.enqueue(Job(worker="w"))
        await oban.enqueue(Job(worker="w"))
        assert len(await oban.list_jobs()) == 18 - failed
    assert len(runs) >= 4


def test_it_works_alike_without_asyncio(url: URL, runs: list[str]) -> None:
    drivers = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}
    with SyncOban(url.set(drivername=drivers[url.get_backend_name()])) as oban:
        jobs = [oban.enqueue(Job(worker="w", args={"n": number})) for number in range(5)]
        found = oban.list_jobs()
    assert [(job.id, job.args, job.inserted_at) for job in found] == [
        (job.id, {"n": number}, job.inserted_at) for number, job in enumerate(jobs)
    ]
    assert len(runs) >= 2


async def test_an_engine_of_the_application_is_always_sqlalchemys_own(url: URL, runs: list[str]) -> None:
    engine: AsyncEngine = create_async_engine(url)
    async with Oban(engine) as oban:
        for _ in range(4):
            await oban.enqueue(Job(worker="w"))
    await engine.dispose()
    assert runs == []
