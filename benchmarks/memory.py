"""How much memory a runner takes, and how much a stream of jobs, however many they are.

Measured is the most that Python holds at one time, beyond what it held before.
"""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL

from benchmarks.drain import ours
from benchmarks.insert import Noop
from benchmarks.meter import Meter
from oban import Oban

LIMIT = 50
#: How many jobs are run while the others wait.
RUNS = 20_000


async def running(url: URL, meter: Meter, side: str) -> None:
    """Run the first of many jobs."""
    watched = Meter(min(meter.jobs, RUNS))
    with _watching(meter):
        await ours(url, LIMIT, watched.body, watched.all_ran)


async def enqueueing(url: URL, meter: Meter, side: str) -> None:
    """Enqueue jobs that a generator makes."""
    with _watching(meter):
        async with Oban(url) as oban:
            await oban.enqueue_stream(Noop.new({"n": n}) for n in range(meter.jobs))


@contextmanager
def _watching(meter: Meter) -> Iterator[None]:
    tracemalloc.start()
    yield
    meter.figures = {"peak MiB": tracemalloc.get_traced_memory()[1] / 2**20}
    tracemalloc.stop()
