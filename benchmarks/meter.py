"""The clock of a measured process, and constants that all scenarios share."""

import asyncio
import gc
import math
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

QUEUE = "bench"
WORKER = "bench.Noop"
#: Seconds between two polls of a condition.
POLL_INTERVAL = 0.002
#: Longest time of one run, in seconds.
TIME_LIMIT = 300

RATE = "jobs/s"
CPU = "CPU us/job"
SERVER = "server CPU us/job"


class Mark(NamedTuple):
    """A time, and the CPU seconds that this process and the server had used by then."""

    wall: float
    cpu: float
    server: float


class Meter:
    """Counts jobs and measures between `start` and `stop`. `server` is the process id of the postmaster."""

    def __init__(self, jobs: int, server: int | None = None) -> None:
        self.jobs = jobs
        self.server = server
        self.ran = 0
        self.marks: list[Mark] = []
        self.figures: dict[str, float] = {}
        self._everything = asyncio.Event()

    def start(self) -> None:
        """Start the clock."""
        # Otherwise, garbage from the start would be collected during the measurement.
        gc.collect()
        server = cpu_of_server(self.server)
        self.marks = [Mark(time.monotonic(), time.process_time(), server)]

    def stop(self) -> None:
        """Stop the clock and compute the figures."""
        self.marks.append(Mark(time.monotonic(), time.process_time(), cpu_of_server(self.server)))
        self.combine([self.marks])

    def combine(self, processes: Sequence[Sequence[Mark]]) -> None:
        """Compute the figures from the first and last mark of each process that took part."""
        first, last = (list(marks) for marks in zip(*processes, strict=True))
        used = sum(end.cpu - start.cpu for start, end in zip(first, last, strict=True))
        served = max(mark.server for mark in last) - min(mark.server for mark in first)
        seconds = max(mark.wall for mark in last) - min(mark.wall for mark in first)
        self.figures = {RATE: self.jobs / seconds, CPU: used / self.jobs * 1e6}
        if not math.isnan(served):
            self.figures[SERVER] = served / self.jobs * 1e6

    def body(self, n: int) -> None:
        """Run as the body of job `n`: count it; the first one starts the clock."""
        if not self.ran:
            self.start()
        self.ran += 1
        if self.ran == self.jobs:
            self._everything.set()

    async def all_ran(self) -> None:
        """Wait until all jobs have run."""
        await self._everything.wait()


def cpu_of_server(postmaster: int | None) -> float:
    """Return the CPU seconds of a postmaster and all its children, running or ended; NaN without one."""
    if postmaster is None:
        return math.nan
    ticks = 0
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))):
            own, ended = sum(map(int, stat[11:13])), sum(map(int, stat[13:15]))
            if int(entry) == postmaster:
                ticks += own + ended
            elif int(stat[1]) == postmaster:
                ticks += own
    return ticks / os.sysconf("SC_CLK_TCK")


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a running process, and of its children that have ended."""
    return sum(map(int, _stat(pid)[11:15])) / os.sysconf("SC_CLK_TCK")


def postmaster_of(backend: int) -> int | None:
    """Return the process id of a backend's parent, or None if it is not on this machine."""
    stat = _stat(backend)
    parent = int(stat[1]) if stat else None
    return parent if parent and "postgres" in Path(f"/proc/{parent}/comm").read_text() else None


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat, starting with the third, the state."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile of values in seconds, as milliseconds."""
    ordered = sorted(values)
    return {f"p{part} ms": ordered[len(ordered) * part // 100] * 1e3 for part in (50, 99)}


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Do what `asyncio.run` does, on uvloop if it is installed."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(coroutine)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
