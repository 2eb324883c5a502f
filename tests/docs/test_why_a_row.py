"""The snippets of `docs/explanation/why_a_row.md` run unchanged and have the documented effect."""

from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import URL, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from oban import Cancel, Discard, Job, JobState, Oban, Worker
from tests.docs.snippets import fenced
from tests.docs.stage import Page, Snippet, Stage
from tests.support.jobs import reaches
from tests.support.rows import delete_rows, lasting_url

PAGE = Page("explanation/why_a_row.md")
(INSERT,) = fenced("docs/explanation/why_a_row.md", "sql")

pytestmark = pytest.mark.usefixtures("own_registry")


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "shop_orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[int]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture
async def stage(url: URL) -> AsyncIterator[Stage]:
    class SendReceipt(Worker, name="shop.SendReceipt"):
        async def process(self, job: Job) -> Discard | Cancel | None:
            return Discard("no such address") if job.args["order"] == 1 else None

    async with Oban(url) as oban:
        await delete_rows(oban.engine)
        async with oban.engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        stage = Stage(oban)
        stage.names |= {"engine": oban.engine, "Order": Order, "Job": Job, "select": select}
        yield Stage(oban, {**stage.names, "SendReceipt": SendReceipt, "AsyncSession": AsyncSession})


async def orders(stage: Stage) -> list[int]:
    async with AsyncSession(stage.oban.engine) as session:
        return list(await session.scalars(select(Order.id).order_by(Order.id)))


@PAGE.shows("session.add(order)")
async def test_an_order_and_its_job_are_both_there_or_neither(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    assert [job.args for job in await stage.oban.list_jobs()] == [
        {"order": id_} for id_ in await orders(stage)
    ]
    assert len(await orders(stage)) == 1

    class Refused(AsyncSession):
        async def commit(self) -> None:
            await self.rollback()
            raise ConnectionError

    stage.names["AsyncSession"] = Refused
    with pytest.raises(ConnectionError):
        await stage.run(snippet)
    assert len(await orders(stage)) == len(await stage.oban.list_jobs()) == 1


@PAGE.shows("failed = (")
async def test_a_query_joins_jobs_with_the_orders_that_they_are_about(stage: Stage, snippet: Snippet) -> None:
    for _ in range(2):
        await stage.run(PAGE.snippets[0])
    first, last = await stage.oban.list_jobs()
    async with Oban(stage.oban.engine, queues={"default": 2}) as node:
        await reaches(node, first, JobState.DISCARDED)
        await reaches(node, last, JobState.COMPLETED)
    await stage.run(snippet)
    async with AsyncSession(stage.oban.engine) as session:
        assert [order.id for order in await session.scalars(stage.names["failed"])] == [1]


async def test_a_row_that_any_program_inserts_is_a_job(stage: Stage) -> None:
    async with stage.oban.engine.begin() as connection:
        await connection.execute(text(INSERT.replace(":", r"\:")))
    (job,) = await stage.oban.list_jobs()
    assert (job.worker, job.args, job.state) == ("shop.SendReceipt", {"order": 1}, JobState.AVAILABLE)
    async with Oban(stage.oban.engine, queues={"default": 1}) as node:
        await reaches(node, job, JobState.DISCARDED)


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
