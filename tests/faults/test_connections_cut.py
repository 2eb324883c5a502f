"""F8: the server repeatedly ends all connections, twice a second, or only those of the listeners.

For every commit 10 s of the one and 8 times the other; 30 s and 20 times with `OBAN_FAULTS=full`.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, text

from oban import Job, Oban, dialects
from tests.faults import recording
from tests.faults.cluster import Cluster
from tests.faults.history import History
from tests.faults.workers import Pause
from tests.support.databases import ADMINISTRATOR
from tests.support.settings import FULL
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

SECONDS, TIMES = (30.0, 20) if FULL else (10.0, 8)
POSTGRESQL = dialects.by_name("postgresql")
#: Seconds within which everything must work again.
BACK = 2.0
#: Seconds during which no service polls.
LATER = 60.0

END = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    f" AND application_name <> '{ADMINISTRATOR}'"
)
END_LISTENERS = f"{END} AND query LIKE 'LISTEN %'"


def end(url: URL, statement: str) -> int:
    """End connections, and return how many there were."""
    with recording.connected(url) as connection:
        return connection.scalar(text(statement)) or 0


class Feed:
    """Inserts jobs continuously, and retries each batch. `ids` has the jobs whose insertion was confirmed."""

    def __init__(self, client: Oban, rng: random.Random) -> None:
        self.client = client
        self.rng = rng
        self.ids: list[int] = []
        self.ending = False

    async def run(self) -> None:
        while not self.ending:
            try:
                await self.insert(5)
            # SQLAlchemy 2.0 does not wrap some errors that a driver raises when it connects.
            except Exception as error:
                if not POSTGRESQL.is_connection_error(error):
                    raise
                continue
            await asyncio.sleep(0.05)

    async def insert(self, count: int) -> list[Job]:
        lasting = [self.rng.uniform(0, 0.1) for _ in range(count)]
        jobs = await self.client.enqueue_many([Pause.new({"seconds": each}) for each in lasting])
        self.ids += [job.id for job in jobs]
        return jobs


@asynccontextmanager
async def feeding(client: Oban, rng: random.Random) -> AsyncIterator[Feed]:
    feed = Feed(client, rng)
    task = asyncio.create_task(feed.run())
    try:
        yield feed
    finally:
        feed.ending = True
        await task


def claimed(history: History, since: float, until: float) -> list[float]:
    """The times of the claims within an interval."""
    return sorted(
        change.at for change in history.changes if change.new == "executing" and since < change.at < until
    )


async def started(cluster: Cluster, jobs: list[Job]) -> None:
    """Wait until each of these jobs has started."""
    ids = [job.id for job in jobs]
    statement = text("SELECT count(*) FROM oban_jobs WHERE id = ANY(:ids) AND state = 'available'")

    def none_waits() -> bool:
        with recording.connected(cluster.ledger) as connection:
            return not connection.scalar(statement, {"ids": ids})

    await eventually(none_waits, BACK)


async def all_nodes(client: Oban, paused: bool) -> None:
    """Wait until all nodes report that their queues are paused, or are not."""

    async def so() -> bool:
        return [info.paused for info in await client.check_cluster("default")] == [paused] * 3

    await eventually(so, BACK)


def mixed(url: URL, folder: Path, **options: Any) -> Cluster:
    """Three nodes, one of them on psycopg."""
    cluster = Cluster(url, folder, size=3, **options)
    psycopg = url.set(drivername="postgresql+psycopg")
    cluster.nodes[0].config["url"] = psycopg.render_as_string(hide_password=False)
    return cluster


async def over(cluster: Cluster, feed: Feed) -> History:
    """Let all jobs end, and check the jobs and the nodes."""
    await cluster.settled(30)
    assert [(node.running, node.life) for node in cluster.nodes] == [(True, 1)] * 3
    await cluster.stop()
    history = cluster.check(expect=feed.ids)
    assert history.repeated_effects() == 0
    assert "Traceback" not in "".join(node.log for node in cluster.nodes)
    return history


async def test_all_connections_are_cut_again_and_again(
    postgresql_url: URL, tmp_path: Path, rng: random.Random
) -> None:
    async with mixed(postgresql_url, tmp_path) as cluster, Oban(postgresql_url) as client:
        async with feeding(client, rng) as feed:
            since, cut = time.time(), 0
            while time.time() < since + SECONDS:
                cut += await asyncio.to_thread(end, postgresql_url, END)
                await asyncio.sleep(0.5)
            until = time.time()
            await client.engine.dispose()
            await started(cluster, await feed.insert(5))
            await client.pause_queue("default")
            await all_nodes(client, paused=True)
            await client.resume_queue("default")
            await all_nodes(client, paused=False)
        history = await over(cluster, feed)
    # Each node has at least the listener, the heartbeats, the ledger and one more.
    assert cut > SECONDS / 0.5 * 0.5 * 12
    claims = [since, *claimed(history, since, until), until]
    pauses = [after - before for before, after in pairwise(claims)]
    print(f"{cut} connections cut, {len(claims) - 2} claims meanwhile, at most {max(pauses):.2f} s apart")
    assert max(pauses) < BACK


async def test_changes_while_no_connection_listens_are_found_when_one_listens_again(
    postgresql_url: URL, tmp_path: Path, rng: random.Random
) -> None:
    # By notifications, or by the poll after a new LISTEN; not by chance.
    late = {"poll_interval": LATER, "control_interval": LATER, "stage_interval": LATER}
    paused: list[tuple[float, float]] = []
    async with mixed(postgresql_url, tmp_path, **late) as cluster, Oban(postgresql_url) as client:
        for _ in range(TIMES):
            async with feeding(client, rng) as feed:
                assert await asyncio.to_thread(end, postgresql_url, END_LISTENERS) == 3
                await client.pause_queue("default")
                await all_nodes(client, paused=True)
                since = time.time()
                waiting = await feed.insert(5)
            assert await asyncio.to_thread(end, postgresql_url, END_LISTENERS) == 3
            paused.append((since, time.time()))
            await client.resume_queue("default")
            await started(cluster, waiting)
            await all_nodes(client, paused=False)
        history = await over(cluster, feed)
    assert [claimed(history, *when) for when in paused] == [[]] * TIMES
