"""Everything works through a pooler in transaction mode: the one of the tests, and PgBouncer if installed.

Two transactions in a row run in different sessions of the server, so prepared statements, session settings
and LISTEN do not outlive a transaction.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from oban import Cancel, Job, JobState, Oban, Record, Snooze, Worker, migration
from oban.notifier.listen import ListenNotifier
from oban.runner.execution.producer import OVERLAPPED_LIMIT
from tests.support.databases import PostgreSQLFactory
from tests.support.internals import hears, runner_of
from tests.support.jobs import reaches, row_of
from tests.support.options import BRIEF, NO_POLLING
from tests.support.pgbouncer import PROGRAM, pgbouncer
from tests.support.pooler import pooler
from tests.support.waiting import eventually, quiet
from tests.support.workers import Noop, Runs

POOLERS = ["proxy", *(["pgbouncer"] if PROGRAM else [])]
POLL: dict[str, Any] = {"notifier": "poll", **BRIEF}
#: The arguments for the application's engine, as in docs/guides/pgbouncer.md.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "asyncpg": {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: "",
    },
    "psycopg": {"prepare_threshold": None},
}


LISTENING = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND query ILIKE '%LISTEN%'"
)
LEFT = text(
    "SELECT pg_backend_pid(), (SELECT count(*) FROM pg_prepared_statements WHERE name <> ''),"
    " (SELECT count(*) FROM pg_listening_channels()),"
    " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),"
    " current_setting('jit'), current_setting('search_path')"
)
#: Loggers that report failed jobs and a slow machine.
OTHERS = ("oban.executor", "oban.watchdog")


class Varied(Worker):
    """Ends in one of all possible ways, chosen by its number."""

    async def process(self, job: Job) -> Any:
        match job.args["n"] % 5:
            case 0:
                return Record({"n": job.args["n"]})
            case 1 if job.attempt == 1:
                raise ValueError("first")
            case 2 if not job.meta.get("snoozed"):
                return Snooze(0.1)
            case 3:
                return Cancel("no more")

    def backoff(self, job: Job) -> float:
        return 0.1


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that nothing is logged as a warning, except in tests that request `caplog`."""
    yield
    if "caplog" not in request.node.function.__code__.co_varnames:
        assert [
            r.getMessage()
            for r in caplog.get_records("call")
            if r.levelno >= logging.WARNING and r.name not in OTHERS
        ] == []


async def opened(stack: AsyncExitStack, kind: str, url: URL, folder: Path) -> URL:
    if kind == "pgbouncer":
        return await stack.enter_async_context(pgbouncer(url, folder))
    return (await stack.enter_async_context(pooler(url))).url


@pytest.fixture(params=POOLERS)
async def pooled(request: pytest.FixtureRequest, postgresql_url: URL, tmp_path: Path) -> AsyncIterator[URL]:
    """A URL through a pooler, with each driver."""
    async with AsyncExitStack() as stack:
        yield await opened(stack, request.param, postgresql_url, tmp_path)


@pytest.fixture
async def proxied(postgresql_url: URL) -> AsyncIterator[URL]:
    """A URL through the pooler of the tests, which switches connections at every transaction."""
    async with pooler(postgresql_url) as through:
        yield through.url


@pytest.fixture
async def own_engine(pooled: URL) -> AsyncIterator[AsyncEngine]:
    """An application's engine, configured as the documentation says."""
    engine = create_async_engine(pooled, connect_args=ARGUMENTS[pooled.get_driver_name()])
    yield engine
    await engine.dispose()


@pytest.fixture
async def direct_engine(postgresql_url: URL) -> AsyncIterator[AsyncEngine]:
    """An engine that connects directly, without the pooler."""
    engine = create_async_engine(postgresql_url)
    yield engine
    await engine.dispose()


@pytest.mark.parametrize("kind", POOLERS)
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_the_schema_is_made_used_and_removed(
    postgresql_factory: PostgreSQLFactory, kind: str, driver: str, tmp_path: Path
) -> None:
    url = postgresql_factory.create(empty=True).set(drivername=f"postgresql+{driver}")
    async with AsyncExitStack() as stack:
        through = await opened(stack, kind, url, tmp_path)
        await asyncio.to_thread(migration.upgrade, through, prefix="jobs")
        async with Oban(through, prefix="jobs", queues={"default": 2}, **POLL) as oban:
            await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
        await asyncio.to_thread(migration.downgrade, through, prefix="jobs")
    postgresql_factory.drop(url)


async def test_two_nodes_run_five_hundred_jobs_and_every_ending_is_stored(pooled: URL) -> None:
    nodes = [
        Oban(
            pooled,
            node=name,
            name=name,
            queues={"default": limit},
            stage_interval=0.1,
            poll_interval=0.1,
            **POLL,
        )
        for name, limit in (("a", 20), ("b", OVERLAPPED_LIMIT))
    ]
    async with nodes[0] as oban, nodes[1]:
        jobs = await oban.enqueue_many(Varied.new({"n": n}) for n in range(500))
        unfinished = select(Job).where(Job.state.not_in(["completed", "cancelled"])).limit(1)

        async def all_ended() -> bool:
            return not await oban.list_jobs(unfinished)

        await eventually(all_ended, timeout=40)
        rows = await oban.list_jobs()
    assert len(rows) == len(jobs)
    for n, row in enumerate(rows):
        assert row.state == ("cancelled" if n % 5 == 3 else "completed")
        assert row.attempt == (2 if n % 5 == 1 else 1)
        assert len(row.errors) == (n % 5 in (1, 3))
        assert row.meta == {0: {"recorded": True, "return": {"n": n}}, 2: {"snoozed": 1}}.get(n % 5, {})


async def test_a_cancel_from_another_process_arrives_within_a_second_or_so(pooled: URL) -> None:
    runs = Runs()
    async with (
        Oban(pooled, queues={"default": 3}, **POLL) as oban,
        Oban(pooled, name="client", notifier="poll") as client,
    ):
        job = await client.enqueue(runs.worker.new())
        running = await runs.begun(1)
        assert await client.cancel_job(job)
        await eventually(running.cancelled, timeout=2)
        runs.finish(1, Cancel("saw it"))

        async def stored() -> bool:
            return bool((await row_of(oban, job)).errors)

        await eventually(stored)


async def test_what_is_said_elsewhere_about_a_queue_is_obeyed_within_a_second_or_so(pooled: URL) -> None:
    instance: dict[str, Any] = {"name": "shared", "notifier": "poll", **BRIEF}
    async with (
        Oban(pooled, node="a", queues={"default": 3}, **instance) as oban,
        Oban(pooled, node="b", **instance) as client,
    ):

        def paused() -> bool:
            info = oban.check_queue("default")
            return info is not None and info.paused

        await client.pause_queue("default")
        await eventually(paused, timeout=2)
        job = await client.enqueue(Noop.new())
        await client.scale_queue("default", 7)
        await client.resume_queue("default")
        await eventually(lambda: not paused(), timeout=2)
        await reaches(client, job, JobState.COMPLETED, timeout=3)
        info = oban.check_queue("default")
        assert info is not None
        assert info.limit == 7


async def test_jobs_are_managed_and_run_at_their_time(pooled: URL) -> None:
    async with (
        Oban(pooled, queues={"default": 3}, **POLL) as oban,
        Oban(pooled, name="client", notifier="poll") as client,
    ):
        soon = await client.enqueue(Noop.new(schedule_in=0.5))
        moved, gone = await client.enqueue_many(Noop.new(schedule_in=3600), Noop.new(schedule_in=3600))
        await client.update_job(moved, lambda job: {"schedule_in": 0, "meta": {"of": job.id}})
        assert await client.delete_many_jobs(select(Job).where(Job.id == gone.id)) == 1
        row = await reaches(oban, soon, JobState.COMPLETED, timeout=4)
        assert row.attempted_at is not None
        assert row.attempted_at >= row.scheduled_at
        assert (await reaches(oban, moved, JobState.COMPLETED)).meta == {"of": moved.id}
        assert await client.retry_many_jobs([soon.id, moved.id]) == 2
        for job in (soon, moved):
            row = await reaches(oban, job, JobState.COMPLETED)
            assert row.attempt == 2
        assert [job.id for job in await client.list_jobs()] == [soon.id, moved.id]


async def test_an_applications_own_engine_enqueues_in_its_transactions(own_engine: AsyncEngine) -> None:
    async with Oban(own_engine, queues={"default": 5}, poll_interval=0.1, **POLL) as oban:
        for _ in range(10):
            async with AsyncSession(own_engine, expire_on_commit=False) as session, session.begin():
                kept = await oban.enqueue(Noop.new(), session=session)
            async with own_engine.connect() as connection:
                lost = await oban.enqueue(Noop.new(), session=connection)
                await connection.rollback()
            assert lost.id is None
            await reaches(oban, kept, JobState.COMPLETED)
        assert len(await oban.list_jobs()) == 10


async def test_with_a_direct_url_for_listen_jobs_start_and_are_cancelled_at_once(
    pooled: URL, postgresql_url: URL, direct_engine: AsyncEngine
) -> None:
    runs = Runs()
    direct = postgresql_url.render_as_string(hide_password=False)

    async def listeners() -> int:
        async with direct_engine.connect() as connection:
            return int((await connection.execute(LISTENING)).scalar_one())

    async def nobody_listens() -> bool:
        return await listeners() == 0

    async with (
        Oban(pooled, queues={"default": 3}, listen_url=direct, **NO_POLLING),
        Oban(pooled, name="client", notifier="poll") as client,
    ):
        assert await listeners() == 1
        await quiet()
        job = await client.enqueue(runs.worker.new())
        running = await runs.begun(1)
        await client.cancel_job(job)
        await eventually(running.cancelled)
        runs.finish(1)
        await reaches(client, await client.enqueue(Noop.new()), JobState.COMPLETED)
    # The server needs a moment to notice a closed connection.
    await eventually(nobody_listens)


async def test_sessions_of_the_server_have_no_state_left(pooled: URL) -> None:
    async with Oban(pooled, queues={"default": 5}, **POLL) as oban:
        jobs = await oban.enqueue_many(Varied.new({"n": n}) for n in range(20))
        await reaches(oban, jobs[0], JobState.COMPLETED)
        await oban.cancel_many_jobs(jobs)
        sessions = {}
        for _ in range(12):
            async with oban.engine.connect() as connection:
                pid, *found = (await connection.execute(LEFT)).one()
                sessions[pid] = tuple(found)
    assert len(sessions) >= 2
    assert set(sessions.values()) == {(0, 0, 0, "on", '"$user", public')}


async def test_the_error_for_an_engine_that_prepares_statements_says_what_to_configure(
    proxied: URL, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_async_engine(proxied)
    oban = Oban(engine, notifier="poll")

    async def until_refused() -> None:
        # psycopg prepares a statement after five executions.
        for _ in range(30):
            await oban.enqueue(Noop.new())

    for _ in range(2):
        # While a connection is set up, SQLAlchemy does not wrap the errors of older drivers.
        with pytest.raises(Exception, match=r"prepared statement .* (does not|already)"):
            await until_refused()
    messages = [record.getMessage() for record in caplog.records if record.name == "oban.database"]
    assert len(messages) == 1
    assert "statement_cache_size" in messages[0]
    assert "prepare_threshold" in messages[0]
    await engine.dispose()


async def test_a_node_that_listens_through_the_pooler_logs_that_and_polls(
    own_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("oban.notifier.health.ECHO_TIMEOUT", 0.5)
    async with Oban(own_engine, queues={"default": 2}, **BRIEF) as oban:
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
        await eventually(lambda: "notifications do not arrive" in caplog.text)
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
    assert "listen_url" in caplog.text


async def test_a_node_can_listen_through_a_pooler_in_session_mode(
    postgresql_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oban.notifier.health.ECHO_TIMEOUT", 0.5)
    async with (
        pooler(postgresql_url, servers=None, deliver=True) as through,
        Oban(through.url, queues={"default": 2}, **NO_POLLING) as oban,
    ):
        notifier = runner_of(oban).notifier
        assert isinstance(notifier, ListenNotifier)
        await eventually(lambda: hears(notifier))
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
