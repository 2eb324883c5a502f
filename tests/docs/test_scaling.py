"""What `docs/guides/scaling.md` shows runs; reads run on a standby server, and changes are refused there."""

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from oban import Job, Oban, Retention, Worker
from oban.cli import main
from oban.errors import DatabaseUnavailable
from oban.runner import runner
from tests.docs.commands import commands
from tests.docs.explained import check_benchmark
from tests.docs.snippets import fenced
from tests.docs.stage import Page, Snippet, Stage
from tests.support.database_server import Server
from tests.support.databases import PostgreSQLFactory, SQLiteFactory
from tests.support.rows import insert_rows, row

PAGE = Page("guides/scaling.md")
(ARCHIVE,) = fenced("docs/guides/scaling.md", "sql")

pytestmark = pytest.mark.usefixtures("own_registry")

Call = Callable[[Oban, AsyncSession], Awaitable[Any]]


async def iterated(oban: Oban, session: AsyncSession) -> list[int | None]:
    return [job.id async for job in oban.iterate_jobs(select(Job), session=session)]


#: The calls that the page says work on a replica, with a session of it.
READS: dict[str, Call] = {
    "get_job": lambda oban, session: oban.get_job(1, session=session),
    "list_jobs": lambda oban, session: oban.list_jobs(session=session),
    "iterate_jobs": iterated,
    "list_attempts": lambda oban, session: oban.list_attempts(1, session=session),
    "list_periodic": lambda oban, session: oban.list_periodic(session=session),
    "list_nodes": lambda oban, session: oban.list_nodes(session=session),
    "check_cluster": lambda oban, session: oban.check_cluster(session=session),
    "stats": lambda oban, session: oban.stats(session=session),
    "why": lambda oban, session: oban.why(1, session=session),
}
#: Those that work with a client of the replica.
CLIENT: dict[str, Callable[[Oban], Awaitable[Any]]] = {
    "health": lambda oban: oban.health(),
    "wait": lambda oban: oban.wait(1, timeout=1),
    "wait_until_empty": lambda oban: oban.wait_until_empty("empty", timeout=1),
}
WRITES: dict[str, Call] = {
    "enqueue": lambda oban, session: oban.enqueue(Job(worker="tests.Any"), session=session),
    "cancel": lambda oban, session: oban.cancel_job(1, session=session),
    "retry": lambda oban, session: oban.retry_job(1, session=session),
    "update": lambda oban, session: oban.update_job(1, {"priority": 1}, session=session),
    "delete": lambda oban, session: oban.delete_job(1, session=session),
    "pause": lambda oban, session: oban.pause_queue("default", session=session),
}


async def check_replica(primary: URL, replica: URL, snippet: Snippet) -> None:
    """Read everything on a replica of a database with one discarded job; no change is possible there."""
    engine = create_async_engine(replica)
    oban, client = Oban(primary), Oban(engine)
    stage = Stage(oban)
    stage.names |= {"replica_engine": engine, "async_sessionmaker": async_sessionmaker}
    stage.names |= {"select": select, "Job": Job}
    await stage.run(snippet)
    assert [job.id for job in stage.names["failed"]] == [1]
    assert stage.names["stats"].counts["discarded"] == 1
    table = PAGE.text.partition("| on a replica |")[2].partition("\n\n")[0]
    lines = [line.split("|")[1:3] for line in table.splitlines()[2:]]
    for (names, works), calls in zip(lines, ([*READS], [*CLIENT]), strict=False):
        assert re.findall(r"`(\w+)`", names) == calls
        assert works.startswith(" yes")
    for read in READS.values():
        async with AsyncSession(engine) as session:
            with_session = await read(oban, session)
        async with AsyncSession(engine) as session:
            assert type(await read(client, session)) is type(with_session)
    for ask in CLIENT.values():
        await ask(client)
    for write in WRITES.values():
        async with AsyncSession(engine) as session:
            with pytest.raises(DBAPIError, match="read-only transaction"):
                await write(oban, session)
    node = Oban(engine, queues={"default": 1}, notifier="poll")
    with pytest.raises(DatabaseUnavailable, match="read-only transaction"):
        await node.start()
    await node.stop()
    await engine.dispose()


@PAGE.shows("replicas = async_sessionmaker")
async def test_everything_that_reads_works_in_read_only_transactions(
    postgresql_factory: PostgreSQLFactory, snippet: Snippet
) -> None:
    url = postgresql_factory.create()
    oban = Oban(url)
    await insert_rows(oban.engine, row("discarded", id=1))
    await oban.stop()
    settings = "-c default_transaction_read_only=on"
    readable = url.set(drivername="postgresql+psycopg").update_query_dict({"options": settings})
    await check_replica(url, readable, snippet)
    postgresql_factory.drop(url)


@pytest.mark.slow
async def test_everything_that_reads_works_on_a_hot_standby() -> None:
    (snippet,) = (each for each in PAGE.snippets if "replicas = async_sessionmaker" in each.code)
    with Server() as server:
        url = server.create()
        oban = Oban(url)
        await insert_rows(oban.engine, row("discarded", id=1))
        await oban.stop()
        await oban.engine.dispose()
        server.stop()
        (server.wheel.pgdata / "standby.signal").touch()
        server.start()
        engine = create_engine(url.set(drivername="postgresql+psycopg"))
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT pg_is_in_recovery()")) is True
        engine.dispose()
        await check_replica(url, url, snippet)


@PAGE.shows("retention=Retention(")
def test_the_retention_of_the_page_has_an_exception(snippet: Snippet) -> None:
    names = {"Oban": Oban, "Retention": Retention, "timedelta": timedelta, "engine": "sqlite+aiosqlite://"}
    exec(snippet.compiled(), names)
    oban = names["oban"]
    assert isinstance(oban, Oban)
    assert oban.options.retention.completed == 6 * 3600
    assert oban.options.retention.queues["events"].completed == 600
    assert oban.options.prune_interval == 30
    assert oban.options.retention.limit == 10_000


async def test_finished_jobs_are_copied_once(postgresql_factory: PostgreSQLFactory) -> None:
    url = postgresql_factory.create(empty=False)
    oban = Oban(url)
    await insert_rows(oban.engine, row("completed", id=1), row("available", id=2), row("cancelled", id=3))
    create, copy = (part for part in ARCHIVE.split(";") if part.strip())
    async with oban.engine.begin() as connection:
        await connection.execute(text(create))
        for _ in range(2):
            await connection.execute(text(copy))
        found = await connection.scalars(text("SELECT id FROM finished_jobs ORDER BY id"))
        assert list(found) == [1, 3]
        await connection.execute(text("DROP TABLE finished_jobs"))
    await oban.engine.dispose()
    postgresql_factory.drop(url)


@PAGE.shows('oban="reports"')
async def test_one_process_runs_the_jobs_of_two_databases(
    sqlite_factory: SQLiteFactory, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    urls = [sqlite_factory.create() for _ in range(2)]
    stage = Stage(Oban(urls[0]))
    stage.names |= {"Oban": Oban, "Worker": Worker, "shop_engine": urls[0], "reports_engine": urls[1]}
    await stage.run(snippet)
    (printed,) = fenced("docs/guides/scaling.md", "text")
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(printed.splitlines())
    for url in urls:
        assert len(await Oban(url).list_jobs()) == 1
        sqlite_factory.drop(url)


def test_the_commands_of_the_page_have_these_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users.txt").write_text("ada:secret\n")
    for words in commands("docs/guides/scaling.md"):
        if words[0] == "oban":
            assert main.commands[words[1]].make_context(words[1], words[2:]).params
        else:
            check_benchmark(words[2:])


def test_the_connections_of_the_page_match_the_code() -> None:
    page = " ".join(PAGE.text.split())
    assert f"2N + {runner.SERVICE_CONNECTIONS}, up to {runner.MAX_CONNECTIONS}," in page


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
