"""F14: four processes insert, claim and acknowledge in one SQLite file, and are killed 20 times."""

import asyncio
import random
from pathlib import Path

import pytest
from sqlalchemy import URL, text

from oban import Oban
from tests.faults import recording
from tests.faults.cluster import Cluster
from tests.faults.contending import BATCH, Insert

pytestmark = pytest.mark.slow

PROCESSES = 4
JOBS = 20_000
KILLS = 20


def logged(folder: Path) -> list[str]:
    """The lines that all processes wrote."""
    return [line for path in folder.glob("n*.log") for line in path.read_text().splitlines()]


async def test_four_processes_share_a_file_and_lose_nothing(
    sqlite_url: URL, tmp_path: Path, rng: random.Random
) -> None:
    with recording.connected(sqlite_url) as connection:
        connection.execute(text("CREATE TABLE batches (part int, n int, PRIMARY KEY (part, n))"))
    batches = JOBS // PROCESSES // BATCH
    async with Oban(sqlite_url) as client:
        await client.enqueue_many([Insert.new({"part": n, "batches": batches}) for n in range(PROCESSES)])
    async with Cluster(
        sqlite_url,
        tmp_path,
        size=PROCESSES,
        lease=3.0,
        config={"modules": ["tests.faults.contending"]},
        queues={"default": 20, "inserts": 1},
    ) as cluster:
        for _ in range(KILLS):
            await asyncio.sleep(rng.uniform(0.2, 0.6))
            node = rng.choice([node for node in cluster.nodes if node.running])
            await node.restart()
        await asyncio.gather(*(node.ready() for node in cluster.nodes))
        await cluster.settled(90, jobs=JOBS + PROCESSES)
        await cluster.stop()
        history = cluster.history()
        jobs = {change.job for change in history.changes}
        cluster.check(expect=range(1, JOBS + PROCESSES + 1), silent=jobs)
    assert cluster.counts() == {"completed": JOBS + PROCESSES}
    assert [line for line in logged(tmp_path) if "locked" in line] == []
    with recording.connected(sqlite_url) as connection:
        assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
        assert connection.scalar(text("SELECT count(*) FROM batches")) == batches * PROCESSES
