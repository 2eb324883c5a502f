"""The pool of job sessions: how many connections it opens, when, and as whose they are."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL, NullPool, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban, Record, Worker
from oban.database import aio
from oban.runner.execution import job_session_threads, session_pool
from tests.runner.effects import FORMS, RUNNING, worker
from tests.support.databases import ADMINISTRATOR
from tests.support.internals import session_pool_of
from tests.support.jobs import reaches, row_of
from tests.support.options import BRIEF
from tests.support.waiting import eventually


def selects(job: Job, session: Session) -> None:
    session.execute(text("SELECT 1"))


class ConnectedJobs:
    """A worker whose jobs connect, and then wait for `go`; with the ids of the server's processes."""

    def __init__(self, form: str, **options: Any) -> None:
        self.pids: list[int] = []
        self.go = go = threading.Event()

        def connect(job: Job, session: Session) -> None:
            self.pids.append(session.execute(text("SELECT pg_backend_pid()")).scalar_one())

        if form == "async":

            class OnLoop(Worker, **options):
                async def process(self, job: Job, session: Any) -> None:
                    await session.run_sync(lambda sync: connect(job, sync))
                    await eventually(go.is_set, 20)

            self.worker: type[Worker] = OnLoop
        else:

            class InThread(Worker, **options):
                def process(self, job: Job, session: Session) -> None:
                    connect(job, session)
                    assert go.wait(20)

            self.worker = InThread


class Server:
    """Counts the connections to a database, from another one."""

    def __init__(self, url: URL) -> None:
        self._name = url.database
        self._engine = create_engine(url.set(drivername="postgresql+psycopg", database="postgres"))

    def _scalar(self, statement: str) -> int:
        with self._engine.connect() as connection:
            return int(connection.execute(text(statement), {"name": self._name}).scalar_one())

    def open(self) -> int:
        """How many connections are open."""
        return self._scalar(
            "SELECT count(*) FROM pg_stat_activity"
            f" WHERE datname = :name AND application_name <> '{ADMINISTRATOR}'"
        )

    async def made(self) -> int:
        """How many connections were ever made, once all are closed: a process counts its own at its end."""
        await eventually(lambda: not self.open())
        return self._scalar("SELECT sessions FROM pg_stat_database WHERE datname = :name")

    def close(self) -> None:
        self._engine.dispose()


@pytest.fixture
def server(emptied_postgresql: URL) -> Iterator[Server]:
    made = Server(emptied_postgresql)
    yield made
    made.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open connections ahead of jobs as soon as the node has started."""
    monkeypatch.setattr(session_pool, "OPENING_DELAY", 0.0)


def counted(engine: AsyncEngine) -> list[object]:
    """A list that grows with each connection that an engine makes, or one that connects as it does."""
    made: list[object] = []
    event.listen(engine.sync_engine, "connect", lambda connection, _: made.append(connection))
    return made


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [150, pytest.param(600, marks=pytest.mark.slow)])
async def test_jobs_make_no_more_connections_than_run_at_once(
    emptied_postgresql: URL, server: Server, form: str, count: int
) -> None:
    limit = 10
    selecting = worker(form, selects, max_attempts=1)
    before = await server.made()
    engine = create_async_engine(emptied_postgresql)
    async with Oban(engine, queues={"default": limit}, **BRIEF) as oban:
        of_start = server.open()
        await oban.enqueue_many(selecting.new() for _ in range(count))
        await oban.wait_until_empty("default", timeout=120)
        assert (await oban.count_jobs())["default"][JobState.COMPLETED] == count
    await engine.dispose()
    assert await server.made() - before - of_start <= limit + 5


async def test_jobs_reuse_connections_where_the_application_pools_none(
    emptied_postgresql: URL, form: str
) -> None:
    selecting = worker(form, selects, max_attempts=1)
    engine = create_async_engine(emptied_postgresql, poolclass=NullPool)
    async with Oban(emptied_postgresql) as client, Oban(engine, queues={"default": 3}, **BRIEF):
        made = counted(engine)
        jobs = await client.enqueue_many(selecting.new() for _ in range(30))
        for job in jobs:
            await reaches(client, job, JobState.COMPLETED)
        # The node's own pool has up to four, of which none may be open yet.
        assert len(made) <= 3 + 4


async def test_jobs_use_more_connections_when_their_queue_is_scaled_up(
    emptied_postgresql: URL, form: str
) -> None:
    jobs = ConnectedJobs(form)
    engine = create_async_engine(emptied_postgresql, pool_size=1, max_overflow=0)
    async with Oban(engine, queues={"default": 2}, **BRIEF) as oban:
        await oban.enqueue_many(jobs.worker.new() for _ in range(6))
        await eventually(lambda: len(jobs.pids) == 2)
        await oban.scale_queue("default", 6)
        await eventually(lambda: len(set(jobs.pids)) == 6)
        jobs.go.set()
        await oban.wait_until_empty("default")
    await engine.dispose()


@pytest.mark.parametrize(("limit", "expected"), [(3, 3), (40, session_pool.OPENED_AHEAD)])
async def test_connections_are_opened_before_jobs_need_them(
    emptied_postgresql: URL, server: Server, at_once: None, limit: int, expected: int
) -> None:
    jobs = ConnectedJobs("async", queue="ahead")
    engine = create_async_engine(emptied_postgresql)
    async with Oban(engine, queues={"ahead": limit}, **BRIEF) as oban:
        await eventually(lambda: session_pool_of(oban).checkedin() == expected)
        # Their process on the server is older than any job.
        newest = "SELECT max(backend_start) < :now FROM pg_stat_activity WHERE pid = ANY(:pids)"
        async with engine.connect() as connection:
            now = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
        await oban.enqueue_many(jobs.worker.new() for _ in range(expected))
        await eventually(lambda: len(set(jobs.pids)) == expected)
        async with engine.connect() as connection:
            statement = {"now": now, "pids": jobs.pids}
            assert (await connection.execute(text(newest), statement)).scalar_one() is True
        jobs.go.set()
        await oban.wait_until_empty("ahead")
    await engine.dispose()


async def test_connections_are_opened_ahead_for_queues_that_run_async_workers_with_a_session(
    emptied_postgresql: URL, at_once: None
) -> None:
    for form in FORMS:
        worker(form, selects, queue=f"ahead-{form}")
    queues: dict[str, Any] = {"none": 5, "ahead-thread": 5, "ahead-async": {"limit": 2, "paused": True}}
    async with Oban(emptied_postgresql, queues=queues, **BRIEF) as oban:
        pool = session_pool_of(oban)
        assert pool.checkedin() == 0
        await oban.resume_queue("ahead-async")
        await eventually(lambda: pool.checkedin() == 2)
        await oban.scale_queue("ahead-async", 4)
        await eventually(lambda: pool.checkedin() == 4)


@pytest.fixture
def crowded(emptied_postgresql: URL) -> Iterator[URL]:
    """The database, as a role that can have ten connections."""
    admin = create_engine(
        emptied_postgresql.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text("CREATE ROLE crowded_pool LOGIN CONNECTION LIMIT 10"))
        for kind in ("TABLES", "SEQUENCES"):
            connection.execute(text(f"GRANT ALL ON ALL {kind} IN SCHEMA public TO crowded_pool"))
        yield emptied_postgresql.set(username="crowded_pool")
        connection.execute(text("DROP OWNED BY crowded_pool"))
        connection.execute(text("DROP ROLE crowded_pool"))
    admin.dispose()


async def test_connections_opened_ahead_are_given_up_where_the_server_has_no_more(
    emptied_postgresql: URL, crowded: URL, at_once: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "oban.runner")
    selecting = worker("async", selects, max_attempts=1)
    engine = create_async_engine(crowded, pool_size=1)
    async with Oban(emptied_postgresql) as client, Oban(engine, queues={"default": 20}, **BRIEF) as oban:
        await eventually(lambda: "no connection was opened ahead of jobs: " in caplog.text)
        await eventually(lambda: session_pool_of(oban).checkedin() == 0)

        async def has_left() -> bool:
            try:
                async with engine.connect() as connection:
                    return bool(await connection.scalar(text("SELECT true")))
            except DBAPIError:
                return False

        await eventually(has_left)
        for job in await client.enqueue_many(selecting.new() for _ in range(20)):
            row = await reaches(client, job, JobState.COMPLETED, timeout=20)
            assert (row.attempt, row.errors) == (1, [])
    await engine.dispose()


async def test_no_more_jobs_than_session_connections_are_connected_at_once(
    one_table: URL, form: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(aio, "POOL_TIMEOUT", 0.05)
    monkeypatch.setattr(job_session_threads, "LOG_INTERVAL", 0.05)
    monkeypatch.setattr(job_session_threads, "WAIT_INTERVAL", 0.05)
    running, most, go = 0, 0, threading.Event()

    def enter(session: Session) -> None:
        nonlocal running, most
        session.execute(text("SELECT 1"))
        running += 1
        most = max(most, running)

    def leave() -> None:
        nonlocal running
        running -= 1

    class OnLoop(Worker, max_attempts=1):
        async def process(self, job: Job, session: Any) -> None:
            await session.run_sync(enter)
            await eventually(go.is_set, 20)
            leave()

    class InThread(Worker, max_attempts=1):
        def process(self, job: Job, session: Session) -> None:
            enter(session)
            assert go.wait(20)
            leave()

    made = OnLoop if form == "async" else InThread
    async with Oban(one_table, **RUNNING, session_connections=2) as oban:
        jobs = await oban.enqueue_many(made.new() for _ in range(5))
        await eventually(lambda: caplog.text.count("a job waits for a connection of the pool of job") >= 3)
        await eventually(lambda: most == 2)
        go.set()
        for job in jobs:
            row = await reaches(oban, job, JobState.COMPLETED)
            assert (row.attempt, row.errors) == (1, [])
    assert most == 2


async def test_jobs_that_wait_for_the_pool_get_the_connection_of_a_job_that_records_a_value(
    one_table: URL,
) -> None:
    class Records(Worker, max_attempts=1):
        async def process(self, job: Job, session: AsyncSession) -> Record:
            await session.execute(text("SELECT 1"))
            await asyncio.sleep(0.01)
            return Record(1)

    async with Oban(one_table, **RUNNING, session_connections=1) as oban:
        await oban.enqueue_many(Records.new() for _ in range(5))
        # The wait for a connection of the pool ends after 30 seconds, and begins again.
        await oban.wait_until_empty("default", timeout=15)


async def test_a_wait_for_the_pool_ends_with_the_timeout_and_with_the_node(
    one_table: URL, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_session_threads, "WAIT_INTERVAL", 0.02)
    begun, go = threading.Event(), threading.Event()

    class Holding(Worker):
        async def process(self, job: Job, session: Any) -> None:
            await session.execute(text("SELECT 1"))
            begun.set()
            await eventually(go.is_set, 20)

    class HoldingInThread(Worker):
        def process(self, job: Job, session: Session) -> None:
            session.execute(text("SELECT 1"))
            begun.set()
            assert go.wait(20)

    holding = Holding if form == "async" else HoldingInThread
    late, waiting = worker(form, selects, name="Late", timeout=0.2), worker(form, selects)
    options = {**RUNNING, "shutdown_grace_period": 0.05, "session_connections": 1}
    async with Oban(one_table) as client:
        oban = Oban(one_table, **options)
        await oban.start()
        await oban.enqueue(holding.new())
        await eventually(begun.is_set)
        row = await reaches(oban, await oban.enqueue(late.new()), JobState.RETRYABLE)
        assert row.errors[0]["error"].endswith("timed out after 0.2 s")
        job = await oban.enqueue(waiting.new())
        await reaches(oban, job, JobState.EXECUTING)
        await oban.stop()
        go.set()
        row = await row_of(client, job)
        assert (row.state, row.attempt, row.errors) == (JobState.AVAILABLE, 0, [])


async def test_sessions_connect_as_the_application_does(emptied_postgresql: URL, form: str) -> None:
    engine = create_async_engine(
        emptied_postgresql,
        connect_args={"server_settings": {"application_name": "mine"}},
        isolation_level="REPEATABLE READ",
    )
    seen: list[Any] = []

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("SET app.connected = 'yes'")
        cursor.close()
        connection.commit()

    @event.listens_for(engine.sync_engine, "checkout")
    def checked_out(_: Any, entry: Any, __: Any) -> None:
        entry.info["checked out"] = True

    def body(job: Job, session: Session) -> None:
        names = ("application_name", "transaction_isolation", "app.connected", "app.tenant")
        shown = [session.scalar(text(f"SHOW {name}")) for name in names]
        seen.append([*shown, session.connection().info.get("checked out")])

    async with Oban(engine, **RUNNING) as oban:

        @event.listens_for(engine.sync_engine, "begin")
        def begun(connection: Any) -> None:
            connection.exec_driver_sql("SET LOCAL app.tenant = '7'")

        await reaches(oban, await oban.enqueue(worker(form, body).new()), JobState.COMPLETED)
    assert seen == [["mine", "repeatable read", "yes", "7", True]]
    await engine.dispose()


async def test_a_connection_that_was_lost_while_it_was_idle_is_replaced(
    postgresql_url: URL, form: str
) -> None:
    pids: list[int] = []

    def body(job: Job, session: Session) -> None:
        pids.append(session.execute(text("SELECT pg_backend_pid()")).scalar_one())

    connecting = worker(form, body, max_attempts=1)
    engine = create_async_engine(postgresql_url)
    async with Oban(postgresql_url) as client, Oban(engine, queues={"default": 1}, **BRIEF):
        await reaches(client, await client.enqueue(connecting.new()), JobState.COMPLETED)
        async with client.engine.connect() as connection:
            # Waits up to ten seconds until the process has ended.
            ended = text("SELECT pg_terminate_backend(:pid, 10000)")
            assert await connection.scalar(ended, {"pid": pids[0]})
        row = await reaches(client, await client.enqueue(connecting.new()), JobState.COMPLETED)
        assert (row.attempt, row.errors) == (1, [])
        assert len(set(pids)) == 2
    await engine.dispose()


async def test_a_stop_closes_all_connections(emptied_postgresql: URL, server: Server, form: str) -> None:
    jobs = ConnectedJobs(form)
    async with Oban(emptied_postgresql, **RUNNING) as oban:
        await oban.enqueue_many(jobs.worker.new() for _ in range(5))
        await eventually(lambda: len(set(jobs.pids)) == 5)
        jobs.go.set()
        await oban.wait_until_empty("default")
        assert server.open() > 5
    await eventually(lambda: server.open() == 0)


async def test_a_connection_of_a_job_that_outlives_its_node_is_closed_when_the_job_ends(
    emptied_postgresql: URL, server: Server
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    class Stubborn(Worker):
        async def process(self, job: Job, session: Any) -> None:
            await session.execute(text("SELECT 1"))
            begun.set()
            while not go.is_set():
                try:
                    await go.wait()
                except asyncio.CancelledError:
                    continue

    oban = Oban(emptied_postgresql, **{**RUNNING, "shutdown_grace_period": 0.05})
    await oban.start()
    await oban.enqueue(Stubborn.new())
    await begun.wait()
    await oban.stop()
    await eventually(lambda: server.open() == 1)
    go.set()
    await eventually(lambda: server.open() == 0)
