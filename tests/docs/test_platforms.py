"""`docs/guides/platforms.md`: its processes stop in time, its URLs are accepted, its limits do no harm."""

import asyncio
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, text

from oban import Job, JobState, Oban, Worker
from oban.errors import ConfigError
from oban.notifier import listen
from oban.runner.runner import MAX_CONNECTIONS, SERVICE_CONNECTIONS
from tests.docs.commands import OBAN
from tests.docs.commands import URL as FILE
from tests.docs.snippets import fenced
from tests.docs.stage import Page
from tests.support.databases import PostgreSQLFactory
from tests.support.jobs import reaches
from tests.support.schema import run_script, sync_engine

PAGE = Page("guides/platforms.md")
[PROCFILE] = fenced("docs/guides/platforms.md", "procfile")
[LIMITS] = fenced("docs/guides/platforms.md", "sql")
PROCESSES = {
    name: shlex.split(command)
    for name, _, command in (line.partition(": ") for line in PROCFILE.splitlines())
}
#: Seconds after SIGTERM at which Heroku kills, and that a node can need after its grace period.
LIMIT, MARGIN = 30, 10
LASTING = """
import asyncio
from oban import job

@job()
async def last() -> None:
    print("started", flush=True)
    await asyncio.sleep(3600)
"""


@PAGE.shows('os.environ["DATABASE_URL"]')
def test_a_node_puts_a_long_job_back_and_ends_before_it_is_killed(tmp_path: Path, snippet: Any) -> None:
    *start, option, grace = PROCESSES["jobs"]
    assert (option, start[-1]) == ("--shutdown-grace-period", "app.jobs:oban")
    assert float(grace) + MARGIN <= LIMIT
    PAGE.says(f"waits up to {grace} seconds for those that run")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "jobs.py").write_text(snippet.code + LASTING)
    variables = {**os.environ, "DATABASE_URL": FILE, "OBAN_APP": "app.jobs:oban"}
    release = PROCESSES["release"]
    subprocess.run([*OBAN, *release[1:]], cwd=tmp_path, env=variables, check=True, capture_output=True)
    file = FILE.replace("app.db", str(tmp_path / "app.db"))
    asyncio.run(_enqueue(file, Job(worker="app.jobs.last")))
    with subprocess.Popen(
        [*OBAN, *start[1:], option, "0.5"], cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True
    ) as node:
        assert node.stdout is not None
        assert node.stdout.readline() == "started\n"
        began = time.monotonic()
        node.send_signal(signal.SIGTERM)
    assert node.returncode == 0
    assert time.monotonic() - began < MARGIN
    [job] = asyncio.run(_jobs(file))
    assert (job.state, job.attempt, job.errors) == (JobState.AVAILABLE, 0, [])


async def _enqueue(url: str, job: Job) -> None:
    async with Oban(url) as oban:
        await oban.enqueue(job)


async def _jobs(url: str) -> list[Job]:
    async with Oban(url) as oban:
        return await oban.list_jobs()


async def test_the_urls_of_providers_are_accepted(tmp_path: Path) -> None:
    block = next(each for each in fenced("docs/guides/platforms.md", "text") if "sslmode" in each)
    authority = tmp_path / "ca.pem"
    authority.touch()
    for line in block.splitlines():
        oban = Oban(line.replace("/etc/ssl/provider-ca.pem", str(authority)))
        driver = "psycopg" if "+psycopg" in line else "asyncpg"
        assert (oban.engine.driver, oban.engine.url.host) == (driver, "db.example.com")
        await oban.engine.dispose()
    PAGE.says("`//db1,db2/shop?target_session_attrs=primary`")
    await Oban("postgresql://db1,db2/shop?target_session_attrs=primary").engine.dispose()
    with pytest.raises(ConfigError, match=r"channel_binding=require.*postgresql\+psycopg"):
        Oban("postgresql://db.example.com/shop?sslmode=require&channel_binding=require")


@PAGE.shows('os.environ["POOLED_URL"]')
async def test_a_node_listens_past_the_pooler(snippet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLED_URL", "postgres://shop@db-pooler.example.com/shop")
    monkeypatch.setenv("DIRECT_URL", "postgres://shop@db.example.com/shop")
    names: dict[str, Any] = {"os": os, "Oban": Oban}
    exec(snippet.compiled(), names)
    oban = names["oban"]
    assert oban.engine.url.host == "db-pooler.example.com"
    assert "db.example.com" in str(oban.options.listen_url)
    await oban.engine.dispose()


class Stock(Worker, name="tests.Stock"):
    """Uses a session, with the limits of its role."""

    limit = ""

    async def process(self, job: Job, session: Any) -> None:
        Stock.limit = await session.scalar(text("SHOW statement_timeout"))


@pytest.fixture
def limited(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """A database with the tables, through the role of the page, with its limits."""
    url = postgresql_factory.create()
    run_script(url, "CREATE ROLE shop LOGIN")
    run_script(url, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO shop")
    run_script(url, LIMITS)
    yield url.set(username="shop")
    run_script(url, "DROP OWNED BY shop")
    run_script(url, "DROP ROLE shop")
    postgresql_factory.drop(url)


async def test_a_node_runs_with_the_limits_of_its_role_and_without_extensions(
    limited: URL, caplog: pytest.LogCaptureFixture
) -> None:
    async with Oban(limited, queues={"default": 1}) as node:
        await reaches(node, await node.enqueue(Stock.new()), JobState.COMPLETED)
    assert Stock.limit == "30s"
    assert [each.getMessage() for each in caplog.records if each.levelname in ("WARNING", "ERROR")] == []
    with sync_engine(limited).connect() as connection:
        assert connection.execute(text("SELECT extname FROM pg_extension")).scalars().all() == ["plpgsql"]
    PAGE.says(f"Its listening connection is used every {listen.KEEPALIVE_INTERVAL:g} seconds")


async def test_a_process_that_only_enqueues_does_nothing_in_between(url: URL) -> None:
    threads = threading.active_count()
    async with Oban(url) as client:
        await client.enqueue(Stock.new())
        assert asyncio.all_tasks() == {asyncio.current_task()}
    # Drivers have threads of their own, such as that of a connection to SQLite.
    assert url.get_backend_name() == "sqlite" or threading.active_count() == threads


def test_the_number_of_connections_is_that_of_the_page() -> None:
    used = min(2 * 2 + SERVICE_CONNECTIONS, MAX_CONNECTIONS) + 2
    assert used == 8
    PAGE.says("a node with two queues uses up to eight of its own")


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
