"""Dashboards of several instances, of tables in a schema, behind a pooler, and that nobody closes."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL, text

from oban import Job, Oban, Periodic, migration
from oban.web import dashboard
from oban.web.errors import Busy
from oban.web.sessions import SERVER_MARGIN, Sessions
from tests.support.processes import ROOT
from tests.support.web import Visitor

SCHEMA = "jobs"
#: Looks at a page of a dashboard, and forgets the dashboard without closing it.
FORGET = """
import asyncio, gc, sys
from oban import Oban
from oban.web import dashboard
from tests.support.web import Visitor

async def main():
    oban = Oban(sys.argv[1])
    app = dashboard(oban)
    async with Visitor(app) as visitor:
        assert (await visitor.get("/jobs")).status_code == 200
    del app, visitor
    gc.collect()
    await asyncio.sleep(0)
    await oban.engine.dispose()
    gc.collect()

asyncio.run(main())
"""


@pytest.fixture
async def inside(server_url: URL) -> AsyncIterator[Oban]:
    """A client of tables in a schema; those of `public` are there as well, and empty."""
    await asyncio.to_thread(migration.upgrade, server_url, prefix=SCHEMA)
    oban = Oban(server_url, prefix=SCHEMA)
    yield oban
    async with oban.engine.begin() as connection:
        await connection.execute(text(f"DROP SCHEMA {SCHEMA} CASCADE"))
    await oban.engine.dispose()


async def test_pages_of_an_instance_work_while_the_database_of_another_one_is_away(oban: Oban) -> None:
    away = Oban("postgresql+asyncpg://nobody@127.0.0.1:1/none", name="away")
    app = dashboard(oban, away)
    job = await oban.enqueue(Job(worker="app.Send"))
    here, there = (instance.key for instance in app.instances)
    async with Visitor(app) as visitor:
        for path in ("/", "/jobs", f"/jobs/{job.id}", "/queues", "/nodes", "/periodic"):
            # The overview is read in the background, so that the page itself is there.
            page = await visitor.page(f"/{there}{path}", status=200 if path == "/" else 503)
            assert path == "/" or "The database does not answer" in page.text()
            page = await visitor.page(f"/{here}{path}")
            links = [link.attributes["href"] for link in page.css("#instances a")]
            assert len(links) == 2
    for key, status in ((there, 503), (here, 303)):
        async with Visitor(app, base=f"/{key}") as visitor:
            assert (await visitor.post(f"/jobs/{job.id}/cancel")).status_code == status
    found = await oban.get_job(job.id)
    assert found is not None
    assert found.state == "cancelled"
    await app.aclose()
    await away.engine.dispose()


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/", ""),
        ("/jobs?q=state%3Aavailable", "jobs?q=state%3Aavailable"),
        ("/queues", "queues"),
        ("/nodes", "nodes"),
        ("/periodic", "periodic"),
    ],
)
async def test_the_switch_keeps_the_page(sqlite_url: URL, path: str, kept: str) -> None:
    obans = [Oban(sqlite_url, name=name) for name in ("orders", "billing")]
    app = dashboard(*obans)
    async with Visitor(app) as visitor:
        page = await visitor.page(f"/orders{path}")
        links = {link.text(): link.attributes["href"] for link in page.css("#instances a")}
        assert links == {"orders": f"/orders/{kept}", "billing": f"/billing/{kept}"}
        await visitor.page(links["billing"] or "")
    await app.aclose()
    for each in obans:
        await each.engine.dispose()


async def test_a_job_of_one_instance_is_not_looked_for_in_another_one(sqlite_url: URL) -> None:
    obans = [Oban(sqlite_url, name=name) for name in ("orders", "billing")]
    job = await obans[0].enqueue(Job(worker="app.Send"))
    app = dashboard(*obans)
    async with Visitor(app) as visitor:
        page = await visitor.page(f"/orders/jobs/{job.id}")
        links = {link.text(): link.attributes["href"] for link in page.css("#instances a")}
        assert links["billing"] == "/billing/jobs"
    await app.aclose()
    for each in obans:
        await each.engine.dispose()


async def test_pages_and_actions_use_the_tables_of_the_schema(inside: Oban, server_url: URL) -> None:
    first, second = await inside.enqueue_many([Job(worker="app.Send", queue="mail") for _ in range(2)])
    await inside.add_periodic(Periodic("nightly", "0 3 * * *", Job(worker="app.Nightly")))
    app = dashboard(inside)
    async with Visitor(app) as visitor:
        rows = (await visitor.page("/jobs?q=queue:mail")).css("#rows > tr")
        assert [row.attributes["id"] for row in rows] == [f"job-{second.id}", f"job-{first.id}"]
        assert "app.Send" in (await visitor.page(f"/jobs/{first.id}")).text()
        assert "mail" in (await visitor.page("/queues")).text()
        assert "nightly" in (await visitor.page("/periodic")).text()
        await visitor.page("/nodes")
        await visitor.page("/")
        assert (await visitor.post(f"/jobs/{first.id}/cancel")).status_code == 303
        preview = await visitor.page(f"/jobs/bulk?action=cancel&id={second.id}")
        form: Any = preview.css_first("form[method=post]")
        hidden = [each.attributes for each in form.css("input[type=hidden]")]
        fields = {each["name"]: each["value"] for each in hidden if each["name"] != "csrf_token"}
        response = await visitor.post(form.attributes["action"], fields)
        assert response.status_code in (200, 303), response.text
    for job in (first, second):
        found = await inside.get_job(job.id)
        assert found is not None
        assert found.state == "cancelled"
    await app.aclose()
    public = Oban(server_url)
    assert sum((await public.stats()).counts.values()) == 0
    await public.engine.dispose()


async def test_behind_a_pooler_each_transaction_has_its_limit_and_leaves_none(server_url: URL) -> None:
    oban = Oban(server_url, notifier="poll")
    sessions = Sessions(oban, timeout=60.0)
    show = text("SHOW statement_timeout")
    async with sessions.read() as session:
        assert await session.scalar(show) == f"{60 + SERVER_MARGIN:.0f}s"
        await session.commit()
        # The next transaction may be on another connection of the server.
        assert await session.scalar(show) == f"{60 + SERVER_MARGIN:.0f}s"
    async with sessions.engine.connect() as connection:
        assert await connection.scalar(show) == "0"
    sessions.timeout = 0.3
    with pytest.raises(Busy):
        async with sessions.read() as session:
            await session.execute(text("SELECT pg_sleep(60)"))
    await sessions.close()
    await oban.engine.dispose()


def test_a_dashboard_that_nobody_closes_leaves_no_warning(url: URL) -> None:
    command = [sys.executable, "-W", "error", "-c", FORGET]
    address = url.render_as_string(hide_password=False)
    done = subprocess.run([*command, address], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
