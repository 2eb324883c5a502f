"""The workers of `docs/explanation/delivery.md` are interrupted after their effect, and run again."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import URL, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from oban import Discard, Job, JobState, Oban, Worker
from tests.docs.explained import missing_files
from tests.docs.stage import Page, Snippet, Stage
from tests.support.jobs import reaches
from tests.support.rows import delete_rows, lasting_url
from tests.support.waiting import within

PAGE = Page("explanation/delivery.md")

pytestmark = pytest.mark.usefixtures("own_registry")


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "shop_accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int]


class Sent(Base):
    __tablename__ = "shop_sent"
    order: Mapped[int] = mapped_column(primary_key=True)


class Outside:
    """Another system. Its first call does not return: the job is interrupted after the effect."""

    def __init__(self) -> None:
        self.effects: list[Any] = []
        self.called = asyncio.Event()

    async def send(self, *effect: Any) -> None:
        self.effects.append(effect)
        if not self.called.is_set():
            self.called.set()
            await asyncio.Event().wait()

    async def charge(self, amount: int, idempotency_key: str) -> None:
        if (idempotency_key, amount) not in self.effects:
            await self.send(idempotency_key, amount)

    launch = send


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture
async def stage(url: URL) -> AsyncIterator[Stage]:
    """A node that puts jobs back as soon as it stops."""
    oban = Oban(url, queues={"default": 5}, shutdown_grace_period=0)
    await delete_rows(oban.engine)
    async with oban.engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(oban.engine) as session:
        session.add(Account(id=1, balance=100))
        await session.commit()
    stage = Stage(oban)
    stage.names |= {
        "Account": Account,
        "Sent": Sent,
        "Discard": Discard,
        "asyncio": asyncio,
        "update": update,
    }
    yield stage
    await oban.stop()


async def interrupted(stage: Stage, worker: type[Worker], args: dict[str, Any], state: JobState) -> Job:
    """The job, after a node was stopped once the effect had happened, and another one was started."""
    outside: Outside = stage.names["outside"]
    job = await stage.oban.enqueue(worker.new(args))
    async with stage.oban:
        await within(outside.called.wait())
    async with stage.oban:
        return await reaches(stage.oban, job, state)


@pytest.fixture
def outside(stage: Stage) -> Outside:
    outside = Outside()
    stage.names |= dict.fromkeys(("outside", "mail", "payments", "rocket"), outside)
    return outside


@PAGE.shows("class SendReceipt(")
async def test_an_effect_elsewhere_is_repeated(stage: Stage, outside: Outside, snippet: Snippet) -> None:
    await stage.run(snippet)
    args = {"to": "ada@example.com", "order": 7}
    await interrupted(stage, stage.names["SendReceipt"], args, JobState.COMPLETED)
    assert outside.effects == [("ada@example.com", "Receipt for order 7")] * 2


@PAGE.shows("class PayOut(")
async def test_what_a_job_writes_with_its_session_is_stored_once(
    stage: Stage, outside: Outside, snippet: Snippet
) -> None:
    await stage.run(snippet)

    # Interrupted after the update, before the commit.
    class Interrupted(stage.names["PayOut"]):  # type: ignore[misc, name-defined]
        async def process(self, job: Job, session: AsyncSession) -> None:
            await super().process(job, session)
            await outside.send()

    job = await interrupted(stage, Interrupted, {"account": 1, "amount": 30}, JobState.COMPLETED)
    assert (len(outside.effects), job.attempt) == (2, 1)
    async with AsyncSession(stage.oban.engine) as session:
        account = await session.get(Account, 1)
        assert account is not None
        assert account.balance == 70


@PAGE.shows("class Charge(")
async def test_an_idempotency_key_lets_the_other_side_drop_the_second_effect(
    stage: Stage, outside: Outside, snippet: Snippet
) -> None:
    await stage.run(snippet)
    await interrupted(stage, stage.names["Charge"], {"order": 7, "amount": 30}, JobState.COMPLETED)
    assert outside.effects == [("order-7", 30)]


@PAGE.shows("class SendOnce(")
async def test_a_note_keeps_another_job_from_repeating_the_effect(
    stage: Stage, outside: Outside, snippet: Snippet
) -> None:
    await stage.run(snippet)
    args = {"to": "ada@example.com", "order": 7}
    # The node stops between the mail and the commit of the note.
    await interrupted(stage, stage.names["SendOnce"], args, JobState.COMPLETED)
    assert len(outside.effects) == 2
    async with stage.oban as oban:
        await reaches(oban, await oban.enqueue(stage.names["SendOnce"].new(args)), JobState.COMPLETED)
    assert len(outside.effects) == 2


@PAGE.shows("class Launch(")
async def test_a_job_of_one_attempt_is_not_repeated_when_its_node_stops(
    stage: Stage, outside: Outside, snippet: Snippet
) -> None:
    await stage.run(snippet)
    job = await interrupted(stage, stage.names["Launch"], {"pad": "39A"}, JobState.DISCARDED)
    assert "look at the pad" in job.errors[0]["error"]
    assert outside.effects == [("39A",)]


async def test_one_attempt_alone_does_not_keep_a_node_that_stops_from_putting_the_job_back(
    stage: Stage, outside: Outside
) -> None:
    PAGE.says("Without the `except`, the attempt would not count, and the job would start again elsewhere.")

    class Once(Worker, max_attempts=1):
        async def process(self, job: Job) -> None:
            await outside.launch()

    job = await interrupted(stage, Once, {}, JobState.COMPLETED)
    assert (len(outside.effects), job.attempt) == (2, 1)


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets


def test_the_tests_that_the_page_names_exist() -> None:
    assert missing_files(PAGE.text) == []
