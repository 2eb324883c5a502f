"""The application of `docs/frameworks/fastapi.md`: its files are written, and its commands are run there."""

import re
import sqlite3
from typing import Any

import httpx
import pytest
from sqlalchemy import URL, select

from oban import Job, Oban
from tests.docs.commands import commands
from tests.docs.snippets import fenced
from tests.docs.stage import Page, Snippet
from tests.docs.written_project import PYTEST, WrittenProject, file_name
from tests.support.waiting import eventually

PAGE = Page("frameworks/fastapi.md")
FILES = [found for found in PAGE.snippets if file_name(found)]
LIFESPAN, SYNCHRONOUS = (found for found in PAGE.snippets if not file_name(found))
MIGRATE, SERVE, RUN = (" ".join(command) for command in commands("docs/frameworks/fastapi.md"))

#: What the reader has before.
USERS = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None

def upgrade():
    op.create_table(
        "users",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("email", sa.String, unique=True, nullable=False),
        sa.Column("welcomed", sa.Boolean, nullable=False),
    )
"""
#: A test that enters the lifespan which runs jobs in the web server.
TEST_OF_LIFESPAN = """
from contextlib import asynccontextmanager

import app.main
from app.db import User, sessions
from app.jobs import SendWelcome, oban

SNIPPET = {snippet!r}

async def test_the_server_runs_jobs():
    names = vars(app.main).copy()
    exec(SNIPPET, names)
    async with names["lifespan"](app.main.app):
        async with sessions.begin() as session:
            session.add(user := User(email="lifespan@example.com"))
            await session.flush()
            session.add(job := SendWelcome.new({{"user_id": user.id}}))
        assert (await oban.wait(job, timeout=60)).state == "completed"
"""


def file(name: str) -> Snippet:
    (snippet,) = (found for found in FILES if file_name(found) == name)
    return snippet


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> WrittenProject:
    """The application, migrated."""
    folder = tmp_path_factory.mktemp("fastapi")
    url = URL.create("sqlite+aiosqlite", database=str(folder / "app.db"))
    made = WrittenProject(folder, url)
    _, imported, configure = file("migrations/env.py").code.partition("from oban import migration\n")
    made.add_migrations(f"from app.db import Base\n{imported}", "Base.metadata", configure)
    for snippet in FILES:
        if file_name(snippet) != "migrations/env.py":
            made.write(snippet)
    made.write_text("migrations/versions/0001_users.py", USERS)
    made.write_text("pytest.ini", PYTEST)
    made.finish(*MIGRATE.split())
    return made


def test_the_migration_creates_the_tables_and_autogenerate_leaves_them_alone(project: WrittenProject) -> None:
    with sqlite3.connect(project.folder / "app.db") as connection:
        assert connection.execute("SELECT count(*) FROM oban_jobs").fetchone() == (0,)
    connection.close()
    assert "No new upgrade operations" in project.finish("alembic", "check")


def test_the_tests_of_the_page_pass_and_the_lifespan_runs_jobs(project: WrittenProject) -> None:
    project.write_text("tests/test_lifespan.py", TEST_OF_LIFESPAN.format(snippet=LIFESPAN.code))
    assert "4 passed" in project.finish("pytest", "-q")


async def test_the_node_welcomes_users_and_a_failed_job_says_why_and_is_retried(
    project: WrittenProject,
) -> None:
    with project.running(f"{SERVE} --port 0", RUN) as (server, node):
        address = (await server.says(r"running on (\S+)"))[1]
        await node.says("runs mailers:10")
        async with httpx.AsyncClient(base_url=address) as client, Oban(project.url) as oban:
            user = (await client.post("/users", params={"email": "ann@example.com"})).json()
            await node.says("Welcome, ann@example.com")
            job = await oban.enqueue(Job(worker="app.jobs.SendWelcome", queue="mailers", max_attempts=5))
            logged = await node.says(rf"(job {job.id} \(.*)\n")
            (shown,) = fenced("docs/frameworks/fastapi.md", "text")
            delay = re.compile(r"in \d+ s")
            assert delay.sub("", logged[1]) == delay.sub("", shown.strip()).replace("job 1", f"job {job.id}")
            failed = select(Job).where(Job.id == job.id, Job.state == "retryable")
            # The log can be a moment ahead of the row.
            await eventually(lambda: oban.list_jobs(failed))
            await oban.update_job(job, {"args": {"user_id": user["id"]}})
            answer = await client.post(f"/jobs/{job.id}/retry")
            assert answer.json() == {"retried": True}
            assert (await oban.wait(job, timeout=60)).state == "completed"


def test_a_synchronous_application_has_both_clients() -> None:
    names: dict[str, Any] = {}
    exec(SYNCHRONOUS.compiled(), names)
    assert names["oban"].engine.url == names["engine"].url
    assert names["oban"].engine.dialect.is_async
    assert not names["sync_oban"].engine.dialect.is_async
    PAGE.says('`engine.url.set(drivername="postgresql+asyncpg")`')
    assert Oban(names["engine"].url.set(drivername="postgresql+asyncpg")).engine.driver == "asyncpg"
    names["engine"].dispose()
