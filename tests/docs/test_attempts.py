"""The snippets of `docs/guides/attempts.md` run unchanged."""

import re
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, select, text

from oban import Job, Oban
from oban.models import Attempt
from oban.repository import acknowledge, fetch
from oban.repository.acknowledge import OUTCOMES, Ack
from tests.docs.snippets import fenced
from tests.docs.stage import Page, Snippet, Stage
from tests.support.databases import PostgreSQLFactory, SQLiteFactory
from tests.support.internals import database_of

PAGE = Page("guides/attempts.md")
OWNER = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
async def stage(sqlite_factory: SQLiteFactory) -> AsyncIterator[Stage]:
    url = sqlite_factory.create()
    async with Oban(url) as oban:
        stage = Stage(oban)
        stage.names |= {"Job": Job, "Attempt": Attempt, "select": select, "func": func}
        yield stage
    sqlite_factory.drop(url)


async def failed(oban: Oban) -> Job:
    """A job with two attempts."""
    job = await oban.enqueue(Job(worker="app.Report"))
    database = database_of(oban)
    for outcome, error in (("failed", "ValueError: bad"), ("completed", None)):
        (claimed,) = await database.write(fetch.fetch, "default", 1, "node-1", OWNER)
        ack = Ack(claimed.id, claimed.attempt, OWNER, outcome, error=error)
        await database.write(acknowledge.acknowledge, [ack])
        await oban.retry_job(job)
    return job


@PAGE.shows("list_attempts")
async def test_attempts_are_printed(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.names["job"] = await failed(stage.oban)
    await stage.run(snippet)
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"1 failed node-1 0:00:0\d[.\d]* ValueError: bad", first)
    assert re.fullmatch(r"2 completed node-1 0:00:0\d[.\d]* None", second)


@PAGE.shows("failures = ")
async def test_failures_are_counted_by_worker(stage: Stage, snippet: Snippet) -> None:
    await failed(stage.oban)
    await stage.run(snippet)
    async with stage.oban.engine.connect() as connection:
        ((worker, count, last),) = (await connection.execute(stage.names["failures"])).all()
    assert (worker, count) == ("app.Report", 1)
    assert last is not None


async def test_the_statements_about_indexes_run(postgresql_factory: PostgreSQLFactory) -> None:
    url = postgresql_factory.create()
    (create,) = fenced("docs/guides/attempts.md", "sql")
    reindex = "REINDEX INDEX CONCURRENTLY oban_attempts_job_id_index"
    PAGE.says(reindex)
    async with Oban(url) as oban, oban.engine.connect() as connection:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in (create, reindex):
            await connection.execute(text(statement))
        assert len(await oban.list_attempts(await failed(oban))) == 2
    postgresql_factory.drop(url)


def test_every_outcome_and_column_has_a_row() -> None:
    rows = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE.text, re.MULTILINE))))
    assert rows == {*OUTCOMES, *Attempt.__table__.columns.keys()}


def test_every_snippet_runs() -> None:
    assert PAGE.shown == PAGE.snippets
