"""Every snippet of `docs/guides/relationships.md` runs unchanged and has the documented effect."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import URL, event, orm, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from oban import Job, Oban, Worker, filters
from tests.docs.stage import Page, Snippet, Stage
from tests.support.rows import delete_rows, insert_rows, lasting_url, read_rows, row
from tests.support.waiting import eventually

PAGE = Page("guides/relationships.md")
#: The snippets that define the models, and those that use them.
MODELS = [found for found in PAGE.snippets if "async with" not in found.code]
USES = [found for found in PAGE.snippets if "async with" in found.code]


class SendEmail(Worker, name="tests.SendEmail"):
    async def process(self, job: Job) -> None: ...


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """The models of the page, created once because a process can map a class only once."""

    class Base(orm.DeclarativeBase): ...

    found = {name: getattr(sqlalchemy, name) for name in ("Table", "Column", "ForeignKey", "select")}
    found |= {
        name: getattr(orm, name) for name in ("Mapped", "mapped_column", "relationship", "selectinload")
    }
    found |= {"Base": Base, "Job": Job, "filters": filters, "AsyncSession": AsyncSession}
    # SQLAlchemy resolves annotations in this module.
    found |= {"SendEmail": SendEmail, "__name__": __name__}
    for snippet in MODELS:
        exec(snippet.compiled(), found)
    return found


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture
async def stage(url: URL, names: dict[str, Any]) -> AsyncIterator[Stage]:
    """Oban on an engine that enforces foreign keys."""
    engine = create_async_engine(url)
    if url.get_backend_name() == "sqlite":
        event.listen(engine.sync_engine, "connect", enforce_foreign_keys)
    tables = names["Base"].metadata
    async with engine.begin() as connection:
        await connection.run_sync(tables.create_all)
        for table in reversed(tables.sorted_tables):
            await connection.execute(table.delete())
    await delete_rows(engine)
    async with Oban(engine, queues={"default": 5}, poll_interval=0.1) as oban:
        made = Stage(oban)
        made.names |= names | {"engine": engine}
        yield made
    await engine.dispose()


def enforce_foreign_keys(connection: Any, _: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")


def use(part: str) -> Snippet:
    (snippet,) = (found for found in USES if part in found.code)
    return snippet


async def test_a_job_that_is_appended_is_enqueued_run_shown_and_pruned(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.run(use("session.add(order)"))

    async def completed() -> bool:
        return [job.state for job in await stage.oban.list_jobs()] == ["completed"]

    await eventually(completed)
    (job,) = await stage.oban.list_jobs()
    (order_id,) = sqlalchemy.inspect(stage.names["order"]).identity
    assert job.args == {"to": "a@b.c"}
    # Works despite the attributes that relationships add to the class.
    updated = await stage.oban.update_job(job, lambda job: {"meta": {**job.meta, "seen": True}})
    assert (updated.meta, updated.attempt) == ({"seen": True}, 1)
    await insert_rows(stage.oban.engine, row("scheduled"))
    stage.names["job"] = job
    await stage.run(use("Order.jobs.any"))
    async with AsyncSession(stage.oban.engine) as session:
        order = await session.get_one(stage.names["Order"], order_id)
        # The snippet uses order 1.
        later = (await session.scalars(select(Job).where(Job.state == "scheduled"))).one()
        (await session.run_sync(lambda _: order.jobs)).append(later)
        later_id = later.id
        await session.commit()
    snippet = use("selectinload(Order.jobs)")
    await stage.run(Snippet(snippet.page, snippet.line, snippet.code.replace("== 1", f"== {order_id}")))
    assert capsys.readouterr().out.splitlines() == [
        str(order_id),
        f"{order_id} ['completed', 'scheduled']",
    ]
    found = await read_rows(stage.oban.engine)
    assert [item["state"] for item in found.values()] == ["completed", "cancelled"]
    assert await stage.oban.delete_many_jobs([job, later_id]) == 2
    async with AsyncSession(stage.oban.engine) as session:
        order = await session.get_one(stage.names["Order"], order_id)
        assert await session.run_sync(lambda _: order.jobs) == []


async def test_set_null_lets_a_job_be_deleted_and_a_foreign_key_without_it_does_not(
    stage: Stage,
) -> None:
    export = stage.names["Export"]
    job = await stage.oban.enqueue(SendEmail.new(schedule_in=60))
    async with AsyncSession(stage.oban.engine) as session:
        session.add(export(id=1, job_id=job.id))
        await session.commit()
    assert await stage.oban.delete_job(job)
    metadata = sqlalchemy.MetaData()
    keeping = sqlalchemy.Table(
        "keeping", metadata, sqlalchemy.Column("job_id", sqlalchemy.ForeignKey(Job.id), primary_key=True)
    )
    job = await stage.oban.enqueue(SendEmail.new(schedule_in=60))
    async with stage.oban.engine.begin() as connection:
        assert (await connection.execute(select(export.id, export.job_id))).all() == [(1, None)]
        await connection.run_sync(metadata.create_all)
        await connection.execute(keeping.insert(), {"job_id": job.id})
    with pytest.raises(IntegrityError):
        await stage.oban.delete_job(job)
    async with stage.oban.engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)


def loaded(_: Any, found: Any) -> list[Any]:
    return [(each.id, [job.id for job in each.jobs]) for each in found]


async def test_a_relationship_by_the_args(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    invoice = stage.names["Invoice"]
    ids = [1, 1, 2, 3, "1", None]
    jobs = await stage.oban.enqueue_many(SendEmail.new({"invoice_id": n}, schedule_in=60) for n in ids)
    async with AsyncSession(stage.oban.engine) as session:
        session.add_all([invoice(id=1), invoice(id=2), invoice(id=4)])
        await session.commit()
    expected = [(1, [jobs[0].id, jobs[1].id]), (2, [jobs[2].id]), (4, [])]
    for option in (orm.selectinload, orm.joinedload, orm.subqueryload, orm.lazyload):
        async with AsyncSession(stage.oban.engine) as session:
            statement = select(invoice).options(option(invoice.jobs)).order_by(invoice.id)
            found = (await session.scalars(statement)).unique().all()
            assert await session.run_sync(loaded, found) == expected
    await stage.run(use("Job.shop_invoice"))
    shown = sorted(zip((job.id for job in jobs), (1, 1, 2, None, None, None), strict=True))
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(f"{job} {by}" for job, by in shown)
    of_one = select(Job).join(Job.shop_invoice).where(invoice.id == 1)  # type: ignore[attr-defined]
    assert await stage.oban.cancel_many_jobs(of_one) == 2
    any_left = select(invoice.id).where(invoice.jobs.any(Job.state == "scheduled"))
    async with stage.oban.engine.connect() as connection:
        assert (await connection.execute(any_left)).scalars().all() == [2]


def test_every_snippet_is_run() -> None:
    parts = ("session.add(order)", "selectinload(Order.jobs)", "Order.jobs.any", "Job.shop_invoice")
    assert sorted(map(use, parts), key=lambda snippet: snippet.line) == USES
    assert len(MODELS) + len(USES) == len(PAGE.snippets) == 8
