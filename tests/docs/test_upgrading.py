"""`docs/guides/upgrading.md`: each cell of its tables is so, and its code changes waiting jobs as it says."""

import re
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from sqlalchemy import URL, select, text

from benchmarks.upgrade import BEFOREHAND
from oban import Job, JobState, Oban, Worker, filters, job, migration
from oban.dialects import by_name
from oban.errors import SchemaOutdated
from tests.docs.commands import commands
from tests.docs.snippets import fenced
from tests.docs.stage import Page
from tests.support.commands import invoke
from tests.support.databases import PostgreSQLFactory
from tests.support.jobs import reaches
from tests.support.processes import ROOT
from tests.support.schema import render, sync_engine, tables

PAGE = Page("guides/upgrading.md")
REVISIONS = [f"{number:04}" for number in range(1, 8)]
NEWEST = REVISIONS[-1]
LINES = [
    [cell.strip() for cell in line.split("|")]
    for line in re.findall(r"^\| (.*) \|$", PAGE.text, re.MULTILINE)
]
VERSIONS = {key: cell for key, *cells in LINES for cell in cells[:1] if len(cells) == 1}


@pytest.fixture
def postgresql(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    made = postgresql_factory.create(empty=True)
    yield made
    postgresql_factory.drop(made)


def row_of(revision: str) -> list[str]:
    """The row of the compatibility table for a revision."""
    [row] = [
        cells
        for key, *cells in LINES
        if len(cells) == 3 and re.fullmatch(r"[\d, to]+", key) and revision in covered(key)
    ]
    return row


def covered(key: str) -> list[str]:
    numbers = re.findall(r"\d{4}", key)
    if " to " in key:
        return REVISIONS[REVISIONS.index(numbers[0]) : REVISIONS.index(numbers[1]) + 1]
    return numbers


async def outdated(call: Callable[[], Awaitable[object]]) -> bool:
    try:
        await call()
    except SchemaOutdated:
        return True
    return False


@pytest.mark.parametrize("revision", REVISIONS)
async def test_each_row_of_the_table_is_so(tmp_path: Path, revision: str) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/app.db"
    migration.upgrade(url, revision=revision)
    of_node, of_client, _ = row_of(revision)
    async with Oban(url) as client:
        enqueue = await outdated(lambda: client.enqueue(Job(worker="any")))
        listing = await outdated(lambda: client.list_jobs())
        delete = await outdated(lambda: client.delete_many_jobs([1]))
    node = Oban(url, queues={"none": 1})
    start = await outdated(node.start)
    await node.stop()
    assert start == (of_node == "does not start: `SchemaOutdated`") == (revision != NEWEST)
    expected = {
        (True, True): "`enqueue` and `list_jobs` raise `SchemaOutdated`",
        (False, False): "enqueues; `delete_many_jobs` raises `SchemaOutdated`" if delete else "works",
    }
    assert of_client == expected[enqueue, listing]


async def test_code_of_this_version_works_on_tables_of_a_newer_one_but_does_not_change_them(
    tmp_path: Path,
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/app.db"
    migration.upgrade(url)
    with sync_engine(Oban(url).engine.url).begin() as connection:
        connection.execute(text("UPDATE oban_alembic_version SET version_num = '0009'"))
        connection.execute(text("ALTER TABLE oban_jobs ADD COLUMN later TEXT"))
        connection.execute(text("CREATE TABLE oban_later (id INTEGER)"))
    async with Oban(url, queues={"default": 1}) as node:
        await reaches(node, await node.enqueue(Counted.new()), JobState.COMPLETED)
    done = invoke("install", "--database-url", url)
    assert (done.exit_code, "newer version" in done.output) == (1, True)


class Counted(Worker, name="tests.Counted"):
    async def process(self, job: Job) -> None: ...


def test_each_revision_locks_what_the_page_says(postgresql: URL) -> None:
    migration.upgrade(postgresql, revision="0001")
    engine = sync_engine(postgresql)
    modes = {"SHARE": "ShareLock", "ACCESS EXCLUSIVE": "AccessExclusiveLock"}
    for revision in REVISIONS[1:]:
        [lock] = [
            cells[1]
            for key, *cells in LINES
            if len(cells) == 2 and re.fullmatch(r"[\d, ]+", key) and revision in key
        ]
        with engine.begin() as connection:
            before = tables(postgresql)
            migration.upgrade(connection, revision=revision)
            found = connection.execute(
                text(
                    "SELECT mode FROM pg_locks"
                    " WHERE relation = CAST('oban_jobs' AS regclass) AND pid = pg_backend_pid()"
                )
            )
            held = set(found.scalars())
        named = re.search("`([A-Z ]+)`", lock)
        if named is None:
            assert (lock, held) == ("none", set())
        else:
            assert modes[named[1]] in held
            assert ("AccessExclusiveLock" in held) == (named[1] == "ACCESS EXCLUSIVE")
        for table in tables(postgresql) - before:
            assert f"`{table}`" in PAGE.text


def test_the_statements_to_run_before_an_upgrade_are_those_whose_locks_are_tested() -> None:
    (block,) = fenced("docs/guides/upgrading.md", "sql")
    statements = [" ".join(statement.split()) for statement in block.split(";") if statement.strip()]
    columns, index = BEFOREHAND
    assert statements == ["SET lock_timeout = '2s'", columns, "RESET lock_timeout", index]


@PAGE.shows('migration.downgrade(database_url, revision="0004")')
def test_the_tables_go_back_and_keep_their_jobs(url: URL, snippet: Any) -> None:
    engine = sync_engine(url)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO oban_jobs (worker) VALUES ('kept')"))
    exec(snippet.compiled(), {"database_url": render(url)})
    with engine.connect() as connection:
        assert connection.execute(text("SELECT worker FROM oban_jobs")).scalars().all() == ["kept"]
        assert connection.scalar(text("SELECT version_num FROM oban_alembic_version")) == "0004"
    assert not tables(url) & {"oban_attempts", "oban_periodic", "oban_ticks", "oban_unique_keys"}


def names_of(oban: Oban) -> dict[str, Any]:
    return {
        "__name__": "app.mail",
        "oban": oban,
        "Worker": Worker,
        "Job": Job,
        "job": job,
        "Any": Any,
        "select": select,
        "filters": filters,
    }


@PAGE.shows("class SendWelcome")
async def test_jobs_of_the_old_name_and_of_the_old_args_run(
    url: URL, snippet: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Oban(url) as oban:
        names = names_of(oban)
        exec(snippet.compiled(), names)
        [change] = [each for each in PAGE.snippets if "def renamed" in each.code]
        [invoice] = [each for each in PAGE.snippets if "async def invoice" in each.code]
        PAGE.shown += [change, invoice]
        exec(invoice.compiled(), names)
        jobs = await oban.enqueue_many(
            [
                Job(worker="app.mail.Welcome", args={"mail": "ada@example.com"}),
                Job(worker="app.mail.SendWelcome", args={"address": "bob@example.com"}, schedule_in=3600),
                Job(worker="app.invoice", args={"order": 7}),
            ]
        )
        await eval(change.compiled(), names)
        assert (await oban.get_job(jobs[0].id)).args == {"address": "ada@example.com"}  # type: ignore[union-attr]
        async with Oban(url, queues={"default": 1}, name="runs") as node:
            for each in (jobs[0], jobs[2]):
                await reaches(node, each, JobState.COMPLETED)
    assert capsys.readouterr().out == "welcome, ada@example.com\n7 EUR\n"


def test_jobs_of_a_removed_worker_are_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/app.db"
    migration.upgrade(url)
    with sync_engine(Oban(url).engine.url).begin() as connection:
        for worker in ("app.mail.Newsletter", "app.mail.Newsletter", "app.mail.Other"):
            connection.execute(text(f"INSERT INTO oban_jobs (worker) VALUES ('{worker}')"))
    monkeypatch.setenv("OBAN_DATABASE_URL", url)
    upgrade, cancel = fenced("docs/guides/upgrading.md", "console")
    [_, *command] = commands("docs/guides/upgrading.md")[-1]
    assert invoke(*command).output == cancel.partition("\n")[2]
    assert [line.split()[1] for line in upgrade.splitlines()] == ["pip", "oban", "systemctl"]
    listing = re.search(r"`oban (jobs list --worker \S+)`", PAGE.text)
    assert listing is not None
    assert invoke(*listing[1].split()).exit_code == 0


def test_the_supported_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = [each.split()[-1] for each in project["classifiers"] if re.search(r"Python :: 3\.\d", each)]
    assert VERSIONS["Python"] == ", ".join(pythons)
    extras = project["optional-dependencies"]
    required = {
        (found := Requirement(each)).name: found.specifier
        for each in (*project["dependencies"], *extras["psycopg"])
    }
    for name in ("SQLAlchemy", "Alembic", "asyncpg", "psycopg", "aiosqlite"):
        oldest, _, limit = VERSIONS[name].replace(" and later", "").partition(", before ")
        wanted = f">={oldest}" + (f",<{limit}" if limit else "")
        assert required[name.lower()] == SpecifierSet(wanted)
    for name in ("PostgreSQL", "SQLite"):
        text_ = (ROOT / "docs/reference/schema.md").read_text()
        assert f"{name} {VERSIONS[name].removesuffix(' and later')}" in text_
        assert by_name(name.lower()) is not None


def test_every_snippet_is_run_by_a_test() -> None:
    kept = {each.line for each in PAGE.shown}
    others = {each.line for each in PAGE.snippets if re.search("def renamed|async def invoice", each.code)}
    assert kept | others == {each.line for each in PAGE.snippets}
