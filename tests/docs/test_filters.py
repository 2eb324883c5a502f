"""Every snippet of `docs/guides/filters.md` runs unchanged and has the documented effect."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import URL, create_engine, select, text

from oban import Job, Oban, Worker, filters
from tests.docs.snippets import fenced
from tests.docs.stage import Page, Snippet, Stage
from tests.support.databases import PostgreSQLFactory, SQLiteFactory
from tests.support.rows import delete_rows, insert_rows, lasting_url, read_rows, row

PAGE = Page("guides/filters.md")


@dataclass
class ReportArgs:
    account: UUID
    day: date


class SendEmail(Worker, name="docs.SendEmail"):
    async def process(self, job: Job) -> None: ...


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture
async def stage(oban: Oban) -> Stage:
    await delete_rows(oban.engine)
    stage = Stage(oban)
    stage.names |= {"select": select, "Job": Job, "SendEmail": SendEmail, "filters": filters}
    return stage


async def states(stage: Stage) -> list[str]:
    return [found["state"] for found in (await read_rows(stage.oban.engine)).values()]


@PAGE.shows("late = ")
async def test_a_statement_selects_jobs(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row("retryable", attempt=attempt) for attempt in (3, 4)]
    ids = await insert_rows(stage.oban.engine, *rows, row())
    await stage.run(snippet)
    assert capsys.readouterr().out == f"{ids[1]} tests.Nobody\n"
    assert await states(stage) == ["retryable", "cancelled", "available"]


@PAGE.shows("everything=True")
async def test_deleting_everything_needs_confirmation(stage: Stage, snippet: Snippet) -> None:
    await insert_rows(stage.oban.engine, row(), row("executing"))
    await stage.run(snippet)
    assert await states(stage) == ["executing"]


@PAGE.shows("after=page[-1]")
async def test_jobs_are_read_page_by_page(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = await insert_rows(stage.oban.engine, *[row("retryable") for _ in range(60)], row())
    stage.names["late"] = select(Job).where(Job.state == "retryable")
    await stage.run(snippet)
    assert capsys.readouterr().out == f"{ids[:50]}\n{ids[50:60]}\n"


@PAGE.shows("oban.iterate_jobs(late")
async def test_any_number_of_jobs_is_read(stage: Stage, snippet: Snippet) -> None:
    await insert_rows(stage.oban.engine, row("retryable"), row(), row("retryable"))
    stage.names["late"] = select(Job).where(Job.state == "retryable")
    await stage.run(snippet)
    assert [found["tags"] for found in (await read_rows(stage.oban.engine)).values()] == [
        ["late"],
        [],
        ["late"],
    ]


@PAGE.shows("newest = ")
async def test_a_statement_with_a_limit_becomes_a_subquery(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = await insert_rows(stage.oban.engine, row(), row())
    await stage.run(snippet)
    assert capsys.readouterr().out == f"{ids[0]}\n{ids[1]}\n"


@PAGE.shows("from oban import filters")
async def test_filters_are_combined(stage: Stage, snippet: Snippet) -> None:
    vip: dict[str, Any] = {"worker": "docs.SendEmail", "tags": ["vip"], "args": {"customer": {"id": 7}}}
    others = [vip | {"worker": "Other"}, vip | {"tags": []}, vip | {"args": {"customer": {"id": "7"}}}]
    await insert_rows(stage.oban.engine, row(**vip), *(row(**other) for other in others))
    await stage.run(snippet)
    assert await states(stage) == ["cancelled", *["available"] * 3]


@PAGE.shows('filters.args("cc").exists()')
async def test_a_path_is_compared(stage: Stage, snippet: Snippet) -> None:
    args = {"customer": {"id": 7, "name": "Mo"}, "items": [{"sku": "A-2"}], "ids": [1, 7], "cc": None}
    both = await insert_rows(stage.oban.engine, row(args=args), row(meta={"reviewed": 1}))
    for line in snippet.code.splitlines():
        condition = eval(line, stage.names)
        assert [job.id for job in await stage.oban.list_jobs(select(Job).where(condition))] == both[:1], line


@PAGE.shows("UUID(")
async def test_a_value_of_typed_args_is_compared(stage: Stage, snippet: Snippet) -> None:
    stage.names |= {"UUID": UUID, "date": date}

    class Report(Worker[ReportArgs], name="docs.Report"):
        async def process(self, job: Job, args: ReportArgs) -> None: ...

    account = UUID("0b5f3a86-30e4-4c3a-9a67-1c8b7d1a2e01")
    wanted = await stage.oban.enqueue(Report.new(ReportArgs(account, date(2026, 1, 31))))
    await stage.oban.enqueue(Report.new(ReportArgs(uuid4(), date(2025, 12, 31))))
    for line in snippet.code.splitlines():
        condition = eval(line, stage.names)
        found = await stage.oban.list_jobs(select(Job).where(condition))
        assert [job.id for job in found] == [wanted.id], line


def test_the_table_names_every_filter() -> None:
    named = set(re.findall(r"`(\w+)\(", PAGE.text.split("| --- |")[1].split("\n\n")[0]))
    assert named == {"worker", "queue", "state", "tags", "any_tag", "args", "meta"}
    assert all(callable(getattr(filters, name)) for name in named)


async def test_the_indexes_can_be_made(postgresql_factory: PostgreSQLFactory) -> None:
    sql, _ = fenced("docs/guides/filters.md", "sql")
    url = postgresql_factory.create()
    async with Oban(url) as oban, oban.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        for statement in filter(str.strip, sql.split(";")):
            await connection.execute(text(statement))
    postgresql_factory.drop(url)


def test_the_index_of_a_path_is_used(sqlite_factory: SQLiteFactory) -> None:
    _, sql = fenced("docs/guides/filters.md", "sql")
    url = sqlite_factory.create()
    engine = create_engine(url.set(drivername="sqlite"))
    with engine.connect() as connection:
        connection.execute(text(sql))
        for value in (7, "x", True, 1.5):
            condition = filters.args("customer", "id") == value
            statement = select(Job.id).where(condition).order_by(Job.id.desc()).limit(20)
            compiled = statement.compile(engine, compile_kwargs={"literal_binds": True})
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}").all()
            assert "USING INDEX oban_jobs_customer_index" in plan[0][3]
            assert not any("ORDER BY" in step[3] for step in plan)
    engine.dispose()
    sqlite_factory.drop(url)


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
