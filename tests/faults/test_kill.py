"""F1: nodes are killed with SIGKILL while jobs are inserted and run."""

import asyncio
import random
import time
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban import Oban
from tests.faults.cluster import Cluster, feed
from tests.faults.workers import Pause
from tests.support.settings import FULL

pytestmark = pytest.mark.slow

LEASE = 2.0
LIMIT = 10
KILLS, JOBS = (100, 10_000) if FULL else (12, 900)
PAUSE = (0.2, 0.8)


async def test_no_job_is_lost_or_stored_twice_when_nodes_are_killed(
    postgresql_url: URL, tmp_path: Path, rng: random.Random
) -> None:
    async with (
        Cluster(postgresql_url, tmp_path, limit=LIMIT, lease=LEASE) as cluster,
        Oban(postgresql_url) as client,
    ):
        # Jobs are inserted for longer than the kills take, so each kill can hit running jobs.
        seconds = KILLS * sum(PAUSE) / 2 * 1.2
        # Several of them run at any time, so that at least one kill hits one.
        jobs = [Pause.new({"seconds": rng.uniform(0, 0.05)}) for _ in range(JOBS)]
        feeding = asyncio.create_task(feed(client, jobs, JOBS / seconds))
        for _ in range(KILLS):
            await asyncio.sleep(rng.uniform(*PAUSE))
            await (await cluster.any_ready(rng)).restart()
        ids = await feeding
        fed = time.monotonic()
        await cluster.settled(LEASE + 10, jobs=JOBS)
        drained = time.monotonic() - fed
        await asyncio.gather(*(node.ready() for node in cluster.nodes))
        await cluster.stop()
        history = cluster.check(expect=ids)
    states = history.states().values()
    assert {change.new for change in states} == {"completed"}
    # Every claim had its run, except if a kill came before it.
    starts = sum(entry.what == "start" for entry in history.ledger)
    claims = sum(change.attempt for change in states)
    rescued, repeated = len(history.rescues()), history.repeated_effects()
    print(
        f"{JOBS} jobs, {KILLS} kills: {rescued} rescued, {repeated} effects repeated,"
        f" drained in {drained:.1f} s"
    )
    assert rescued == claims - JOBS
    assert 0 <= claims - starts <= rescued
    assert 0 < rescued <= KILLS * LIMIT
    assert repeated <= KILLS * LIMIT
    assert drained <= LEASE + 10
