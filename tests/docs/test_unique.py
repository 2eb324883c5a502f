"""Every snippet of `docs/guides/unique.md` runs unchanged and has the documented effect."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, JobState, Oban, UniqueConflict, Worker, job
from oban.unique_options import GROUPS
from tests.docs.stage import Page, Snippet, Stage
from tests.support.rows import delete_rows, lasting_url

PAGE = Page("guides/unique.md")

pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture
async def stage(oban: Oban) -> Stage:
    await delete_rows(oban.engine)
    stage = Stage(oban)
    stage.names |= {
        "__name__": "app",
        "AsyncSession": AsyncSession,
        "Job": Job,
        "UniqueConflict": UniqueConflict,
        "Worker": Worker,
        "job": job,
        "text": text,
        "timedelta": timedelta,
    }
    return stage


def containing(part: str) -> Snippet:
    (snippet,) = (snippet for snippet in PAGE.snippets if part in snippet.code)
    return snippet


#: A part of each snippet that prints something, and what it prints.
PRINTED = {
    "class Welcome": "True False True",
    "async def send_invoice": "False False",
    "class Sync": "True False",
    '"search.Rebuild"': "False",
    "class Import": "True a.csv False",
    "class Thumbnail": "[False, False, True] True",
}


@PAGE.shows(*PRINTED)
async def test_a_snippet_prints_what_it_explains(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.run(snippet)
    (expected,) = (printed for part, printed in PRINTED.items() if part in snippet.code)
    assert capsys.readouterr().out == f"{expected}\n"


async def test_the_existing_job_is_found_until_it_is_cancelled(stage: Stage) -> None:
    await stage.run(containing("class Welcome"))
    first, welcome = stage.names["first"], stage.names["Welcome"]
    await stage.oban.cancel_job(first)
    assert not (await welcome.enqueue({"user": 7})).conflict


async def test_a_default_is_compared_only_if_it_is_stored(stage: Stage) -> None:
    @dataclass
    class Args:
        to: str
        subject: str = "Hi"

    class Typed(Worker[Args], unique=True):
        async def process(self, job: Job) -> None: ...

    @job(unique=True)
    async def send(to: str, subject: str = "Hi") -> None: ...

    PAGE.says('`send("a")` and `send("a", subject="Hi")` differ even if "Hi" is the default.')
    assert [(await send.enqueue("a")).conflict, (await send.enqueue("a", subject="Hi")).conflict] == [
        False
    ] * 2
    assert (await send.enqueue(to="a")).conflict
    assert not (await Typed.enqueue(Args("a"))).conflict
    assert (await Typed.enqueue(Args("a", subject="Hi"))).conflict


@PAGE.shows("invoice = await oban.enqueue")
async def test_a_session_gets_the_existing_job(stage: Stage, snippet: Snippet) -> None:
    await stage.run(containing("class Welcome"))
    await stage.run(snippet)
    first = stage.names["invoice"]
    assert not first.conflict
    await stage.run(snippet)
    assert (stage.names["invoice"].id, stage.names["invoice"].conflict) == (first.id, True)


@PAGE.shows("except UniqueConflict")
async def test_a_conflict_of_a_flush_is_an_error(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.run(containing("class Welcome"))
    await stage.run(containing("invoice = await oban.enqueue"))
    capsys.readouterr()
    await stage.run(snippet)
    assert capsys.readouterr().out == "there already: True\n"


@PAGE.shows("oban.retry_job(old)")
async def test_a_retry_that_would_leave_two_changes_nothing(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.run(containing("class Sync"))
    await stage.oban.cancel_job(stage.names["next_one"])
    capsys.readouterr()
    await stage.run(snippet)
    assert capsys.readouterr().out == "False\n"
    assert not stage.names["new"].conflict
    assert (await stage.job(stage.names["old"].id)).state == JobState.CANCELLED


@PAGE.shows("SET LOCAL lock_timeout")
async def test_the_wait_for_another_transaction_can_be_limited(stage: Stage, snippet: Snippet) -> None:
    if stage.oban.engine.dialect.name == "sqlite":
        PAGE.says("On SQLite, one transaction writes at a time")
        return
    await stage.run(containing("class Welcome"))
    async with AsyncSession(stage.oban.engine) as session:
        await stage.oban.enqueue(stage.names["Welcome"].new({"user": 9}), session=session)
        with pytest.raises(DBAPIError, match="lock timeout"):
            await asyncio.wait_for(stage.run(snippet), 10)
        await session.rollback()
    await stage.run(snippet)
    assert [job.args for job in await stage.oban.list_jobs() if job.args["user"] == 9] == [{"user": 9}]


def test_the_table_of_groups_is_that_of_the_library() -> None:
    lines = [line[1:-1].split("|") for line in PAGE.text.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line] for line in lines if len(line) > 7]
    header = next(row for row in rows if row[0] == "group")
    table = {row[0].partition('"')[2].partition('"')[0]: row for row in rows if row[0].startswith("`")}
    marked = {
        name: {state for state, cell in zip(header[1:], row[1:], strict=False) if cell}
        for name, row in table.items()
    }
    assert marked == {name: {*states} for name, states in GROUPS.items()}


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
