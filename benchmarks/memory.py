"""Measures the memory of a runner and of `enqueue_stream`, for few and for many jobs.

The figure is the peak of the memory that Python allocates while they run.
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
#: How many of the waiting jobs are run.
RUNS = 20_000


async def running(url: URL, meter: Meter, side: str) -> None:
    """Measure a runner that runs the first of many jobs."""
    watched = Meter(min(meter.jobs, RUNS))
    with _watching(meter):
        await ours(url, LIMIT, watched.body, watched.all_ran)


async def enqueueing(url: URL, meter: Meter, side: str) -> None:
    """Measure a stream of jobs from a generator."""
    with _watching(meter):
        async with Oban(url) as oban:
            await oban.enqueue_stream(Noop.new({"n": n}) for n in range(meter.jobs))


@contextmanager
def _watching(meter: Meter) -> Iterator[None]:
    tracemalloc.start()
    yield
    meter.figures = {"peak MiB": tracemalloc.get_traced_memory()[1] / 2**20}
    tracemalloc.stop()
