"""F4: jobs that block the event loop for longer than the lease."""

import random
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban import Oban
from tests.faults.cluster import Cluster, feed
from tests.faults.workers import Block, Pause
from tests.support.settings import FULL

pytestmark = pytest.mark.slow

LEASE = 2.0
BLOCKS, JOBS = (10, 1_000) if FULL else (4, 400)


async def test_a_node_whose_event_loop_is_blocked_keeps_its_jobs(
    url: URL, tmp_path: Path, rng: random.Random
) -> None:
    cluster = Cluster(url, tmp_path, lease=LEASE)
    blocked, healthy = cluster.nodes[:2], cluster.nodes[2]
    for node in blocked:
        # One after the other on each node.
        node.options = {"queues": {"default": 10, "blocking": 1}}
    async with cluster, Oban(url) as client:
        blocks = [Block.new({"seconds": 3 * LEASE}, queue="blocking") for _ in range(BLOCKS)]
        await client.enqueue_many(blocks)
        jobs = [Pause.new({"seconds": rng.uniform(0, 0.05)}) for _ in range(JOBS)]
        seconds = BLOCKS / len(blocked) * 3 * LEASE
        ids = await feed(client, jobs, JOBS / seconds)
        # On SQLite the blocks can have to wait for each other.
        took = await cluster.settled(BLOCKS * 3 * LEASE + 10, jobs=JOBS + BLOCKS)
        await cluster.stop()
        history = cluster.check(expect=[*ids, *(job.id for job in blocks)])
    print(f"{BLOCKS} blocks of {3 * LEASE} s, {JOBS} other jobs, drained in {took:.1f} s")
    # No job was rescued, neither those that block nor those that wait for the loop.
    assert history.rescues() == []
    states = history.states().values()
    assert {(change.new, change.attempt) for change in states} == {("completed", 1)}
    inserted = {change.job: change.at for change in history.changes if change.old is None}
    waits = [
        entry.at - inserted[entry.job]
        for entry in history.ledger
        if entry.what == "start" and entry.node == healthy.name
    ]
    if url.get_backend_name() == "postgresql":
        # The other node continued. SQLite has one writer, so a loop that is blocked in the middle of a
        # transaction blocks all nodes.
        assert len(waits) > JOBS / 2
        assert max(waits) < 2
    for job in blocks:
        ran_on = history.states()[job.id].node
        log = next(node.log for node in blocked if node.name == ran_on)
        assert f"s by job {job.id} ({Block.worker_name})" in log
