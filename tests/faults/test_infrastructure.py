"""The infrastructure of the tests with faults works: processes, a server, a proxy and the recording."""

import asyncio
import signal
import time
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from oban import Oban
from tests.faults import recording
from tests.faults.cluster import Cluster
from tests.faults.proxy import Moment, Proxy
from tests.faults.workers import Pause, ThreadPause
from tests.support.database_server import Server
from tests.support.waiting import eventually


@pytest.mark.slow
async def test_a_cluster_runs_jobs_and_its_history_breaks_no_rule(url: URL, tmp_path: Path) -> None:
    async with Cluster(url, tmp_path, size=2) as cluster, Oban(url) as client:
        jobs = [worker.new({"seconds": 0}) for worker in (Pause, ThreadPause) for _ in range(20)]
        await client.enqueue_many(jobs)
        await client.delete_job(await client.enqueue(Pause.new(schedule_in=60)))
        await cluster.settled(20, jobs=40)
        await cluster.stop()
        history = cluster.check(expect=[job.id for job in jobs])
    assert [sum(entry.what == what for entry in history.ledger) for what in ("start", "end")] == [40, 40]
    assert {change.new for change in history.states().values()} == {"completed", None}
    moves = {(change.old, change.new) for change in history.changes if change.old}
    assert moves == {("available", "executing"), ("executing", "completed"), ("scheduled", None)}
    claims = [change for change in history.changes if change.new == "executing"]
    assert {(entry.job, entry.attempt, entry.node, entry.owner) for entry in history.ledger} == {
        (claim.job, claim.attempt, claim.node, claim.owner) for claim in claims
    }
    assert {claim.node for claim in claims} <= {"n1.1", "n2.1"}
    assert [fault.kind for fault in cluster.faults] == ["stop", "stop"]


async def test_a_killed_process_is_gone_and_a_frozen_one_stands_still(
    postgresql_url: URL, tmp_path: Path
) -> None:
    async with Cluster(postgresql_url, tmp_path, size=1) as cluster, Oban(postgresql_url) as client:
        (node,) = cluster.nodes
        freezing = asyncio.create_task(node.freeze(1.0))
        await asyncio.sleep(0.1)
        since = time.monotonic()
        await client.enqueue(Pause.new({"seconds": 0}))
        await cluster.settled(20)
        assert time.monotonic() - since > 0.8
        await freezing
        await node.kill()
        assert not node.running
        await node.restart()
        await node.ready()
        assert node.name == "n1.2"
        await client.enqueue(Pause.new({"seconds": 0}))
        await cluster.settled(20)
    assert not node.running
    assert [(fault.node, fault.kind) for fault in cluster.faults] == [("n1.1", "freeze"), ("n1.1", "kill")]
    assert 0.9 < cluster.faults[0].until - cluster.faults[0].since < 5


async def test_a_process_that_dies_is_restarted_and_its_output_is_shown(
    postgresql_url: URL, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def dies() -> None:
        async with Cluster(postgresql_url, tmp_path, size=1) as cluster:
            (node,) = cluster.nodes
            cluster.supervise()
            node.send(signal.SIGSEGV)
            await eventually(lambda: node.life == 2)
            await node.ready()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await dies()
    assert "---- n1.1.log" in capsys.readouterr().out


async def test_a_stopped_or_crashed_server_comes_back_with_committed_rows(
    server: Server, server_url: URL
) -> None:
    with recording.connected(server_url) as connection:
        connection.execute(text("CREATE TABLE kept (id int)"))
        connection.execute(text("INSERT INTO kept VALUES (1)"))
        await asyncio.to_thread(server.crash_restart)
        with pytest.raises(DBAPIError):
            connection.execute(text("SELECT 1"))
        connection.invalidate()
    await asyncio.to_thread(server.stop)
    assert not server.running
    with pytest.raises(DBAPIError), recording.connected(server_url):
        pass
    await asyncio.to_thread(server.start)
    for url in (server_url, server.socket_url.set(database=server_url.database)):
        with recording.connected(url) as connection:
            assert connection.scalar(text("SELECT count(*) FROM kept")) == 1


@pytest.fixture
async def numbers(server_url: URL) -> URL:
    """A table for commits."""
    with recording.connected(server_url) as connection:
        connection.execute(text("CREATE TABLE numbers (id int)"))
    return server_url


def stored(url: URL) -> int:
    with recording.connected(url) as connection:
        return connection.scalar(text("SELECT count(*) FROM numbers")) or 0


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize(
    ("when", "raises", "rows"), [("request", True, 1), ("answer", True, 2), ("after", False, 2)]
)
async def test_a_commit_is_cut_at_the_moment_asked_for(
    server: Server, numbers: URL, driver: str, autocommit: bool, when: Moment, raises: bool, rows: int
) -> None:
    async with Proxy(server.url) as proxy:
        url = proxy.through(numbers).set(drivername=f"postgresql+{driver}")
        level = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
        engine = create_async_engine(url, **level)

        async def insert() -> None:
            async with engine.begin() as connection:
                assert (await connection.scalar(text("SELECT 1"))) == 1
                await connection.execute(text("INSERT INTO numbers VALUES (:id)"), {"id": 1})

        try:
            await insert()
            proxy.cut_commits(when, 1, containing=b"INTO numbers")
            # A transaction without the string does not count.
            async with engine.begin() as connection:
                await connection.execute(text("CREATE TABLE others (id int)"))
            assert (proxy.cuts, proxy.armed) == (0, 1)
            if raises:
                with pytest.raises((DBAPIError, OSError)):
                    await insert()
            else:
                await insert()
            assert (proxy.cuts, proxy.armed, stored(numbers)) == (1, 0, rows)
            await engine.dispose()
            await insert()
            assert stored(numbers) == rows + 1
        finally:
            await engine.dispose()


async def fetched(connection: psycopg.AsyncConnection) -> int:
    row = await (await connection.execute("SELECT 1")).fetchone()
    assert row is not None
    return int(row[0])


async def test_connections_are_cut_refused_and_held_back(server: Server, server_url: URL) -> None:
    async with Proxy(server.url) as proxy:
        dsn = proxy.through(server_url).set(drivername="postgresql").render_as_string()
        first = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        proxy.refusing = True
        with pytest.raises(psycopg.OperationalError):
            await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        assert await fetched(first) == 1
        assert proxy.cut() == 1
        with pytest.raises(psycopg.OperationalError):
            await fetched(first)
        proxy.refusing = False
        second = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        proxy.flowing.clear()
        asking = asyncio.create_task(fetched(second))
        await asyncio.wait({asking}, timeout=0.2)
        assert not asking.done()
        proxy.flowing.set()
        assert await asking == 1
        await second.close()
