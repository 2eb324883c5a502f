"""F12: no connection is left, in the application's pool or on the server.

For 3 s, which is longer than the lease, so a node without heartbeats would be noticed.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from oban import Job, JobState, Oban, Worker
from tests.faults import recording
from tests.faults.cluster import Cluster
from tests.faults.history import Fault
from tests.faults.workers import Pause
from tests.support.database_server import Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

HELD = 3.0
LEASE = 2.0


BEATS = {
    "sqlite": [
        """CREATE TRIGGER beat AFTER UPDATE ON oban_producers
           BEGIN INSERT INTO beats VALUES (NEW.updated_at); END"""
    ],
    "postgresql": [
        """CREATE FUNCTION beat() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN INSERT INTO beats VALUES (new.updated_at); RETURN NULL; END $$""",
        "CREATE TRIGGER beat AFTER UPDATE ON oban_producers FOR EACH ROW EXECUTE FUNCTION beat()",
    ],
}


class Slow(Worker, name="pool.Slow"):
    started: list[int]

    async def process(self, job: Job) -> None:
        Slow.started.append(job.id)
        await asyncio.sleep(job.args["seconds"])


@pytest.fixture(params=["sqlite", "asyncpg", "psycopg"])
def url(request: pytest.FixtureRequest) -> URL:
    if request.param == "sqlite":
        made: URL = request.getfixturevalue("sqlite_url")
        return made
    made = request.getfixturevalue("postgresql_url")
    return made.set(drivername=f"postgresql+{request.param}")


async def completed(url: URL, job: Job) -> None:
    """Wait until a job is completed, on a connection outside of any pool."""

    def is_completed() -> bool:
        with recording.connected(url) as connection:
            statement = text("SELECT CAST(state AS text) FROM oban_jobs WHERE id = :id")
            return bool(connection.scalar(statement, {"id": job.id}) == "completed")

    await eventually(is_completed)


@pytest.fixture
async def engine(url: URL) -> AsyncIterator[AsyncEngine]:
    """The application's engine, with three connections."""
    made = create_async_engine(url, pool_size=3, max_overflow=0)
    yield made
    await made.dispose()


async def test_a_runner_needs_no_connection_of_the_applications_pool(url: URL, engine: AsyncEngine) -> None:
    Slow.started = []
    recording.install(url)
    beating = text("SELECT count(DISTINCT updated_at) FROM beats")
    with recording.connected(url) as connection:
        connection.exec_driver_sql("CREATE TABLE beats (updated_at text)")
        for statement in BEATS[url.get_backend_name()]:
            connection.exec_driver_sql(statement)
        async with (
            Oban(engine, queues={"default": 5}, lease=LEASE, rescue_after=0.5) as oban,
            Oban(url, name="other", queues={"other": 1}, lease=LEASE),
            Oban(url, name="client") as client,
            contextlib.AsyncExitStack() as held,
        ):
            long = await client.enqueue(Slow.new({"seconds": HELD}))
            await eventually(lambda: long.id in Slow.started)
            for _ in range(3):
                await held.enter_async_context(engine.connect())
            since, beats = time.monotonic(), connection.scalar(beating) or 0
            jobs: list[Job] = []
            while time.monotonic() - since < HELD:
                jobs += await client.enqueue_many([Slow.new({"seconds": 0.01}) for _ in range(10)])
                # Each job is found, run and acknowledged on its own.
                await completed(url, jobs[-1])
                await asyncio.sleep(0.1)
            assert (connection.scalar(beating) or 0) - beats > HELD / LEASE * 2
            await held.aclose()
            await completed(url, long)
            assert {job.state for job in await oban.list_jobs()} == {JobState.COMPLETED}
    changes = recording.read(url).changes
    assert sorted(Slow.started) == sorted(change.job for change in changes if change.new == "executing")
    assert len(Slow.started) == len(jobs) + 1 == len(set(Slow.started))


OTHERS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> ALL(%s)
"""


class FullServer:
    """Ends all connections, and takes every connection that the server allows."""

    def __init__(self, server: Server) -> None:
        self.dsn = server.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self.held = [psycopg.connect(self.dsn, autocommit=True)]

    def fill(self) -> None:
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    self.held.append(psycopg.connect(self.dsn, autocommit=True))
            ours = [connection.info.backend_pid for connection in self.held]
            ended = self.held[0].execute(OTHERS, [ours]).fetchone()
            if ended == (0,):
                return

    def release(self) -> None:
        for connection in self.held:
            connection.close()


async def test_nodes_recover_from_a_server_that_has_no_connection_left(
    server: Server, server_url: URL, tmp_path: Path
) -> None:
    async with Cluster(server_url, tmp_path, size=2, lease=LEASE) as cluster:
        async with Oban(server_url) as client:
            jobs = await client.enqueue_many([Pause.new({"seconds": 0.05}) for _ in range(300)])
        full = FullServer(server)
        since = time.time()
        await asyncio.to_thread(full.fill)
        await asyncio.sleep(HELD)
        await asyncio.to_thread(full.release)
        released = time.monotonic()
        cluster.faults.append(Fault(None, "cut", since, time.time()))
        async with Oban(server_url) as client:
            after = await client.enqueue(Pause.new({"seconds": 0}, priority=0))

        def begun() -> bool:
            return any(entry.job == after.id for entry in recording.read(server_url).ledger)

        await eventually(lambda: asyncio.to_thread(begun), 10)
        assert time.monotonic() - released < 5
        await cluster.settled(20, jobs=301)
        assert [node.life for node in cluster.nodes] == [1, 1]
        await cluster.stop()
        cluster.check(expect=[job.id for job in [*jobs, after]])
