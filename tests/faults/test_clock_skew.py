"""F6: nodes and clients whose wall clocks are wrong by an hour."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import URL, select

from oban import Job, Oban, Snooze, Worker, clock
from oban.models import Leader
from tests.faults.cluster import Cluster
from tests.faults.node import Skewed
from tests.faults.workers import Pause, noted
from tests.support.settings import FULL

pytestmark = pytest.mark.slow

HOUR = 3600.0
# A long lease, as no node fails here, and none may count as failed on a busy machine.
LEASE = 4.0
JOBS, SECONDS = (1_000, 10.0) if FULL else (300, 5.0)


class Again(Worker, name="faults.Again"):
    """Snoozes first, then fails, then completes."""

    async def process(self, job: Job) -> Snooze | None:
        async with noted(job):
            if not job.meta.get("snoozed"):
                return Snooze(1)
            if job.attempt == 1:
                raise ValueError("not yet")
            return None

    def backoff(self, job: Job) -> float:
        return 1.0


async def test_jobs_start_by_the_clock_of_the_database(url: URL, tmp_path: Path, rng: random.Random) -> None:
    cluster = Cluster(url, tmp_path, lease=LEASE)
    cluster.config["modules"] = ["tests.faults.workers", "tests.faults.test_clock_skew"]
    for node, skew in zip(cluster.nodes, (-HOUR, 0, HOUR), strict=True):
        node.config["skew"] = skew
    async with cluster, Oban(url) as client:
        leaders: set[str] = set()

        async def watch() -> None:
            while True:
                async with client.engine.connect() as connection:
                    leaders.update((await connection.execute(select(Leader.node))).scalars())
                await asyncio.sleep(0.1)

        watching = asyncio.create_task(watch())
        ids: list[int] = []
        for index in range(JOBS):
            due = rng.uniform(0.5, SECONDS)
            # The client that inserts has a wrong clock as well.
            with clock.use(Skewed((-HOUR, 0, HOUR)[index % 3])):
                if index % 2:
                    job = Pause.new({"seconds": 0}, schedule_in=due)
                else:
                    job = Pause.new({"seconds": 0}, scheduled_at=datetime.now(UTC) + timedelta(seconds=due))
                ids.append((await client.enqueue(job)).id)
        ids += [job.id for job in await client.enqueue_many(Again.new() for _ in range(30))]
        await cluster.settled(SECONDS + 20, jobs=len(ids))
        watching.cancel()
        rows = {job.id: job for job in await client.list_jobs()}
        await cluster.stop()
        history = cluster.check(expect=ids)
    starts = {entry.job: entry.at for entry in history.ledger if entry.what == "start"}
    # The delay of the last run of each job.
    late = {id_: starts[id_] - row.scheduled_at.timestamp() for id_, row in rows.items()}
    print(f"{len(ids)} jobs, {min(late.values()):.3f} to {max(late.values()):.3f} s after their time")
    assert [rows[id_] for id_, seconds in late.items() if not 0 <= seconds <= 5] == []
    ran_on = {change.node for change in history.states().values()}
    assert ran_on == {"n1.1", "n2.1", "n3.1"}
    assert history.rescues() == []
    assert len(leaders) == 1
