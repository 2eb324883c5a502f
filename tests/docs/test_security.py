"""`docs/guides/security.md`: its roles can do what the page says on PostgreSQL, and no more."""

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL, insert, text
from sqlalchemy.exc import DBAPIError

from oban import Job, Oban, Worker, encoding, fields, migration
from tests.docs.snippets import fenced
from tests.docs.stage import Page
from tests.support.commands import invoke
from tests.support.databases import PostgreSQLFactory
from tests.support.schema import run_script, sync_engine
from tests.support.waiting import eventually

PAGE = Page("guides/security.md")
MADE, DEFAULT, GRANTED = fenced("docs/guides/security.md", "sql")
ROLES = ("shop_owner", "shop_jobs", "shop_web", "shop_reader")


class Greet(Worker, name="security.Greet"):
    """A job that the roles enqueue."""

    async def process(self, job: Job) -> None:
        pass


class Once(Greet, name="security.Once", unique=True):
    """A unique job."""


class Waits(Worker, name="security.Waits"):
    """Runs until it is cancelled."""

    async def process(self, job: Job) -> None:
        await eventually(job.cancelled, timeout=60)


@pytest.fixture
def roles(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """A database with the roles of the page, and the tables of the revision before the newest."""
    url = postgresql_factory.create(empty=True)
    run_script(url, MADE)
    owner = url.set(username="shop_owner")
    run_script(owner, DEFAULT)
    migration.upgrade(owner, prefix="jobs", revision="0006")
    run_script(owner, GRANTED)
    run_script(url, "REVOKE CONNECT ON DATABASE " + str(url.database) + " FROM PUBLIC")
    run_script(url, f"GRANT CONNECT ON DATABASE {url.database} TO {', '.join(ROLES)}")
    yield url
    run_script(url, "".join(f"DROP OWNED BY {role};" for role in ROLES))
    postgresql_factory.drop(url)
    with sync_engine(postgresql_factory.server).begin() as connection:
        for role in ROLES:
            connection.exec_driver_sql(f"DROP ROLE {role}")


async def refused(*calls: Any) -> None:
    """Fail unless the server refuses each of these calls for lack of a privilege."""
    for call in calls:
        with pytest.raises(DBAPIError, match="permission denied"):
            await call


async def test_each_role_can_do_what_the_page_says_and_no_more(
    roles: URL, caplog: pytest.LogCaptureFixture
) -> None:
    # The default privileges cover the table that this adds.
    migration.upgrade(roles.set(username="shop_owner"), prefix="jobs")
    web, reader = (Oban(roles.set(username=f"shop_{name}"), prefix="jobs") for name in ("web", "reader"))
    async with Oban(roles.set(username="shop_jobs"), prefix="jobs", queues={"default": 2}) as node:
        greeting = await web.enqueue(Greet.new())
        once = await web.enqueue(Once.new())
        assert (await web.enqueue(Once.new())).conflict
        ended = [await node.wait(job, timeout=30) for job in (greeting, once)]
        assert [(job.state, job.errors) for job in ended] == [("completed", [])] * 2
        await node.enqueue(Greet.new({"by": "the node"}, schedule_in=3600))
        later = next(job for job in await node.list_jobs() if job.args)
        await refused(web.cancel_job(later), web.delete_job(later), web.retry_job(greeting))
        await refused(web.update_job(later, {"priority": 1}), web.enqueue(Once.new(replace=["args"])))
        await refused(reader.enqueue(Greet.new()), reader.cancel_job(later))
        assert len(await reader.list_jobs()) == 3
        assert await node.list_attempts(greeting)
        assert [each.node for each in await reader.list_nodes()] == [node.options.node]
        assert await node.cancel_job(later)
        assert await node.delete_job(later)
    assert [each.getMessage() for each in caplog.records if each.levelname in ("WARNING", "ERROR")] == []
    for client in (web, reader):
        await client.engine.dispose()


async def test_who_can_only_connect_can_pause_a_queue_and_cancel_a_running_job(roles: URL) -> None:
    PAGE.says("pause, stop or scale queues, and cancel a running job by its id")
    migration.upgrade(roles.set(username="shop_owner"), prefix="jobs")
    run_script(roles, "CREATE ROLE stranger LOGIN")
    run_script(roles, f"GRANT CONNECT ON DATABASE {roles.database} TO stranger")
    stranger = roles.set(username="stranger")
    try:
        async with Oban(roles.set(username="shop_jobs"), prefix="jobs", queues={"default": 1}) as node:
            waiting = await node.enqueue(Waits.new())

            async def stopped() -> bool:
                # The listener may not listen yet when the first notifications are sent.
                for payload in (
                    {"action": "pause", "queue": "default", "ident": "any"},
                    {"action": "pkill", "job_id": waiting.id},
                ):
                    await asyncio.to_thread(
                        execute, stranger, f"SELECT pg_notify('jobs.oban_signal', '{json.dumps(payload)}')"
                    )
                job, queue = await node.get_job(waiting.id), node.check_queue("default")
                return (
                    job is not None and str(job.state) == "cancelled" and queue is not None and queue.paused
                )

            await eventually(stopped)
            with pytest.raises(DBAPIError, match="permission denied"):
                await asyncio.to_thread(execute, stranger, "SELECT * FROM jobs.oban_jobs")
        run_script(roles, f"REVOKE CONNECT ON DATABASE {roles.database} FROM stranger")
        with pytest.raises(DBAPIError, match="permission denied for database"):
            execute(stranger, "SELECT 1")
    finally:
        run_script(roles, "DROP OWNED BY stranger; DROP ROLE stranger")


def execute(url: URL, statement: str) -> None:
    with sync_engine(url).begin() as connection:
        connection.execute(text(statement.replace(":", r"\:")))


@PAGE.shows("class ThumbnailArgs")
async def test_args_of_another_shape_do_not_reach_the_worker(
    url: URL, snippet: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    # A dataclass is looked up in the module that it names.
    names = {"__name__": __name__}
    exec(snippet.compiled(), names)
    args = '{"picture": "../../etc/passwd", "width": 100}'
    PAGE.says(f"An attempt with `{args}` fails with `InvalidJob`")
    good = {"picture": "6f1ed002-ab5d-4b5b-a3c1-0d4a6ae3a4a7", "width": 400}
    row = {"worker": f"{__name__}.Thumbnail", "meta": {}, "tags": [], "max_attempts": 1}
    async with Oban(url, queues={"default": 1}) as oban:
        async with oban.engine.begin() as connection:
            # Without the checks of the library.
            wrong = {"picture": "../../etc/passwd", "width": 100}
            await connection.execute(insert(Job.__table__), [{**row, "args": each} for each in (wrong, good)])

        async def ended() -> list[Job]:
            jobs = await oban.list_jobs()
            return [] if {job.state for job in jobs} & {"available", "executing"} else jobs

        first, second = await eventually(ended)
    assert (str(first.state), str(second.state)) == ("discarded", "completed")
    assert "InvalidJob" in first.errors[0]["error"]
    assert capsys.readouterr().out == f"pictures/{good['picture']}-400.webp\n"


def test_the_limits_are_those_of_the_page() -> None:
    assert (encoding.MAX_BYTES, encoding.MAX_DEPTH, fields.MAX_TAGS) == (4 * 2**20, 100, 100)
    PAGE.says("args and meta to 4 MiB of JSON and 100 levels each, a job to 100 tags")


def test_a_dashboard_for_other_machines_does_not_start_without_a_rule() -> None:
    [block] = fenced("docs/guides/security.md", "console")
    command, expected = block.splitlines()
    arguments = [*command.removeprefix("$ oban ").split(), "--database-url", "sqlite+aiosqlite:///none.db"]
    done = invoke(*arguments)
    assert done.exit_code != 0
    assert done.output.splitlines()[-1] == expected


def test_every_port_is_one_of_this_machine_by_default() -> None:
    shown = invoke("config", "--json", "--config", os.devnull).output
    hosts = {each["key"]: each["value"] for each in json.loads(shown)["values"]}
    assert {hosts[f"{kind}_host"] for kind in ("health", "metrics", "web")} == {"127.0.0.1"}
