"""F3: nodes are frozen for longer than their lease, and then continue."""

import asyncio
import random
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban import Oban
from tests.faults.cluster import Cluster, feed
from tests.faults.history import Entry, History
from tests.faults.workers import Pause
from tests.support.settings import FULL

pytestmark = pytest.mark.slow

LEASE = 2.0
FREEZES, JOBS = (20, 6_000) if FULL else (8, 2_000)
LASTING = (1.5 * LEASE, 3 * LEASE)
#: How many nodes are frozen at once. One of three always runs.
LANES = 2


def runs_elsewhere(history: History, end: Entry) -> bool:
    """Whether another run of the job was in progress when this one ended."""
    began = {
        entry.run
        for entry in history.ledger
        if entry.job == end.job and entry.what == "start" and entry.at < end.at
    }
    ended = {entry.run for entry in history.ledger if entry.what != "start" and entry.at < end.at}
    return bool(began - ended - {end.run})


async def test_a_frozen_runner_changes_nothing_that_is_no_longer_its_own(
    url: URL, tmp_path: Path, rng: random.Random
) -> None:
    async with Cluster(url, tmp_path, lease=LEASE, limit=20) as cluster, Oban(url) as client:
        # Some last so long that their second run is in progress when the first one is continued.
        longest = [3 * LEASE if index % 10 == 0 else 0.1 for index in range(JOBS)]
        jobs = [
            Pause.new({"seconds": rng.uniform(longest[index] / 3, longest[index])}) for index in range(JOBS)
        ]
        seconds = FREEZES / LANES * sum(LASTING) / 2
        feeding = asyncio.create_task(feed(client, jobs, JOBS / seconds))
        awake = list(cluster.nodes)

        async def freeze(times: int) -> None:
            for _ in range(times):
                node = awake.pop(rng.randrange(len(awake)))
                await node.freeze(rng.uniform(*LASTING))
                awake.append(node)
                # The node has time to continue, so its acknowledgements are late and not lost.
                await asyncio.sleep(0.5)

        await asyncio.gather(*(freeze(FREEZES // LANES) for _ in range(LANES)))
        ids = await feeding
        # The longest jobs can have to be rescued and run again.
        await cluster.settled(2 * (LEASE + 3 * LEASE) + 10, jobs=JOBS)
        await cluster.stop()
        history = cluster.check(expect=ids)
    states = history.states().values()
    assert {change.new for change in states} == {"completed"}
    rescued, late = history.rescues(), history.late_ends()
    disputed = [end for end in late if runs_elsewhere(history, end)]
    print(
        f"{JOBS} jobs, {FREEZES} freezes: {len(rescued)} rescued, {len(late)} late outcomes without effect,"
        f" {len(disputed)} of them while the job ran elsewhere"
    )
    # No process died, so every claim had its run, unless the node had lost the job before it started.
    assert sum(change.attempt for change in states) >= sum(entry.what == "start" for entry in history.ledger)
    assert len(rescued) == sum(change.attempt for change in states) - JOBS
    # Late outcomes and rescues did occur.
    assert disputed
