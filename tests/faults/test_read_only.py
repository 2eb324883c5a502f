"""F10: a primary becomes read-only for longer than a lease, and writable again.

For every commit 2 phases of 3 s; 3 of 10 s with `OBAN_FAULTS=full`.
"""

import asyncio
import random
import time
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

from oban import Oban
from tests.faults import recording
from tests.faults.cluster import Cluster
from tests.faults.history import History
from tests.faults.outages import BACK, claimers, delays, leaders_and_producers
from tests.faults.workers import Pause
from tests.support.database_server import Server
from tests.support.settings import FULL
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

PHASES, SECONDS = (3, 10.0) if FULL else (2, 3.0)
#: The number of jobs that one transaction inserts, and the seconds from one to the next.
BATCH, PAUSE = 20, 0.2
#: An option of the session overrides the setting of the server.
WRITABLE = {"options": "-cdefault_transaction_read_only=off"}


def turn(url: URL, read_only: bool) -> None:
    """Make the next transactions of every session read-only, also of open sessions, or writable again."""
    with recording.connected(url) as connection:
        value = "on" if read_only else "off"
        connection.execute(text(f"ALTER SYSTEM SET default_transaction_read_only = {value}"))
        connection.execute(text("SELECT pg_reload_conf()"))


def acknowledged_later(history: History, since: float, until: float) -> int:
    """The number of jobs that ended within an interval and were acknowledged after it."""
    ended = {entry.job for entry in history.ledger if entry.what == "end" and since < entry.at < until}
    later = {change.job for change in history.changes if change.new == "completed" and change.at >= until}
    return len(ended & later)


async def test_the_database_becomes_read_only_while_jobs_run(
    server: Server, server_url: URL, tmp_path: Path, rng: random.Random
) -> None:
    ledger = server_url.update_query_dict(WRITABLE)
    phases: list[tuple[float, float]] = []
    ids: list[int] = []
    refused: set[str | None] = set()
    cluster = Cluster(server_url, tmp_path, size=3, ledger=ledger)
    psycopg = server_url.set(drivername="postgresql+psycopg")
    cluster.nodes[0].config["url"] = psycopg.render_as_string(hide_password=False)

    over = asyncio.Event()

    async def insert() -> None:
        while not over.is_set():
            lasting = [rng.uniform(0, 0.2)] * (BATCH - 3) + [rng.uniform(0, SECONDS) for _ in range(3)]
            try:
                jobs = await client.enqueue_many([Pause.new({"seconds": each}) for each in lasting])
            except DBAPIError as error:
                refused.add(getattr(error.orig, "sqlstate", None))
            else:
                ids.extend(job.id for job in jobs)
            await asyncio.sleep(PAUSE)

    def all_claim(since: float) -> bool:
        return claimers(ledger, since) == 3

    async with cluster, Oban(server_url) as client:
        inserting = asyncio.create_task(insert())
        try:
            for _ in range(PHASES):
                writable_since = phases[-1][1] if phases else 0.0
                await eventually(partial(all_claim, writable_since))
                await asyncio.to_thread(turn, ledger, True)
                since = time.time()
                await asyncio.sleep(SECONDS)
                await asyncio.to_thread(turn, ledger, False)
                phases.append((since, time.time()))
        finally:
            await asyncio.to_thread(turn, ledger, False)
        back = [until for _, until in phases]
        await eventually(lambda: leaders_and_producers(server_url, back[-1]) == (1, 3), BACK)
        await eventually(partial(all_claim, back[-1]))
        over.set()
        await inserting
        await cluster.settled(60)
        assert [(node.running, node.life) for node in cluster.nodes] == [(True, 1)] * 3
        await cluster.stop()
        history = cluster.check(expect=ids)
    # A statement that had begun could still write for a moment.
    within = [(since + 1.0, until) for since, until in phases]
    assert [change for change in history.changes if any(a < change.at < b for a, b in within)] == []
    assert refused == {"25006"}
    assert all(acknowledged_later(history, *phase) >= 5 for phase in phases)
    assert history.repeated_effects() == 0
    waits = delays(history, back)
    print("seconds until each node claimed again:", *(f"{wait:.2f}" for wait in waits))
    assert max(waits) < BACK
    assert "Traceback" not in "".join(node.log for node in cluster.nodes)
