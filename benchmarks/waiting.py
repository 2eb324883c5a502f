"""Measures how soon an idle runner starts a job that another process inserts, and what idling costs.

Both processes use the machine's monotonic clock.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor

from sqlalchemy import URL, make_url

from benchmarks import meter as meters
from benchmarks import raw
from benchmarks.drain import counting, ours
from benchmarks.insert import Noop
from benchmarks.meter import QUEUE, TIME_LIMIT, Meter, percentiles
from oban import Oban

LIMIT = 10
#: Seconds between two inserts, and before the first one, once the runner is idle.
GAP = 0.02
REST = 1.0
#: How many seconds ahead jobs are scheduled, and the seconds between two such inserts.
AHEAD = 2.0
GAP_AHEAD = 0.01
WARM_UP = 5
#: Seconds until a node without jobs is measured, and seconds of the measurement.
IDLE_REST = 12.0
IDLE_TIME = 30.0
COMMITS = """
SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()
"""


async def latency(url: URL, meter: Meter, side: str) -> None:
    """Measure from the insert's return to the first line of the job."""
    await _measure(url, meter, side, GAP, None)


async def scheduled(url: URL, meter: Meter, side: str) -> None:
    """Measure from the scheduled time to the first line of the job."""
    await _measure(url, meter, side, GAP_AHEAD, AHEAD)


async def idle(url: URL, meter: Meter, side: str) -> None:
    """Measure the transactions and the CPU time of a node with five queues and no job."""
    connection = await raw.connect(url)
    async with Oban(url, queues={f"{QUEUE}{n}": LIMIT for n in range(5)}):
        # It compares clocks and settings first. A connection that falls silent reports its last transactions
        # to the server's statistics up to ten seconds later.
        await asyncio.sleep(IDLE_REST)
        before, used, begun = await connection.fetchval(COMMITS), time.process_time(), time.monotonic()
        await asyncio.sleep(IDLE_TIME)
        share = (time.process_time() - used) / (time.monotonic() - begun)
        transactions = await connection.fetchval(COMMITS) - before
    await connection.close()
    meter.figures = {"transactions/s": transactions / IDLE_TIME, "% of a core": share * 100}


async def _measure(url: URL, meter: Meter, side: str, gap: float, ahead: float | None) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        address = url.render_as_string(hide_password=False)
        running = asyncio.get_running_loop().run_in_executor(pool, _runner, address, side, meter.jobs)
        connection = await raw.connect(url)
        async with Oban(url) as oban:

            async def insert(n: int, delay: float | None = None) -> None:
                if side == "raw":
                    await raw.insert_one(connection, n)
                elif delay is None:
                    await oban.enqueue(Noop.new({"n": n}))
                else:
                    await oban.enqueue(Noop.new({"n": n}, schedule_in=delay))

            await _warm_up(url, insert)
            wanted = []
            due = time.monotonic()
            for n in range(meter.jobs):
                due += gap
                await asyncio.sleep(due - time.monotonic())
                before = time.monotonic()
                await insert(n, ahead)
                wanted.append(time.monotonic() if ahead is None else before + ahead)
            begun = await running
        await connection.close()
    late = [begun[n] - wanted[n] for n in range(meter.jobs)]
    if ahead and min(late) < 0:
        raise SystemExit(f"a job started {-min(late):.3f} s too early")
    meter.figures = percentiles(late)


async def _warm_up(url: URL, insert: Callable[[int], Awaitable[None]]) -> None:
    for n in range(WARM_UP):
        await insert(-1 - n)
    async with counting(url) as left:
        while await left():  # noqa: ASYNC110 - another process runs them
            await asyncio.sleep(0.01)
    await asyncio.sleep(REST)


def _runner(url: str, side: str, jobs: int) -> dict[int, float]:
    """Run all jobs; returns the time at which each began."""
    return meters.run(_run(make_url(url), side, jobs))


async def _run(url: URL, side: str, jobs: int) -> dict[int, float]:
    begun: dict[int, float] = {}
    everything = asyncio.Event()

    def body(n: int) -> None:
        begun[n] = time.monotonic()
        if len(begun) == jobs + WARM_UP:
            everything.set()

    async with asyncio.timeout(TIME_LIMIT):
        if side == "ours":
            await ours(url, LIMIT, body, everything.wait)
        else:
            await raw.serve(url, LIMIT, body, everything)
    return begun
