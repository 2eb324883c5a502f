"""F7: the database crashes repeatedly, and is away for longer than a lease once.

For every commit 5 crashes and 3,000 jobs, with 4 s away; 10, 5,000 and 10 s with `OBAN_FAULTS=full`.
"""

import asyncio
import random
import signal
import time
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban import Oban, dialects
from tests.faults.cluster import Cluster
from tests.faults.history import Fault
from tests.faults.outages import BACK, delays, leaders_and_producers
from tests.faults.workers import Pause
from tests.support.database_server import Server
from tests.support.settings import FULL
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

CRASHES, JOBS, AWAY = (10, 5000, 10.0) if FULL else (5, 3000, 4.0)
POSTGRESQL = dialects.by_name("postgresql")
#: The number of jobs that one transaction inserts.
BATCH = 20


async def insert(client: Oban, rng: random.Random, seconds: float) -> list[int]:
    """Insert all jobs in this many seconds, retry each batch, and return the ids that were confirmed."""
    ids: list[int] = []
    since = time.monotonic()
    while len(ids) < JOBS:
        # Some jobs run whenever the database goes away.
        lasting = [rng.uniform(0, 0.05)] * (BATCH - 1) + [rng.uniform(0, 3)]
        try:
            jobs = await client.enqueue_many([Pause.new({"seconds": each}) for each in lasting])
        # SQLAlchemy 2.0 does not wrap some errors that a driver raises when it connects.
        except Exception as error:
            if not POSTGRESQL.is_connection_error(error):
                raise
            await asyncio.sleep(0.05)
        else:
            ids += [job.id for job in jobs]
            await asyncio.sleep(since + seconds * len(ids) / JOBS - time.monotonic())
    return ids


async def test_the_database_crashes_repeatedly(
    server: Server, server_url: URL, tmp_path: Path, rng: random.Random
) -> None:
    back: list[float] = []
    cluster = Cluster(server_url, tmp_path, size=3)
    psycopg = server_url.set(drivername="postgresql+psycopg")
    cluster.nodes[0].config["url"] = psycopg.render_as_string(hide_password=False)
    async with cluster, Oban(server_url) as client:
        pauses = [rng.uniform(3, 8) for _ in range(CRASHES)]
        inserting = asyncio.create_task(insert(client, rng, sum(pauses) + AWAY + CRASHES))
        for number, pause in enumerate(pauses):
            await asyncio.sleep(pause)
            await asyncio.to_thread(server.stop, "immediate")
            # Once for longer than a lease. Not recorded as a fault, as that would allow a rescue.
            await asyncio.sleep(AWAY if number == CRASHES // 2 else 0)
            await asyncio.to_thread(server.start)
            back.append(time.time())
        await eventually(lambda: leaders_and_producers(server_url, back[-1]) == (1, 3), BACK)
        ids = await inserting
        await cluster.settled(30)
        assert [(node.running, node.life) for node in cluster.nodes] == [(True, 1)] * 3
        await cluster.stop()
        history = cluster.check(expect=ids)
    waits = delays(history, back)
    print("seconds until each node claimed again:", *(f"{wait:.2f}" for wait in waits))
    assert max(waits) < BACK
    assert history.repeated_effects() == 0
    # An outage of the database is not worth a traceback.
    assert "Traceback" not in "".join(node.log for node in cluster.nodes)


async def test_nodes_stop_during_an_outage_and_their_jobs_run_later(
    server: Server, server_url: URL, tmp_path: Path
) -> None:
    async with Cluster(server_url, tmp_path, size=3, shutdown_grace_period=1.0) as cluster:
        async with Oban(server_url) as client:
            jobs = await client.enqueue_many([Pause.new({"seconds": 0.5}) for _ in range(20)])
            await eventually(lambda: cluster.counts().get("executing") == 20)
        since = time.time()
        await asyncio.to_thread(server.stop, "immediate")
        stopped = cluster.nodes[:2]
        for node in stopped:
            node.send(signal.SIGTERM)
        assert await asyncio.gather(*(node.gone(15) for node in stopped)) == [0, 0]
        await asyncio.to_thread(server.start)
        # The nodes could store nothing, as if they had been killed.
        cluster.faults += [Fault(node.name, "kill", since, time.time()) for node in stopped]
        await cluster.settled(20)
        await cluster.stop()
        cluster.check(expect=[job.id for job in jobs])
