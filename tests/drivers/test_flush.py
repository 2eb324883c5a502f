"""What one flush of new jobs sends, and what the jobs show afterwards, with each kind of driver."""

import math
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, delete, event, insert, select
from sqlalchemy.orm import Mapper, Session

from oban import Job, JobState
from oban.errors import EncodingError
from tests.drivers.callers import Application, Order, factory_for, is_sqlite
from tests.support.databases import Factory
from tests.support.rows import TABLE
from tests.support.statements import recorded

LATER = datetime(2077, 1, 1, tzinfo=UTC)
INSERTS = ["INSERT INTO oban_jobs", "INSERT INTO orders"]


@pytest.fixture(scope="module", params=["asyncpg", "psycopg", "psycopg2", "aiosqlite", "sqlite3"])
def driver(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def url(driver: str, request: pytest.FixtureRequest) -> Iterator[URL]:
    factory = factory_for(driver, request)
    made = factory.create()
    yield made
    factory.drop(made)


@pytest.fixture
async def app(driver: str, url: URL) -> AsyncIterator[Application]:
    application = Application(driver, url)
    await application.make_tables()
    async with application.session() as session:
        await session.execute(delete(TABLE))
        await session.commit()
    yield application
    await application.dispose()


def mixed(count: int = 20) -> list[Job]:
    """Jobs that differ in every field that a new job can have."""
    kinds: list[dict[str, Any]] = [
        {},
        {"scheduled_at": LATER},
        {"tags": ["b", "a"], "meta": {"tenant": 1}},
        {"schedule_in": 60, "priority": 3},
        {"scheduled_at": LATER.replace(year=2020), "queue": "other", "max_attempts": 3},
    ]
    jobs = [Job(worker=f"w{n % 3}", args={"n": n}, **kinds[n % len(kinds)]) for n in range(count)]
    jobs[0].state = JobState.SUSPENDED
    return jobs


def with_past(count: int = 9) -> list[Job]:
    """Jobs as an import has them: new ones, finished ones and some that failed once."""
    jobs = mixed(count)
    for job in jobs[1::3]:
        job.state, job.attempt, job.attempted_at, job.completed_at = JobState.COMPLETED, 1, LATER, LATER
    for job in jobs[2::3]:
        job.state, job.attempt, job.attempted_at = JobState.RETRYABLE, 1, LATER
        job.errors = [{"attempt": 1, "at": LATER.isoformat(), "error": "boom"}]
    return jobs


def shown(job: Job) -> dict[str, Any]:
    return {column: getattr(job, column) for column in TABLE.c.keys()}  # noqa: SIM118


async def rows(app: Application) -> list[dict[str, Any]]:
    """The stored rows by id, read without the ORM."""
    async with app.session() as session:
        found = await session.execute(select(TABLE).order_by(TABLE.c.id))
        return [dict(row._mapping) for row in found]


@pytest.mark.parametrize("make", [mixed, with_past])
async def test_one_statement_inserts_jobs_of_all_kinds(
    app: Application, make: Callable[[], list[Job]]
) -> None:
    jobs = make()
    async with app.session(expire_on_commit=False) as session:
        session.add(Order(customer="Ann"), *jobs)
        with recorded(app.engine) as seen:
            await session.run(lambda sync: sync.flush())
            after = [shown(job) for job in jobs]
        await session.commit()
    if is_sqlite(app.driver):
        # SQLAlchemy sends one row at a time where RETURNING promises no order.
        seen = list(set(seen))
    assert sorted(statement.split(" (")[0] for statement in seen) == INSERTS
    assert any("completed_at" in statement for statement in seen) == (make is with_past)
    assert [job.args["n"] for job in sorted(jobs, key=lambda job: job.id)] == list(range(len(jobs)))
    assert after == await rows(app)


async def test_a_job_shows_the_time_that_the_database_has_set(app: Application) -> None:
    past = datetime(2020, 2, 2, tzinfo=UTC)
    plain, moved = Job(worker="w"), Job(worker="w")
    moved.inserted_at = past
    async with app.session(expire_on_commit=False) as session:
        session.add(plain)
        session.add(moved)
        await session.commit()
    assert [shown(plain), shown(moved)] == await rows(app)
    assert (moved.inserted_at, moved.scheduled_at > past) == (past, True)


async def test_values_that_were_changed_in_place_are_stored(app: Application) -> None:
    job = Job(worker="w", args={"n": 1}, meta={"m": 1}, tags=["a"])
    job.args["deep"] = {"list": [1, {"é": None}]}
    job.meta["m"] = 2
    job.tags.append(" B ")
    async with app.session() as session:
        session.add(job)
        await session.commit()
    (row,) = await rows(app)
    assert row["args"] == {"n": 1, "deep": {"list": [1, {"é": None}]}}
    assert (row["meta"], row["tags"]) == ({"m": 2}, ["a", "b"])


@pytest.mark.parametrize("bad", [math.nan, object()], ids=["nan", "object"])
@pytest.mark.parametrize("field", ["args", "meta"])
async def test_a_job_that_is_refused_can_be_repaired_and_stored(
    app: Application, field: str, bad: object
) -> None:
    job = Job(worker="w", args={"n": 1}, meta={"m": 1})
    document = getattr(job, field)
    document["bad"] = bad
    async with app.session(expire_on_commit=False) as session:
        session.add(Job(worker="before"), job)
        with pytest.raises(EncodingError, match=f"^{field}"):
            await session.run(lambda sync: sync.flush())
        await session.rollback()
        assert "id" not in job.__dict__
        assert getattr(job, field) is document
        del document["bad"]
        session.add(job)
        await session.commit()
    assert await rows(app) == [shown(job)]


async def test_a_document_that_became_too_deep_is_refused(app: Application) -> None:
    job = Job(worker="w")
    inner = job.args
    for _ in range(150):
        inner["in"] = {}
        inner = inner["in"]
    async with app.session() as session:
        session.add(job)
        with pytest.raises(EncodingError, match="nested"):
            await session.commit()


async def test_a_job_that_was_rolled_back_can_be_enqueued(app: Application) -> None:
    job = Job(worker="w")
    async with app.session() as session:
        session.add(job)
        job.args["bad"] = object()
        with pytest.raises(EncodingError):
            await session.commit()
        await session.rollback()
    del job.args["bad"]
    await app.oban.enqueue(job)
    assert await rows(app) == [shown(job)]


async def test_a_row_without_a_time_is_due_at_once(app: Application) -> None:
    row = {"worker": "w", "scheduled_at": None}
    async with app.session() as session:
        await session.execute(insert(Job).values(row))
        await session.execute(insert(Job).values([row, {**row, "scheduled_at": LATER}]))
        await session.execute(insert(Job), [row, {**row, "scheduled_at": LATER}])
        await session.commit()
    stored = await rows(app)
    assert [row["state"] for row in stored] == ["available", *("available", "scheduled") * 2]
    assert stored[0]["scheduled_at"] == stored[0]["inserted_at"]


async def test_a_listener_of_the_application_can_set_the_time_of_an_insert(app: Application) -> None:
    past = datetime(2020, 2, 2, tzinfo=UTC)

    def backdate(_: object, __: object, job: Job) -> None:
        job.inserted_at = past

    job = Job(worker="w")
    event.listen(Job, "before_insert", backdate)
    try:
        async with app.session(expire_on_commit=False) as session:
            session.add(job)
            await session.run(lambda sync: sync.flush())
            after = await session.run(lambda _: shown(job))
            await session.commit()
    finally:
        event.remove(Job, "before_insert", backdate)
    assert [after] == await rows(app)
    assert after["inserted_at"] == past < after["scheduled_at"]


async def test_a_new_job_can_be_merged(app: Application) -> None:
    async with app.session() as session:
        merged = await session.run(lambda sync: sync.merge(Job(worker="w", args={"n": 1})))
        await session.run(lambda sync: sync.flush())
        assert merged.scheduled_at == merged.inserted_at
        again = Job(worker="w", args={"n": 2})
        again.id = merged.id
        await session.run(lambda sync: sync.merge(again))
        await session.commit()
    (row,) = await rows(app)
    assert (row["args"], row["scheduled_at"]) == ({"n": 2}, row["inserted_at"])


def test_an_insert_can_be_printed_without_a_database() -> None:
    statement = insert(Job).values(worker="w", scheduled_at=LATER)
    assert str(statement).endswith("VALUES (:state, :worker, :scheduled_at, :unique_key, :unique_rule)")


def test_a_database_that_returns_no_rows_is_asked_for_the_time_later(sqlite_factory: Factory) -> None:
    url = sqlite_factory.create()
    engine = create_engine(url.set(drivername="sqlite+pysqlite"))
    with engine.connect():
        engine.dialect.insert_returning = engine.dialect.use_insertmanyvalues = False
    job = Job(worker="w")
    with Session(engine) as session:
        session.add(job)
        session.flush()
        assert job.scheduled_at == job.inserted_at is not None
        session.rollback()
    engine.dispose()
    sqlite_factory.drop(url)


def test_a_subclass_of_job_is_inserted_like_a_job(sqlite_factory: Factory) -> None:
    class Special(Job):
        """Shares the table: single-table inheritance."""

    url = sqlite_factory.create()
    engine = create_engine(url.set(drivername="sqlite+pysqlite"))
    job = Special(worker="w", args={"n": 1})
    job.args["bad"] = math.nan
    with Session(engine) as session:
        session.add(job)
        with pytest.raises(EncodingError):
            session.flush()
        session.rollback()
        del job.args["bad"]
        session.add(job)
        session.flush()
        assert job.scheduled_at == job.inserted_at is not None
    engine.dispose()
    sqlite_factory.drop(url)


async def test_a_listener_for_all_classes_sees_when_a_new_job_is_due(app: Application) -> None:
    seen: list[bool] = []

    # Listeners of `Mapper` are called before those of a class.
    def listener(mapper: Any, connection: Any, job: Job) -> None:
        seen.append(job.__dict__["scheduled_at"] == job.inserted_at)

    event.listen(Mapper, "after_insert", listener)
    try:
        async with app.session() as session:
            for job in (Job(worker="w"), Job(worker="w", scheduled_at=LATER)):
                session.add(job)
            await session.run(lambda sync: sync.flush())
    finally:
        event.remove(Mapper, "after_insert", listener)
    assert seen == [True, False]
