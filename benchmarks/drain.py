"""Run the jobs that wait in the database, and print how fast: `python -m benchmarks.drain ours`.

Measured from the first job body until the table says that all are completed. Left out, for both
sides: imports, connecting, and the first fetch.
"""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from sqlalchemy import URL

from benchmarks import raw
from benchmarks.meter import QUEUE, WORKER, Meter, role
from oban import Job, Oban, Worker

LEFT = f"SELECT count(*) FROM oban_jobs WHERE queue = '{QUEUE}' AND state <> 'completed'"
#: Seconds between two looks at the table, once all bodies ran.
LOOK = 0.002


async def ours(url: URL, limit: int, meter: Meter, finished: Callable[[], Awaitable[None]]) -> None:
    """Drain with the library."""

    class Noop(Worker, name=WORKER, queue=QUEUE):
        async def process(self, job: Job) -> None:
            meter.body()

    async with Oban(url, queues={QUEUE: limit}):
        await finished()


async def by_hand(url: URL, limit: int, meter: Meter, finished: Callable[[], Awaitable[None]]) -> None:
    """Drain with the hand-written loop."""
    if url.get_backend_name() == "sqlite":
        raw.lite_drain(url, limit, meter.body)
    else:
        await raw.drain(url, limit, meter.body)
    await finished()


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


async def measure(url: URL, meter: Meter, options: argparse.Namespace) -> None:
    async with counting(url) as left:
        if await left() != options.jobs:
            raise SystemExit(f"{await left()} jobs wait in the table, not {options.jobs}")

        async def finished() -> None:
            await meter.all_ran.wait()
            # Polled, as whoever finishes last, it is the table that says so.
            while await left():  # noqa: ASYNC110
                await asyncio.sleep(LOOK)
            meter.stop()

        await (ours if options.who == "ours" else by_hand)(url, options.limit, meter, finished)
    if meter.ran != options.jobs:
        raise SystemExit(f"{options.jobs} jobs ran {meter.ran} times")


if __name__ == "__main__":
    role(__doc__, measure)
