"""Every snippet of `docs/guides/enqueueing.md` runs unchanged and has the documented effect."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from types import ModuleType
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from fastapi import FastAPI
from litestar import Litestar
from sqlalchemy import URL, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.applications import Starlette

from oban import Job, Oban
from oban.cli import target
from tests.docs.stage import Page, Snippet, Stage
from tests.support.rows import lasting_url
from tests.support.waiting import eventually, within

PAGE = Page("guides/enqueueing.md")
#: The snippets that define the application, in the order in which a module has them.
PREPARED = ("oban = Oban(engine)\n\nclass Base", "async def place(", "sync_engine = create_engine")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module."""
    yield from lasting_url(request)


@pytest.fixture
async def stage(oban: Oban, url: URL) -> AsyncIterator[Stage]:
    """The application of the page with its table."""
    await oban.delete_many_jobs(select(Job), everything=True)
    stage = Stage(oban)
    for part in PREPARED:
        (snippet,) = (found for found in PAGE.snippets if part in found.code)
        sync = url.set(drivername="sqlite" if url.get_backend_name() == "sqlite" else "postgresql+psycopg")
        code = snippet.code.replace("sqlite+aiosqlite:///app.db", url.render_as_string(False))
        code = code.replace("sqlite:///app.db", sync.render_as_string(False))
        await stage.run(Snippet(snippet.page, snippet.line, code))
    async with oban.engine.begin() as connection:
        await connection.run_sync(stage.names["Base"].metadata.create_all)
    yield stage
    async with oban.engine.begin() as connection:
        await connection.run_sync(stage.names["Base"].metadata.drop_all)
    await stage.names["engine"].dispose()
    stage.names["sync_engine"].dispose()


async def orders(stage: Stage) -> list[Any]:
    """Return the order id of each job, negative for cancelled jobs."""
    jobs = await stage.oban.list_jobs()
    return [(-1 if job.state == "cancelled" else 1) * job.args["order"] for job in jobs]


@PAGE.shows("engine = create_async_engine", "async def place(")
async def test_an_order_and_its_job_are_one_transaction(stage: Stage, snippet: Snippet) -> None:
    order = await stage.names["place"]("a@b.c")
    assert await orders(stage) == [order.id]
    with pytest.raises(Exception, match=r"(?i)null"):
        await stage.names["place"](None)
    assert await orders(stage) == [order.id]


@PAGE.shows("add_all")
async def test_jobs_are_inserted_in_every_way_that_sqlalchemy_has(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    async with AsyncSession(stage.oban.engine) as session:
        await stage.names["place_many"](session)
        assert await orders(stage) == []
        await session.commit()
    assert sorted(await orders(stage)) == [1, 2, 3, 4, 5, 6]
    jobs = {job.args["order"]: (str(job.state), job.queue) for job in await stage.oban.list_jobs()}
    assert jobs.pop(2) == ("scheduled", "mailers")
    assert set(jobs.values()) == {("available", "mailers")}


@PAGE.shows("enqueue_stream")
async def test_a_stream_of_jobs_is_inserted(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    assert await stage.names["confirm_all"](range(1500)) == 1500
    assert await orders(stage) == [*range(1500)]


@PAGE.shows("add_finished")
async def test_a_session_adds_a_job_that_has_finished(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    async with AsyncSession(stage.oban.engine) as session, session.begin():
        await stage.names["add_finished"](session, 5)
    (job,) = await stage.oban.list_jobs()
    assert (job.state, job.attempt, job.completed_at is None) == ("completed", 1, False)


@PAGE.shows("begin_nested")
async def test_a_savepoint_takes_its_jobs_with_it(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    async with AsyncSession(stage.oban.engine) as session:
        await stage.names["place_if_possible"](session)
        await session.commit()
    assert await orders(stage) == [5]


@PAGE.shows("async def confirm_again(")
async def test_a_worker_enqueues_its_own_jobs(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    async with AsyncSession(stage.oban.engine) as session:
        await stage.names["confirm_again"](session)
        await session.rollback()
        await stage.names["confirm_again"](session)
        await session.commit()
    assert await orders(stage) == [7]


@PAGE.shows("def make_oban")
async def test_a_factory_makes_the_instance_of_a_node(
    stage: Stage, snippet: Snippet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def load_settings() -> dict[str, Any]:
        return {"database_url": stage.oban.engine.url}

    stage.names["load_settings"] = load_settings
    await stage.run(snippet)
    application = ModuleType("orders")
    application.__dict__.update(stage.names)
    monkeypatch.setitem(sys.modules, "orders", application)
    assert await target.load("orders:oban") is stage.names["oban"]
    made = await target.load("orders:make_oban")
    assert (made.engine.url, [*made.options.queues]) == (stage.oban.engine.url, ["mailers"])


async def confirms(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """Place an order, and wait until its job has run."""
    order = await stage.names["place"]("a@b.c")
    said = ""

    def confirmed() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return f"confirmed {order.id}" in said

    await eventually(confirmed)


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[None]:
    """Start and stop an application as a web server does."""
    received: asyncio.Queue[Any] = asyncio.Queue()
    sent: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    serving = asyncio.create_task(app(scope, received.get, sent.put))
    for phase in ("startup", "shutdown"):
        await received.put({"type": f"lifespan.{phase}"})
        assert (await within(sent.get(), 10))["type"] == f"lifespan.{phase}.complete"
        if phase == "startup":
            yield
    await serving


@PAGE.shows("FastAPI(", "Starlette(", "Litestar(")
async def test_jobs_run_in_the_lifespan_of_a_web_framework(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    oban = Oban(stage.names["engine"], queues={"mailers": 10}, shutdown_grace_period=0.5)
    stage.names |= {"FastAPI": FastAPI, "Starlette": Starlette, "oban": oban}
    # By default, it would configure the logging of all tests.
    stage.names["Litestar"] = partial(Litestar, logging_config=None)
    await stage.run(snippet)
    async with served(stage.names["app"]):
        await confirms(stage, capsys)
    assert stage.names["oban"].check_all_queues() == []


@PAGE.shows("async def lifespan")
async def test_jobs_run_inside_the_application(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.run(snippet)
    stage.names["oban"] = Oban(stage.names["engine"], queues={"mailers": 10}, shutdown_grace_period=0.5)
    async with asynccontextmanager(stage.names["lifespan"])(None):
        await confirms(stage, capsys)


@PAGE.shows("sync_engine = create_engine")
async def test_a_sync_application_does_the_same(stage: Stage, snippet: Snippet) -> None:
    placed = stage.names["place_now"]("a@b.c"), stage.names["place_in_request"]("a@b.c")
    assert await orders(stage) == [*placed]
    for name in ("place_now", "place_in_request"):
        with pytest.raises(Exception, match=r"(?i)null"):
            stage.names[name](None)
        stage.names["sessions"].remove()
    assert len(await orders(stage)) == 2


@PAGE.shows("def place_with_core")
async def test_a_connection_enqueues_in_its_transaction(stage: Stage, snippet: Snippet) -> None:
    stage.names["insert"] = insert
    await stage.run(snippet)
    await stage.names["place_with_core"]("a@b.c")
    assert await orders(stage) == [1]
    with pytest.raises(Exception, match=r"(?i)null"):
        await stage.names["place_with_core"](None)
    assert await orders(stage) == [1]


@PAGE.shows("def place_with_asyncpg")
async def test_a_connection_of_asyncpg_enqueues_in_its_transaction(
    stage: Stage, snippet: Snippet, url: URL
) -> None:
    stage.names |= {"asyncpg": asyncpg, "json": json}
    await stage.run(snippet)
    if url.get_backend_name() == "sqlite":
        PAGE.says("on PostgreSQL a trigger tells the nodes. Here with asyncpg")
        return
    connection = await asyncpg.connect(url.set(drivername="postgresql").render_as_string(False))
    place = stage.names["place_with_asyncpg"]
    await place(connection, "a@b.c")
    with pytest.raises(asyncpg.NotNullViolationError):
        await place(connection, None)
    await connection.close()
    (job,) = await stage.oban.list_jobs()
    assert (job.worker, job.queue, job.args) == (stage.names["Confirm"].worker_name, "mailers", {"order": 1})


@PAGE.shows("def call_off")
async def test_the_jobs_of_an_order_are_cancelled_with_it(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    first, second = await stage.names["place"]("a@b.c"), await stage.names["place"]("d@e.f")
    assert stage.names["call_off"](first) == 1
    assert await orders(stage) == [-first.id, second.id]


def test_every_snippet_of_the_page_is_run() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
