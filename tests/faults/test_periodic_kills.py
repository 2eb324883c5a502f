"""F21: leaders are killed with SIGKILL during an hour of simulated minutes, and each tick inserts one job."""

import asyncio
import random
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, text

from oban import Oban, clock
from oban.clock import MovableClock
from tests.faults.cluster import Cluster
from tests.support.periodic import START, entry, fired_ticks, tick_rows
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

MINUTE = timedelta(minutes=1)
#: Simulated seconds in one second, so that the hour takes six.
SPEED = 600
LEASE = 0.6
NAMES = ("e1", "e2", "e3")


async def leader_of(oban: Oban) -> str | None:
    """The name of the node that leads; a lease that has ended counts as well."""
    async with oban.engine.connect() as connection:
        identity: str | None = await connection.scalar(text("SELECT node FROM oban_leaders"))
        return None if identity is None else identity.partition("/")[0]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_every_tick_of_an_hour_in_which_leaders_are_killed_inserts_one_job(
    request: pytest.FixtureRequest, database: str, tmp_path: Path, rng: random.Random
) -> None:
    url: URL = request.getfixturevalue(f"{database}_url")
    async with Oban(url) as client:
        with clock.use(MovableClock(START)):
            for name in NAMES:
                # Nobody runs their queue.
                await client.add_periodic(entry(name, catch_up="all", queue="none"))
        fast: dict[str, Any] = {"start": START.isoformat(), "since": time.time() + 3, "speed": SPEED}
        # Nodes that start before 0:00 of the simulated day see the evening before.
        options: dict[str, Any] = {"notifier": "poll", "control_interval": 0.1, "poll_interval": 0.1}
        async with Cluster(url, tmp_path, lease=LEASE, config={"fast": fast}, **options) as cluster:
            kills = 0

            def minutes() -> float:
                return float(time.time() - fast["since"]) * SPEED / 60

            while minutes() < 60:
                await asyncio.sleep(rng.uniform(0.3, 0.9))
                leader = await leader_of(client)
                for node in cluster.nodes:
                    if node.name == leader and node.running:
                        await node.restart()
                        kills += 1

            async def has_fired_all() -> bool:
                return len(await fired_ticks(client)) >= 60 * len(NAMES)

            await eventually(has_fired_all, 15)
            await cluster.kill_all()
        fired = await fired_ticks(client)
        rows = await tick_rows(client)
    last = max(tick for _, tick in fired)
    passed = int((datetime.fromisoformat(last) - START) / MINUTE)
    expected = {f"{START + minute * MINUTE:%Y-%m-%dT%H:%M:%SZ}" for minute in range(1, passed + 1)}
    assert set(fired.values()) == {1}
    print(f"{kills} leaders killed in {passed} simulated minutes")
    for name in NAMES:
        assert {tick for of, tick in fired if of == name} == expected
    assert passed >= 60
    assert kills >= 3
    assert len(rows) == len({job_id for _, _, job_id in rows}) == len(fired)
