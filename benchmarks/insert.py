"""Insert jobs in bulk, and print how fast: `python -m benchmarks.insert ours`.

Measured after one batch of warm-up: making the jobs and inserting them, a thousand at a time.
"""

import argparse
from collections.abc import Awaitable, Callable, Iterable

from sqlalchemy import URL

from benchmarks import raw
from benchmarks.meter import QUEUE, WORKER, Meter, role
from oban import Job, Oban, Worker

BATCH = 1000
WARM_UP = 100

Insert = Callable[[Iterable[int]], Awaitable[object]]


class Noop(Worker, name=WORKER, queue=QUEUE):
    async def process(self, job: Job) -> None:
        """Never runs here."""


async def ours(url: URL, meter: Meter) -> None:
    """Insert with the library."""
    async with Oban(url) as oban:
        await _insert_all(meter, lambda numbers: oban.enqueue_many([Noop.new({"n": n}) for n in numbers]))


async def by_hand(url: URL, meter: Meter) -> None:
    """Insert with hand-written SQL."""
    if url.get_backend_name() == "sqlite":
        lite = raw.lite_connect(url)

        async def insert(numbers: Iterable[int]) -> None:
            raw.lite_insert(lite, numbers)

        await _insert_all(meter, insert)
        lite.close()
        return
    connection = await raw.connect(url)
    await _insert_all(meter, lambda numbers: raw.insert(connection, numbers))
    await connection.close()


async def _insert_all(meter: Meter, insert: Insert) -> None:
    await insert(range(WARM_UP))
    meter.start()
    for first in range(0, meter.jobs, BATCH):
        await insert(range(first, min(first + BATCH, meter.jobs)))
    meter.stop()


async def measure(url: URL, meter: Meter, options: argparse.Namespace) -> None:
    await (ours if options.who == "ours" else by_hand)(url, meter)


if __name__ == "__main__":
    role(__doc__, measure)
