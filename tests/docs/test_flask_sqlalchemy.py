"""The application of `docs/frameworks/flask_sqlalchemy.md` is migrated and runs jobs as the page says."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import URL, Engine, StaticPool, create_engine, text

from oban import Cancel, Job, JobState, Oban, Worker, migration
from tests.docs.commands import OBAN, commands
from tests.docs.snippets import fenced
from tests.support.databases import PostgreSQLFactory, SQLiteFactory
from tests.support.jobs import reaches
from tests.support.options import FAST_POLLING
from tests.support.processes import ROOT

PAGE = "docs/frameworks/flask_sqlalchemy.md"
#: The replacement of a function in `env.py`, and the application.
[GET_METADATA] = [block for block in fenced(PAGE, "python") if "def get_metadata" in block]
APPLICATION = "\n\n".join(block for block in fenced(PAGE, "python") if block != GET_METADATA)
#: Runs commands of Flask, given as JSON, in one process. The first one writes `env.py`, which is edited then.
RUN = """
import json, pathlib, re, sys
from flask.cli import cli

commands, get_metadata = json.loads(sys.argv[1])
env = pathlib.Path("migrations/env.py")
for command in commands:
    cli.main(command, standalone_mode=False)
    if command[1] == "init":
        function = re.compile(r"def get_metadata.*?(?=\\n\\n\\n)", re.DOTALL)
        written, count = function.subn(get_metadata.strip(), env.read_text())
        assert count == 1
        env.write_text(written)
"""


def load(url: URL) -> ModuleType:
    """The page as a module, on a database."""
    module = ModuleType("flask_page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
        # SQLAlchemy looks up the names in annotations there.
        patch.setitem(sys.modules, module.__name__, module)
        exec(compile(APPLICATION, PAGE, "exec"), module.__dict__)
        module.__dict__["app"] = module.create_app()
    return module


@pytest.fixture(scope="module")
def sqlite_url(sqlite_factory: SQLiteFactory) -> Iterator[URL]:
    url = sqlite_factory.create()
    yield url.set(drivername="sqlite")
    sqlite_factory.drop(url)


@pytest.fixture(scope="module")
def postgresql_url(psycopg_factory: PostgreSQLFactory) -> Iterator[URL]:
    url = psycopg_factory.create()
    yield url
    psycopg_factory.drop(url)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def page(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The application of the page on a database with all tables, once for all tests of this module."""
    module = load(request.getfixturevalue(f"{request.param}_url"))
    with module.app.app_context():
        module.db.create_all()
    yield module
    with module.app.app_context():
        module.db.session.remove()
        module.db.engine.dispose()
    module.engine.dispose()


@pytest.fixture
async def oban(page: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Oban]:
    """What `oban start` runs, which makes an application of its own."""
    monkeypatch.setattr(page, "create_app", lambda: page.app)
    made: Oban = page.create_oban()
    yield made
    await made.stop()


def test_flask_migrate_creates_all_tables_and_a_node_starts_on_them(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    variables = {**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path}/app.db", "FLASK_APP": "app:create_app"}
    *flask, start = commands(PAGE)
    assert {words[0] for words in flask} == {"flask"}
    every = [*(words[1:] for words in flask), ["db", "check"]]
    migrated = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps([every, GET_METADATA])],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert migrated.returncode == 0, migrated.stderr
    assert "No new upgrade operations detected" in migrated.stdout
    [revision] = (tmp_path / "migrations" / "versions").glob("*.py")
    line = re.search(r"`(oban\.migration\.upgrade\(.*?\))`", (ROOT / PAGE).read_text())
    assert line is not None
    assert line[1] in revision.read_text()
    with subprocess.Popen(
        [*OBAN, *start[1:]], cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True
    ) as node:
        assert node.stderr is not None
        printed = []
        for printed_line in node.stderr:
            printed.append(printed_line)
            if "runs default:5" in printed_line:
                node.send_signal(signal.SIGTERM)
    assert node.returncode == 0, printed


async def test_the_job_of_a_request_confirms_the_order(page: Any, oban: Oban) -> None:
    order = page.app.test_client().post("/orders", json={"address": "a@b.c"}).get_json()
    deliver = await oban.enqueue(page.Deliver.new({"order": order["id"]}))
    async with oban:
        await oban.wait(deliver, timeout=30)
        await oban.wait_until_empty(timeout=30)
    for job in await oban.list_jobs():
        assert (job.state, job.errors) == (JobState.COMPLETED, [])
    with page.app.app_context():
        assert page.db.session.get_one(page.Order, order["id"]).confirmed


async def test_a_job_is_cancelled_in_the_session(page: Any, oban: Oban) -> None:
    job = await oban.enqueue(page.Confirm.new({"order": 1}, schedule_in=60))
    with page.app.app_context():
        assert page.call_off(job.id)
    assert (await oban.wait(job)).state == JobState.CANCELLED


async def test_there_is_no_session_without_the_middleware(page: Any, oban: Oban) -> None:
    async with Oban(oban.engine, queues={"default": 1}) as bare:
        job = await reaches(bare, await bare.enqueue(page.Confirm.new({"order": 1})), JobState.RETRYABLE)
    assert "Working outside of application context" in job.errors[0]["error"]


@pytest.fixture
def observer(postgresql_url: URL) -> Iterator[Engine]:
    engine = create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def connection_states(observer: Engine, pids: list[int]) -> list[str]:
    """What the server says about these connections."""
    statement = text("SELECT state FROM pg_stat_activity WHERE pid = ANY(:pids)")
    with observer.connect() as connection:
        return list(connection.scalars(statement, {"pids": pids}))


@pytest.mark.parametrize("page", ["postgresql"], indirect=True)
@pytest.mark.parametrize("recipe", ["in_app_context", "in_app_context, pushed", "with_session"])
async def test_jobs_share_no_session_and_leave_no_connection_in_a_transaction(
    page: Any, oban: Oban, observer: Engine, recipe: str
) -> None:
    current: Callable[[], Any] = page.session if recipe == "with_session" else page.db.session
    sessions: list[Any] = []
    pids: list[int] = []
    during: list[str] = []
    together = threading.Barrier(3, action=lambda: during.extend(connection_states(observer, pids)))

    class Hold(Worker, max_attempts=1):
        """Leaves a transaction open, next to two other jobs that do the same."""

        def process(self, job: Job) -> Cancel | None:
            session = current()
            sessions.append(session)
            pids.append(session.scalar(text("SELECT pg_backend_pid()")))
            session.add(page.Order(address="not committed"))
            session.flush()
            together.wait(30)
            if job.args["end"] == "error":
                raise ValueError
            return Cancel("enough") if job.args["end"] == "cancel" else None

    middleware = page.with_session if recipe == "with_session" else page.in_app_context(page.app)
    # Some applications push a context when they are imported. All threads of the node inherit that.
    pushed = page.app.app_context() if recipe.endswith("pushed") else nullcontext()
    with pushed:
        async with Oban(oban.engine, queues={"default": 3}, middleware=[middleware], **FAST_POLLING) as node:
            for _ in range(2):
                during.clear()
                jobs = [Hold.new({"end": end}) for end in ("return", "error", "cancel")]
                ended = [await node.wait(job, timeout=30) for job in await node.enqueue_many(jobs)]
                assert [job.state for job in ended] == ["completed", "discarded", "cancelled"]
                assert during[:3] == ["idle in transaction"] * 3
                # The node still runs.
                assert connection_states(observer, pids[-3:]) == ["idle"] * 3
                assert len(set(pids[-3:])) == 3
    assert len(set(map(id, sessions))) == 6
    with observer.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM orders WHERE address = 'not committed'")) == 0


def test_the_pool_and_the_database_in_memory_are_as_the_page_says(page: Any) -> None:
    words = " ".join((ROOT / PAGE).read_text().split())
    with page.app.app_context():
        pool = page.db.engine.pool
        assert f"which has up to {pool.size() + pool._max_overflow}" in words
        assert f"fail after {pool.timeout():.0f} seconds" in words
    in_memory = load(URL.create("sqlite"))
    app, db, order_class = in_memory.app, in_memory.db, in_memory.Order
    with app.app_context():
        assert isinstance(db.engine.pool, StaticPool)
        migration.upgrade(db.engine)
        db.create_all()
        oban = app.extensions["oban"]
        order = order_class(address="gone")
        db.session.add(order)
        db.session.flush()
        oban.enqueue(Job(worker="lost"))
        db.session.rollback()
        # A session that has only read has no transaction in the driver.
        assert db.session.query(order_class).all() == []
        oban.enqueue(Job(worker="kept"))
        db.session.remove()
        assert [job.worker for job in oban.list_jobs()] == ["kept"]


def test_these_tests_use_every_fenced_block_of_the_page() -> None:
    assert len(fenced(PAGE, "console")) == 2
    blocks = [*fenced(PAGE, "python"), *fenced(PAGE, "console")]
    assert (ROOT / PAGE).read_text().count("```") == 2 * len(blocks)
