"""F17: jobs that kill their process, among jobs that do not."""

import asyncio
import random
import signal
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban import Oban
from tests.faults.cluster import Cluster
from tests.faults.workers import Die, Pause

pytestmark = pytest.mark.slow

LEASE = 2.0
GOOD = 1_000
ENDINGS = [*["exit"] * 5, *(number.name for number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL))]
ENDINGS += ["SIGBUS", "SIGFPE"]


async def test_jobs_that_kill_their_process_are_discarded_and_the_others_completed(
    url: URL, tmp_path: Path, rng: random.Random
) -> None:
    async with Cluster(url, tmp_path, lease=LEASE) as cluster, Oban(url) as client:
        cluster.supervise()
        poison = [Die.new({"by": ending}) for ending in ENDINGS]
        good = [Pause.new({"seconds": rng.uniform(0, 0.01)}) for _ in range(GOOD)]
        mixed = [*poison, *good]
        rng.shuffle(mixed)
        await client.enqueue_many(mixed)
        took = await cluster.settled(60, jobs=len(mixed))
        rows = {job.id: job for job in await client.list_jobs()}
        await asyncio.gather(*(node.ready() for node in cluster.nodes))
        await cluster.stop()
        history = cluster.check(expect=[job.id for job in mixed])
    deaths = sum(entry.what == "exit" for entry in history.ledger)
    print(f"{GOOD} good jobs and {len(poison)} poisonous ones took {took:.1f} s and {deaths} processes")
    assert {rows[job.id].state for job in good} == {"completed"}
    for job in poison:
        row = rows[job.id]
        assert (row.state, row.attempt) == ("discarded", 3)
        assert row.errors[-1]["attempt"] == 3
        assert row.errors[-1]["error"]
        # A job can lose an attempt without killing the process itself, if it was fetched with another one.
        assert sum(entry.what == "exit" and entry.job == job.id for entry in history.ledger) <= 3
    assert deaths >= len(poison)
