"""What every measured role shares: its command line, its clock, its report, and the job that does nothing.

A role is one process. It is told what to do by arguments, finds the database in
`OBAN_DATABASE_URL`, and prints its figures as one line of JSON.
"""

import argparse
import asyncio
import gc
import json
import os
import time
from collections.abc import Callable, Coroutine

from sqlalchemy import URL, make_url

QUEUE = "bench"
WORKER = "bench.Noop"
WHO = ("ours", "raw")


class Meter:
    """Wall clock and CPU time of this process for a number of jobs, between `start` and `stop`."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.ran = 0
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.all_ran = asyncio.Event()

    def start(self) -> None:
        """Begin to measure."""
        # What starting has left over would be collected at a time of its own choosing.
        gc.collect()
        self._cpu = time.process_time()
        self._wall = time.perf_counter()

    def stop(self) -> None:
        """Measure until here."""
        self.seconds = time.perf_counter() - self._wall
        self.cpu_seconds = time.process_time() - self._cpu

    def body(self) -> None:
        """What a job does: it is counted, and the first one starts the clock."""
        if not self.ran:
            self.start()
        self.ran += 1
        if self.ran == self.jobs:
            self.all_ran.set()

    def report(self) -> dict[str, float]:
        """The figures of one run."""
        return {
            "jobs_per_second": self.jobs / self.seconds,
            "cpu_us_per_job": self.cpu_seconds / self.jobs * 1e6,
        }


def role(
    about: str | None, measure: Callable[[URL, Meter, argparse.Namespace], Coroutine[None, None, None]]
) -> None:
    """The main function of a role: read the arguments, run `measure`, print the figures."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("who", choices=WHO, help="the library, or the hand-written loop")
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--limit", type=int, default=50, help="jobs at once, in a drain")
    options = parser.parse_args()
    meter = Meter(options.jobs)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(measure(make_url(os.environ["OBAN_DATABASE_URL"]), meter, options))
    print(json.dumps(meter.report()))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
