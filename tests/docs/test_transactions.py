"""Every snippet of `docs/guides/transactions.md` runs unchanged and has the documented effect."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from oban import Job, JobState, Oban, Record, SyncOban, Worker
from oban.errors import ConfigError, WouldDeadlock
from oban.job_function import job as function_worker
from tests.docs.stage import Page, Snippet, Stage
from tests.support.databases import PostgreSQLFactory
from tests.support.jobs import reaches
from tests.support.rows import delete_rows, lasting_url

PAGE = Page("guides/transactions.md")


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "shop_orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    total: Mapped[int]
    number: Mapped[str | None]
    invoiced: Mapped[bool] = mapped_column(default=False)
    closed: Mapped[bool] = mapped_column(default=False)


class Invoice(Base):
    __tablename__ = "shop_invoices"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(unique=True)
    total: Mapped[int]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture
async def stage(url: URL) -> AsyncIterator[Stage]:
    """A running node with three orders in the database."""
    async with Oban(url, queues={"default": 5}, shutdown_grace_period=0.5) as oban:
        await delete_rows(oban.engine)
        async with oban.engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        stage = Stage(oban)
        names = (Order, Invoice, Job, Record, AsyncSession, Session, IntegrityError, select, update)
        stage.names |= {made.__name__: made for made in names}
        async with AsyncSession(oban.engine) as session:
            session.add_all(Order(total=10 * number) for number in (1, 2, 3))
            await session.commit()
        yield stage


async def run(stage: Stage, name: str, args: dict[str, Any], state: JobState = JobState.COMPLETED) -> Job:
    made: type[Worker] = stage.names[name]
    return await reaches(stage.oban, await stage.oban.enqueue(made.new(args)), state)


async def all_of(stage: Stage, column: Any) -> list[Any]:
    async with AsyncSession(stage.oban.engine) as session:
        return sorted(await session.scalars(select(column)))


@PAGE.shows("class SendInvoice(")
async def test_the_writes_of_a_job_are_committed_with_its_completion(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    await run(stage, "SendInvoice", {"order_id": 2})
    assert await all_of(stage, Invoice.total) == [20]
    assert await all_of(stage, Order.invoiced) == [False, False, True]
    # The constraint refuses the second job at the commit, after `process` has returned.
    failed = await run(stage, "SendInvoice", {"order_id": 2}, JobState.RETRYABLE)
    assert "IntegrityError" in failed.errors[0]["error"]
    assert await all_of(stage, Invoice.total) == [20]


@PAGE.shows("class CloseMonth(")
async def test_a_plain_process_gets_a_sync_session(stage: Stage, snippet: Snippet) -> None:
    async with AsyncSession(stage.oban.engine) as session:
        await session.execute(update(Order).where(Order.id < 3).values(invoiced=True))
        await session.commit()
    await stage.run(snippet)
    row = await run(stage, "CloseMonth", {})
    assert row.meta["return"] == 2
    assert await all_of(stage, Order.closed) == [False, True, True]


@PAGE.shows("class Import(")
async def test_a_savepoint_lets_a_job_continue_after_an_error(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    await run(stage, "Import", {"numbers": [3, 4, 5, 4]})
    assert await all_of(stage, Order.id) == [1, 2, 3, 4, 5]


@PAGE.shows("class Checkout(")
async def test_no_link_of_a_chain_is_lost_or_duplicated(stage: Stage, snippet: Snippet) -> None:
    await stage.run(PAGE.snippets[0])
    await stage.run(snippet)
    await run(stage, "Checkout", {"total": 7})
    _, last = await stage.oban.list_jobs()
    await reaches(stage.oban, last, JobState.COMPLETED)
    assert await all_of(stage, Invoice.total) == [7]
    # An order without a total cannot be stored, so its job is not enqueued either.
    await run(stage, "Checkout", {"total": None}, JobState.RETRYABLE)
    assert len(await stage.oban.list_jobs()) == 3


@PAGE.shows("class Renumber(")
async def test_a_commit_inside_process_is_stored(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    await run(stage, "Renumber", {})
    assert await all_of(stage, Order.number) == ["2024-1", "2024-2", "2024-3"]


@PAGE.shows("SET LOCAL oban.notify")
def test_a_listener_lets_sessions_prepare_inserted_jobs(
    postgresql_factory: PostgreSQLFactory, snippet: Snippet
) -> None:
    # In a session class of this test, so that the listener does not stay for other tests.
    class TwoPhaseSession(Session):
        pass

    url = postgresql_factory.create()
    # After a PREPARE that was refused, SQLAlchemy cannot roll back with psycopg.
    engine = create_engine(url.set(drivername="postgresql+psycopg2"))
    with TwoPhaseSession(engine, twophase=True) as session:
        if session.scalar(text("SHOW max_prepared_transactions")) == "0":
            pytest.skip("the server has max_prepared_transactions = 0")
        session.rollback()
        session.execute(insert(Job).values(worker="tests.Any"))
        with pytest.raises(DBAPIError, match="cannot PREPARE"):
            session.commit()
        session.rollback()
        exec(snippet.compiled(), {"Session": TwoPhaseSession})
        session.execute(insert(Job).values(worker="tests.Any"))
        session.commit()
    with SyncOban(engine) as oban:
        assert [job.worker for job in oban.list_jobs()] == ["tests.Any"]
    engine.dispose()
    postgresql_factory.drop(url)


async def test_enqueueing_outside_the_session_is_refused_on_sqlite(stage: Stage) -> None:
    PAGE.says(
        "Enqueueing **without** `session=` in a job whose session has written would wait for the job itself"
    )
    oban, raised = stage.oban, []

    class Past(Worker):
        async def process(self, job: Job, session: AsyncSession) -> None:
            session.add(Order(total=1))
            await session.flush()
            try:
                await oban.enqueue(Past.new(schedule_in=60))
            except WouldDeadlock as error:
                raised.append(error)

    stage.names["Past"] = Past
    await run(stage, "Past", {})
    assert bool(raised) == (oban.engine.dialect.name == "sqlite")


def test_a_session_is_refused_in_child_processes_and_functions() -> None:
    PAGE.says('`executor="process"` with a session raises `ConfigError` where the class is defined')
    with pytest.raises(ConfigError):

        class InProcess(Worker, executor="process"):
            def process(self, job: Job, session: Session) -> None:
                pass

    PAGE.says("So does a function under `@job` with a parameter `session`")
    with pytest.raises(
        ConfigError, match=r"function cannot have a parameter session: .* write a Worker class"
    ):

        @function_worker()
        def function(session: str) -> None:
            pass


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
