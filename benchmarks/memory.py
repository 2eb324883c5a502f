"""How much memory a runner takes, and how much enqueueing takes, however many jobs there are."""

import tracemalloc

from sqlalchemy import URL

from benchmarks.drain import ours
from benchmarks.meter import Meter

LIMIT = 50
#: How many jobs are run while the others wait.
RUNS = 20_000


async def running(url: URL, meter: Meter, side: str) -> None:
    """What Python holds at most, beyond what it held before, while the first of many jobs run."""
    wanted = min(meter.jobs, RUNS)
    watched = Meter(wanted)
    tracemalloc.start()
    await ours(url, LIMIT, watched.body, watched.all_ran)
    meter.figures = {"peak MiB": tracemalloc.get_traced_memory()[1] / 2**20}
    tracemalloc.stop()
