"""Single statements use autocommit connections outside of the pool of the library's own engine."""

import asyncio
import logging
import sqlite3
from typing import Any

import pytest
from sqlalchemy import URL, Engine, NullPool, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from oban import Job, Oban, SyncOban
from oban.database import idle
from oban.errors import EncodingError
from tests.support.databases import ADMINISTRATOR
from tests.support.internals import runner_of
from tests.support.waiting import eventually

OTHERS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    f" AND application_name <> '{ADMINISTRATOR}'"
)


class Pooled:
    """Counts the connections that an engine's pool opens, and those that leave the pool."""

    def __init__(self, engine: Engine) -> None:
        self.opened: list[Any] = []
        self.left = 0
        event.listen(engine.pool, "connect", lambda made, _: self.opened.append(made))
        event.listen(engine.pool, "detach", self._on_detach)

    def _on_detach(self, *_: object) -> None:
        self.left += 1

    @property
    def open(self) -> int:
        """The number of open connections."""
        return sum(map(_is_open, self.opened))


def _is_open(made: Any) -> bool:
    driver = getattr(made, "driver_connection", made)
    if callable(is_closed := getattr(driver, "is_closed", None)):  # asyncpg
        return not is_closed()
    if hasattr(driver, "closed"):  # psycopg
        return not driver.closed
    try:
        return bool(driver.total_changes >= 0)
    # aiosqlite and sqlite3.
    except (ValueError, sqlite3.ProgrammingError):
        return False


@pytest.fixture
async def watch(server_url: URL) -> Any:
    """An engine for observing the server, which keeps no connection open."""
    engine = create_async_engine(server_url, poolclass=NullPool)
    yield engine
    await engine.dispose()


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are lost just after they were checked."""
    monkeypatch.setattr(idle, "is_usable", lambda *_: True)


async def sessions(watch: AsyncEngine) -> int:
    async with watch.connect() as connection:
        counted = await connection.execute(
            text(f"SELECT count(*) {OTHERS} AND backend_type = 'client backend'")
        )
        return int(counted.scalar_one())


async def end_sessions(watch: AsyncEngine) -> None:
    async with watch.begin() as connection:
        await connection.execute(text(f"SELECT pg_terminate_backend(pid, 5000) {OTHERS}"))


async def test_statements_in_turn_use_one_connection_which_ends_with_the_client(url: URL) -> None:
    oban = Oban(url)
    pooled = Pooled(oban.engine.sync_engine)
    for number in range(5):
        await oban.enqueue(Job(worker="w", args={"n": number}))
    assert (len(pooled.opened), pooled.left, pooled.open) == (1, 1, 1)
    assert [job.args["n"] for job in await oban.list_jobs()] == [0, 1, 2, 3, 4]
    await oban.stop()
    assert pooled.open == 0


def test_without_asyncio_statements_in_turn_use_one_connection(url: URL) -> None:
    drivers = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}
    oban = SyncOban(url.set(drivername=drivers[url.get_backend_name()]))
    pooled = Pooled(oban.engine)
    for number in range(5):
        oban.enqueue(Job(worker="w", args={"n": number}))
    assert (len(pooled.opened), pooled.left, pooled.open) == (1, 1, 1)
    assert len(oban.list_jobs()) == 5
    oban.stop()
    assert pooled.open == 0


async def test_no_connection_leaves_the_pool_of_an_application(url: URL) -> None:
    engine = create_async_engine(url)
    async with Oban(engine) as oban:
        pooled = Pooled(engine.sync_engine)
        await oban.enqueue(Job(worker="w"))
        await oban.enqueue(Job(worker="w"))
        assert (len(pooled.opened), pooled.left) == (1, 0)
    await engine.dispose()


async def test_many_concurrent_statements_leave_no_more_connections_than_the_limit(
    watch: AsyncEngine, server_url: URL
) -> None:
    async with Oban(server_url) as oban:
        for _ in range(3):
            await asyncio.gather(*(oban.enqueue(Job(worker="w")) for _ in range(40)))
            assert await sessions(watch) <= 15
        # Connections beyond the limit of the pool are closed when they are released.
        await eventually(lambda: _at_most(watch, 5))
        assert len(await oban.list_jobs()) == 120


async def _at_most(watch: AsyncEngine, number: int) -> bool:
    return await sessions(watch) <= number


async def test_after_the_server_has_ended_all_sessions_only_one_call_fails(
    watch: AsyncEngine, server_url: URL, unchecked: None
) -> None:
    async with Oban(server_url) as oban:
        await asyncio.gather(*(oban.enqueue(Job(worker="w")) for _ in range(10)))
        await end_sessions(watch)
        with pytest.raises(DBAPIError) as caught:
            await oban.enqueue(Job(worker="w"))
        assert caught.value.connection_invalidated
        await asyncio.gather(*(oban.enqueue(Job(worker="w")) for _ in range(10)))
        assert len(await oban.list_jobs()) == 20


async def test_an_insert_does_not_fail_after_a_read_has_found_the_connection_lost(
    watch: AsyncEngine, server_url: URL, unchecked: None
) -> None:
    async with Oban(server_url) as oban:
        await oban.enqueue(Job(worker="w"))
        await oban.list_jobs()
        await end_sessions(watch)
        with pytest.raises(DBAPIError):
            await oban.list_jobs()
        await oban.enqueue(Job(worker="w"))
        assert len(await oban.list_jobs()) == 2


async def test_a_connection_is_closed_if_its_call_is_cancelled(watch: AsyncEngine, server_url: URL) -> None:
    async with Oban(server_url) as oban:
        await oban.enqueue(Job(worker="first"))
        async with watch.begin() as other:
            await other.execute(text("LOCK TABLE oban_jobs"))
            task = asyncio.create_task(oban.enqueue(Job(worker="cancelled")))
            waiting = text(f"SELECT count(*) {OTHERS} AND wait_event_type = 'Lock'")
            await eventually(lambda: _positive(watch, waiting))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # The observer also has a session.
            await eventually(lambda: _at_most(watch, 1))
        await oban.enqueue(Job(worker="second"))
        assert [job.worker for job in await oban.list_jobs()] == ["first", "second"]


async def _positive(watch: AsyncEngine, query: Any) -> bool:
    async with watch.connect() as connection:
        return bool((await connection.execute(query)).scalar_one())


async def test_a_connection_is_replaced_after_a_statement_has_failed(
    watch: AsyncEngine, server_url: URL
) -> None:
    async with watch.begin() as connection:
        await connection.execute(text("ALTER TABLE oban_jobs ADD CHECK (worker <> 'refused')"))
    async with Oban(server_url) as oban:
        pooled = Pooled(oban.engine.sync_engine)
        for number in range(1, 4):
            await oban.enqueue(Job(worker="w"))
            await oban.enqueue(Job(worker="w"))
            assert (len(pooled.opened), pooled.open) == (number, 1)
            with pytest.raises(DBAPIError, match="check constraint") as caught:
                await oban.enqueue(Job(worker="refused"))
            assert not caught.value.connection_invalidated
            assert pooled.open == 0


async def test_a_job_that_is_refused_before_it_is_sent_keeps_the_connection(url: URL) -> None:
    async with Oban(url) as oban:
        pooled = Pooled(oban.engine.sync_engine)
        for _ in range(3):
            await oban.enqueue(Job(worker="w"))
            job = Job(worker="w")
            job.args["set"] = {1}
            with pytest.raises(EncodingError):
                await oban.enqueue(job)
        assert (len(pooled.opened), pooled.open) == (1, 1)


async def test_a_connection_that_cannot_be_closed_does_not_hide_the_first_error(
    watch: AsyncEngine, server_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watch.begin() as connection:
        await connection.execute(text("ALTER TABLE oban_jobs ADD CHECK (worker <> 'refused')"))
    async with Oban(server_url) as oban:
        for _ in range(3):
            await oban.enqueue(Job(worker="w"))
        dialect = oban.engine.sync_engine.dialect
        terminate = dialect.do_terminate

        def fail(driven: Any) -> None:
            terminate(driven)
            raise OSError("network error")

        monkeypatch.setattr(dialect, "do_terminate", fail)
        with pytest.raises(DBAPIError, match="check constraint"):
            await oban.enqueue(Job(worker="refused"))
        monkeypatch.undo()


async def test_an_engine_that_was_disposed_of_connects_again(url: URL) -> None:
    async with Oban(url) as oban:
        pooled = Pooled(oban.engine.sync_engine)
        # The first statement finds out the default isolation level of the server.
        await oban.enqueue(Job(worker="w"))
        await oban.enqueue(Job(worker="w"))
        # As an application does after a fork, for example.
        await oban.engine.dispose()
        await oban.enqueue(Job(worker="w"))
        assert (len(pooled.opened), pooled.left, pooled.open) == (2, 2, 1)
        assert len(await oban.list_jobs()) == 3


async def test_an_event_listener_sees_every_statement_after_it_was_added(url: URL) -> None:
    async with Oban(url) as oban:
        await oban.enqueue(Job(worker="w"))
        heard: list[str] = []
        event.listen(
            oban.engine.sync_engine,
            "before_cursor_execute",
            lambda *checked_out: heard.append(checked_out[2]),
        )
        await oban.enqueue(Job(worker="w"))
        assert any("INSERT INTO oban_jobs" in statement for statement in heard)


async def test_statements_are_logged_as_soon_as_echo_is_enabled(
    url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    async with Oban(url) as oban:
        for _ in range(3):
            await oban.enqueue(Job(worker="w"))
        assert caplog.messages == []
        with caplog.at_level(logging.INFO, logger="sqlalchemy.engine"):
            for _ in range(3):
                await oban.enqueue(Job(worker="w"))
        assert sum(message.startswith("INSERT INTO oban_jobs") for message in caplog.messages) == 3
        caplog.clear()
        await oban.enqueue(Job(worker="w"))
        assert caplog.messages == []


@pytest.mark.parametrize("options", [{"pool_pre_ping": True}, {"pool_recycle": 60}, {}])
async def test_the_runner_has_no_autocommit_connections_if_the_pool_checks_its_connections(
    server_url: URL, options: dict[str, Any]
) -> None:
    engine = create_async_engine(server_url, **options)
    checked_out: list[object] = []
    if not options:
        event.listen(engine.sync_engine, "checkout", lambda made, *_: checked_out.append(made))
    async with Oban(engine, queues={"default": 1}) as oban:
        pooled = Pooled(runner_of(oban).database.engine.sync_engine)
        job = await oban.enqueue(Job(worker="unknown"))
        await eventually(lambda: _was_tried(oban, job))
    assert pooled.left == 0
    assert bool(checked_out) == (not options)
    await engine.dispose()


async def _was_tried(oban: Oban, job: Job) -> bool:
    (row,) = [row for row in await oban.list_jobs() if row.id == job.id]
    return row.attempt > 0 and row.state != "executing"
