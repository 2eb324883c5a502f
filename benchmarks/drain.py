"""Run the jobs that wait in the table.

Measured from the first job body until the table says that all are completed. Left out, for both
sides: imports, connecting, and the first fetch.
"""

import asyncio
import contextlib
import multiprocessing
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any

from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks import meter as meters
from benchmarks import raw
from benchmarks.meter import LOOK, PATIENCE, QUEUE, WORKER, Mark, Meter
from benchmarks.raw import Body
from oban import Job, Oban, Worker

LEFT = f"SELECT count(*) FROM oban_jobs WHERE queue = '{QUEUE}' AND state <> 'completed'"
WRITE = text("INSERT INTO bench_writes (n) VALUES (:n)")

Finished = Callable[[], Awaitable[object]]


async def ours(url: URL, limit: int, body: Body, finished: Finished) -> None:
    """Run jobs with the library until that is `finished`."""

    class Noop(Worker, name=WORKER, queue=QUEUE):
        async def process(self, job: Job) -> None:
            body(job.args["n"])

    async with Oban(url, queues={QUEUE: limit}):
        await finished()


async def ours_writing(url: URL, limit: int, body: Body, finished: Finished) -> None:
    """As `ours`, with jobs that write a row in their own transaction."""

    class Writing(Worker, name=WORKER, queue=QUEUE):
        async def process(self, job: Job, session: AsyncSession) -> None:
            body(job.args["n"])
            await session.execute(WRITE, {"n": job.args["n"]})

    async with Oban(url, queues={QUEUE: limit}):
        await finished()


def by_hand(
    loop: Callable[[URL, int, Body], Awaitable[None]],
) -> Callable[[URL, int, Body, Finished], Awaitable[None]]:
    """Run jobs with a hand-written loop, which ends when there are none."""

    async def drain(url: URL, limit: int, body: Body, finished: Finished) -> None:
        await loop(url, limit, body)
        await finished()

    return drain


SIDES = {
    "ours": ours,
    "raw": by_hand(raw.drain),
    "raw-fused": by_hand(raw.drain_fused),
    "ours-writing": ours_writing,
    "raw-writing": by_hand(raw.drain_writing),
}


async def drain(
    url: URL,
    meter: Meter,
    side: str,
    limit: int,
    *,
    snapshot: bool = False,
    writing: bool = False,
    ready: Callable[[], object] = int,
) -> None:
    """Measure one process; `ready` is called when all is in place.

    With `snapshot`, beside a transaction that is older than the drain; with `writing`, jobs that write.
    """
    async with counting(url) as left, held_snapshot(url) if snapshot else contextlib.nullcontext():
        if (waiting := await left()) != meter.jobs:
            raise SystemExit(f"{waiting} jobs wait in the table, not {meter.jobs}")
        ready()

        async def finished() -> None:
            await meter.all_ran()
            # Polled, as whoever finishes last, it is the table that says so.
            while await left():  # noqa: ASYNC110
                await asyncio.sleep(LOOK)
            meter.stop()

        await SIDES[f"{side}-writing" if writing else side](url, limit, meter.body, finished)
    if meter.ran > meter.jobs:
        raise SystemExit(f"{meter.jobs} jobs ran {meter.ran} times")


@contextlib.asynccontextmanager
async def counting(url: URL) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """How many jobs are not completed, asked on a connection of its own."""
    if url.get_backend_name() == "sqlite":
        with contextlib.closing(raw.lite_connect(url)) as lite:

            async def count_lite() -> int:
                return int(lite.execute(LEFT).fetchone()[0])

            yield count_lite
        return
    connection = await raw.connect(url)

    async def count() -> int:
        return int(await connection.fetchval(LEFT))

    yield count
    await connection.close()


@contextlib.asynccontextmanager
async def held_snapshot(url: URL) -> AsyncIterator[None]:
    """Somebody's long transaction, for whom the server keeps every version of every row."""
    connection = await raw.connect(url)
    async with connection.transaction(isolation="repeatable_read"):
        await connection.fetchval(LEFT)
        yield
    await connection.close()


# -- several processes -----------------------------------------------------------------------


class Shared(Meter):
    """One of several meters, that knows what the others have counted."""

    def __init__(self, jobs: int, server: int | None, counts: Any, place: int) -> None:
        super().__init__(jobs, server)
        self._counts = counts
        self._place = place

    def body(self, n: int) -> None:
        super().body(n)
        self._counts[self._place] = self.ran

    async def all_ran(self) -> None:
        # Nobody can wake it: it is other processes that count.
        while sum(self._counts) < self.jobs:  # noqa: ASYNC110
            await asyncio.sleep(LOOK)
        # For the others ran all that there were.
        if not self.marks:
            self.start()


async def drain_together(url: URL, meter: Meter, side: str, limit: int, *, processes: int) -> None:
    """Measure processes that begin at one time, each with its own `limit`."""
    context = multiprocessing.get_context("spawn")
    counts, barrier = context.Array("q", processes, lock=False), context.Barrier(processes)
    with ProcessPoolExecutor(processes, context, _share, (counts, barrier)) as pool:
        loop = asyncio.get_running_loop()
        each = (meter.jobs, meter.server, url.render_as_string(hide_password=False), side, limit)
        parts = [loop.run_in_executor(pool, _part, place, *each) for place in range(processes)]
        meter.tell(await asyncio.gather(*parts))
    if sum(counts) != meter.jobs:
        raise SystemExit(f"{meter.jobs} jobs ran {sum(counts)} times")


#: In each of the processes: how many jobs each of them ran, and where they wait for one another.
_counts: Any
_barrier: Barrier


def _share(counts: Any, barrier: Barrier) -> None:
    global _counts, _barrier
    _counts, _barrier = counts, barrier


def _part(place: int, jobs: int, server: int | None, url: str, side: str, limit: int) -> Sequence[Mark]:
    async def part() -> Sequence[Mark]:
        meter = Shared(jobs, server, _counts, place)
        async with asyncio.timeout(PATIENCE):
            await drain(make_url(url), meter, side, limit, ready=lambda: _barrier.wait(PATIENCE))
        return meter.marks

    return meters.run(part())
