"""Sessions of the dashboard end in time, wait in bounded numbers, and never stop the jobs."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, Oban, QueueOptions
from oban.errors import DatabaseUnavailable, SchemaMissing
from oban.web import dashboard
from oban.web.errors import Busy, NoSchema, Unavailable
from oban.web.sessions import CONNECTIONS, WAITING, Sessions
from tests.support.waiting import eventually, within
from tests.support.web import Visitor
from tests.support.workers import Noop

#: A statement that takes a minute, or for ever.
SLOW = {
    "postgresql": "SELECT pg_sleep(60)",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
}


def slow(oban: Oban) -> Any:
    return text(SLOW[oban.engine.dialect.name])


@pytest.fixture
async def sessions(oban: Oban) -> AsyncIterator[Sessions]:
    """The sessions of a dashboard, with a time limit that is not reached."""
    made = Sessions(oban, timeout=60.0)
    yield made
    await made.close()


async def test_a_statement_that_takes_too_long_is_ended(oban: Oban, sessions: Sessions) -> None:
    # More often than there are connections, each of which has to be free again.
    for _ in range(CONNECTIONS + 1):
        sessions.timeout = 0.3
        with pytest.raises(Busy, match="has not answered in time"):
            async with sessions.read() as session:
                await session.execute(slow(oban))
    sessions.timeout = 60.0
    async with sessions.read() as session:
        assert await session.scalar(text("SELECT 1")) == 1


async def test_a_request_that_is_cancelled_ends_its_statement(oban: Oban, sessions: Sessions) -> None:
    for _ in range(CONNECTIONS + 1):
        began = asyncio.Event()

        async def read(began: asyncio.Event = began) -> None:
            async with sessions.read() as session:
                await session.execute(text("SELECT 1"))
                began.set()
                await session.execute(slow(oban))

        reading = asyncio.create_task(read())
        await within(began.wait())
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await within(reading)
    async with sessions.read() as session:
        assert await within(session.scalar(text("SELECT 1"))) == 1


async def test_only_so_many_requests_wait(oban: Oban, sessions: Sessions) -> None:
    go = asyncio.Event()

    async def hold() -> None:
        async with sessions.read() as session:
            await session.execute(text("SELECT 1"))
            await go.wait()

    holding = [asyncio.create_task(hold()) for _ in range(CONNECTIONS + WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Busy, match="too many requests"):
        async with sessions.read():
            pass
    go.set()
    await within(asyncio.gather(*holding))
    async with sessions.read() as session:
        assert await session.scalar(text("SELECT 1")) == 1


async def test_jobs_run_while_pages_are_slow(oban: Oban, url: URL) -> None:
    sessions = Sessions(oban, timeout=60.0)

    async def read() -> None:
        async with sessions.read() as session:
            await session.execute(slow(oban))

    reading = [asyncio.create_task(read()) for _ in range(CONNECTIONS + 4)]
    async with Oban(url, queues={"default": QueueOptions(limit=10)}) as node:
        jobs = await node.enqueue_many([Noop.new() for _ in range(50)])

        async def done() -> bool:
            async with AsyncSession(oban.engine) as session:
                found = [await session.get(Job, job.id) for job in (jobs[0], jobs[-1])]
            return all(job is not None and job.state == "completed" for job in found)

        await eventually(done)
    assert not any(task.done() for task in reading)
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    await sessions.close()


async def test_writers_take_turns_and_see_what_the_last_one_has_written(
    oban: Oban, sessions: Sessions
) -> None:
    job = await oban.enqueue(Job(worker="app.Count", meta={"n": 0}))

    async def add() -> None:
        async with sessions.write() as session:
            found = await session.get(Job, job.id, with_for_update=True)
            assert found is not None
            found.meta = {"n": found.meta["n"] + 1}

    # Not more than wait as long as a lock is waited for.
    await within(asyncio.gather(*(add() for _ in range(3))))
    assert (await oban.get_job(job.id)).meta == {"n": 3}  # type: ignore[union-attr]


async def test_an_error_rolls_back_what_was_written(oban: Oban, sessions: Sessions) -> None:
    async def fail() -> None:
        async with sessions.write() as session:
            session.add(Job(worker="app.Send"))
            await session.flush()
            await session.execute(text("SELECT nothing FROM oban_jobs"))

    with pytest.raises(DBAPIError):
        await fail()
    assert sum((await oban.stats()).counts.values()) == 0


async def test_missing_tables_are_told_with_the_command_that_makes_them(
    factory: Any, oban: Oban, sessions: Sessions
) -> None:
    async with oban.engine.begin() as connection:
        for table in ("oban_attempts", "oban_jobs"):
            await connection.execute(text(f"DROP TABLE {table}"))
    with pytest.raises(NoSchema, match="oban install") as caught:
        async with sessions.read() as session:
            await session.execute(text("SELECT * FROM oban_jobs"))
    assert isinstance(caught.value, SchemaMissing)


async def test_a_file_that_does_not_exist_is_not_created(tmp_path: Any) -> None:
    path = tmp_path / "none.db"
    app = dashboard(Oban(f"sqlite+aiosqlite:///{path}"))
    async with Visitor(app) as visitor:
        response = await visitor.get("/jobs/1")
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert "oban install" in response.text
    assert not path.exists()
    await app.aclose()


async def test_a_database_that_is_away_is_told_without_its_password() -> None:
    oban = Oban("postgresql+asyncpg://u:canary@127.0.0.1:1/none")
    sessions = Sessions(oban)
    with pytest.raises(Unavailable) as caught:
        async with sessions.read() as session:
            await session.execute(text("SELECT 1"))
    assert isinstance(caught.value, DatabaseUnavailable)
    assert "canary" not in str(caught.value)
    await sessions.close()
    await oban.engine.dispose()


async def test_a_client_that_disconnects_ends_the_request(oban: Oban) -> None:
    app = dashboard(oban)
    (instance,) = app.instances
    began, ended = asyncio.Event(), asyncio.Event()

    async def never(*_: Any, **__: Any) -> Any:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    instance.oban.get_job = never  # type: ignore[method-assign]
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await began.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    headers = [(b"host", b"localhost")]
    scope = {"type": "http", "method": "GET", "path": "/jobs/1", "query_string": b"", "headers": headers}
    await within(app({**scope, "scheme": "http", "client": ("127.0.0.1", 1)}, receive, send))
    assert ended.is_set()
    await app.aclose()


def test_a_dashboard_that_was_made_before_the_loop_works_on_each_loop(url: URL) -> None:
    oban = Oban(url)
    app = dashboard(oban)

    async def visit() -> int:
        async with Visitor(app) as visitor:
            status: int = (await visitor.get("/jobs/1")).status_code
        return status

    assert [asyncio.run(visit()), asyncio.run(visit())] == [404, 404]

    async def close() -> None:
        await app.aclose()
        await oban.engine.dispose()

    asyncio.run(close())


async def test_a_forked_process_makes_connections_of_its_own(
    oban: Oban, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sessions.engine
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    assert sessions.engine is not before
    monkeypatch.undo()
    await before.dispose()
