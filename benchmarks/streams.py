"""What open pages of the dashboard cost a runner, and what they cost while nothing happens.

python -m benchmarks.streams
python -m benchmarks.streams --databases sqlite --rounds 5 --pages 50
"""

import argparse
import asyncio
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from statistics import median
from typing import TYPE_CHECKING, Any

import uvicorn
from sqlalchemy import URL, Engine, event

from benchmarks import databases, tabs
from benchmarks.databases import Database, Filling
from benchmarks.meter import QUEUE, TIME_LIMIT, WORKER, Mark, Meter, cpu_of, cpu_of_server, run
from benchmarks.scenarios import BOTH
from oban import Job, Oban, Worker
from oban.cli.web_server import serve
from oban.web import dashboard

#: Where the dashboard is.
SIDES = ("no dashboard", "oban web", "in the runner")
#: How many jobs run at once.
LIMIT = 50
#: Seconds after which a dashboard that has started, or whose pages have been opened, is idle.
REST = 2.0
_HOST = "127.0.0.1"
_SPAWN = multiprocessing.get_context("spawn")

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

    Counter = Synchronized[int]


@dataclass(frozen=True, slots=True)
class Drain:
    """A runner that worked for a while.

    Attributes:
        side: Where the dashboard was.
        rate: Jobs a second.
        runner: The CPU time of the runner for each job, in microseconds, with the dashboard that is in it.
        server: The same of the database's server; NaN without one.
        dashboard: The CPU time of `oban web`, in percent of a core.
        pages: The same of the client that has the pages open.
        loads: Pages that were loaded a second.
    """

    side: str
    rate: float
    runner: float
    server: float
    dashboard: float
    pages: float
    loads: float


@dataclass(frozen=True, slots=True)
class Idle:
    """A minute of a dashboard with open pages, while nothing happens.

    Attributes:
        open: How many pages are open.
        cpu: CPU seconds of `oban web`.
        server: CPU seconds of the database's server; NaN without one.
        statements: Statements that the dashboard executes.
        loads: Pages that are loaded.
    """

    open: int
    cpu: float
    server: float
    statements: float
    loads: float


def _count(counter: "Counter") -> None:
    with counter.get_lock():
        counter.value += 1


def _serve(url: URL, port: int, statements: "Counter") -> None:
    """Do what `oban web` does, and count the statements."""
    event.listen(Engine, "before_cursor_execute", lambda *_: _count(statements))

    async def clients() -> list[Oban]:
        return [Oban(url)]

    # It would say where it is, each time.
    with open(os.devnull, "w") as sys.stdout:
        serve(clients, None, host=_HOST, port=port, root_path="", forwarded_allow_ips="")


def _run(url: URL, jobs: int, seconds: float, port: int | None, parent: Connection) -> None:
    """Run jobs once the parent says so, and send it the first and the last mark, and the number of jobs."""
    meter = Meter(jobs)

    class Noop(Worker, name=WORKER, queue=QUEUE):
        async def process(self, job: Job) -> None:
            meter.body(job.args["n"])

    async def drain() -> None:
        oban = Oban(url, queues={QUEUE: LIMIT})
        async with _beside(oban, port):
            parent.send("ready")
            await asyncio.to_thread(parent.recv)
            async with oban:
                try:
                    async with asyncio.timeout(seconds):
                        await meter.all_ran()
                except TimeoutError:
                    pass
                last = Mark(time.monotonic(), time.process_time(), 0.0)
                parent.send((*meter.marks, last, meter.ran))

    run(drain())


@asynccontextmanager
async def _beside(oban: Oban, port: int | None) -> AsyncIterator[None]:
    """The dashboard in the runner's own process, if it gets a port."""
    if port is None:
        yield
        return
    app = dashboard(oban)
    server = uvicorn.Server(uvicorn.Config(app, _HOST, port, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    yield
    server.should_exit = True
    await app.aclose()
    await serving


@contextmanager
def _process(target: Any, *arguments: Any) -> Iterator[BaseProcess]:
    process = _SPAWN.Process(target=target, args=arguments, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.terminate()
        process.join()


def _hold(port: int, count: int, parent: Connection, loads: "Counter") -> None:
    tabs.hold(port, count, parent, lambda: _count(loads))


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _wait_for(port: int) -> None:
    ends = time.monotonic() + TIME_LIMIT
    while time.monotonic() < ends:
        try:
            socket.create_connection((_HOST, port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the dashboard does not start")


def _receive(connection: Connection) -> Any:
    if not connection.poll(TIME_LIMIT):
        raise SystemExit("a process does not answer")
    return connection.recv()


@contextmanager
def _pages(port: int, count: int, loads: "Counter") -> Iterator[BaseProcess]:
    """Pages of the dashboard at this port that are open."""
    ours, theirs = _SPAWN.Pipe()
    _wait_for(port)
    with _process(_hold, port, count, theirs, loads) as process:
        _receive(ours)
        yield process


def drain(database: Database, side: str, jobs: int, seconds: float, pages: int) -> Drain:
    """Let a runner work for some seconds, or until no jobs wait."""
    url = database.prepare(Filling(jobs))
    loads, statements = _SPAWN.Value("q", 0), _SPAWN.Value("q", 0)
    port = _free_port()
    ours, theirs = _SPAWN.Pipe()
    with ExitStack() as stack:
        own_port = port if side == SIDES[2] else None
        stack.enter_context(_process(_run, url, jobs, seconds, own_port, theirs))
        processes: list[BaseProcess | None] = [None, None]
        if side == SIDES[1]:
            processes[0] = stack.enter_context(_process(_serve, url, port, statements))
        _receive(ours)
        if side != SIDES[0]:
            processes[1] = stack.enter_context(_pages(port, pages, loads))
        before = [*map(_cpu, processes), cpu_of_server(database.server), loads.value]
        ours.send("go")
        first, last, ran = _receive(ours)
        after = [*map(_cpu, processes), cpu_of_server(database.server), loads.value]
    elapsed = last.wall - first.wall
    served, held, server, loaded = (end - start for start, end in zip(before, after, strict=True))
    return Drain(
        side=side,
        rate=ran / elapsed,
        runner=(last.cpu - first.cpu) / ran * 1e6,
        server=server / ran * 1e6,
        dashboard=100 * served / elapsed,
        pages=100 * held / elapsed,
        loads=loaded / elapsed,
    )


def idle(database: Database, pages: int, seconds: float) -> Idle:
    """Leave a dashboard with open pages alone for some seconds."""
    url = database.prepare(Filling())
    loads, statements = _SPAWN.Value("q", 0), _SPAWN.Value("q", 0)
    port = _free_port()
    with ExitStack() as stack:
        served = stack.enter_context(_process(_serve, url, port, statements))
        _wait_for(port)
        if pages:
            stack.enter_context(_pages(port, pages, loads))

        def figures() -> list[float]:
            return [_cpu(served), cpu_of_server(database.server), statements.value, loads.value]

        time.sleep(REST)
        before, began = figures(), time.monotonic()
        time.sleep(seconds)
        minutes = (time.monotonic() - began) / 60
        cpu, server, executed, loaded = (
            (end - start) / minutes for start, end in zip(before, figures(), strict=True)
        )
    return Idle(pages, cpu, server, executed, loaded)


def _cpu(process: BaseProcess | None) -> float:
    return 0.0 if process is None or process.pid is None else cpu_of(process.pid)


def report(drains: Sequence[Drain]) -> Iterator[str]:
    """A line for each side: medians of the rounds, and the ratio to the runner alone in the same round."""
    yield (
        f"{'dashboard':<14}  {'jobs/s':>8}  {'ratio':>22}  {'runner us/job':>13}  {'server us/job':>13}"
        f"  {'oban web CPU':>12}  {'pages CPU':>9}  {'pages/s':>7}"
    )
    alone = [each.rate for each in drains if each.side == SIDES[0]]
    for side in SIDES:
        rounds = [each for each in drains if each.side == side]
        ratios = [each.rate / base for each, base in zip(rounds, alone, strict=True)]
        ratio = f"{median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"

        def middle(name: str, rounds: Sequence[Drain] = rounds) -> float:
            values: list[float] = [getattr(each, name) for each in rounds]
            return median(values)

        yield (
            f"{side:<14}  {middle('rate'):8,.0f}  {ratio:>22}  {middle('runner'):13.1f}"
            f"  {middle('server'):13.1f}  {middle('dashboard'):11.1f}%  {middle('pages'):8.1f}%"
            f"  {middle('loads'):7.1f}"
        )


def measure(database: Database, options: argparse.Namespace) -> None:
    """Measure everything on a database, and print it."""
    print("", database.about, sep="\n", flush=True)
    drains = []
    for number in range(options.rounds):
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            drains.append(drain(database, side, options.jobs, options.seconds, options.pages))
    print(*report(drains), "", sep="\n", flush=True)
    print(f"{'idle, a minute':<14}  {'CPU s':>8}  {'server CPU s':>12}  {'statements':>10}  {'pages':>6}")
    for count in (0, 1, options.pages):
        found = idle(database, count, options.idle)
        print(
            f"{count:>5} open pages  {found.cpu:8.2f}  {found.server:12.2f}  {found.statements:10.0f}"
            f"  {found.loads:6.0f}",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--databases", choices=BOTH, action="append", help="postgresql or sqlite (default: both)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--pages", type=int, default=200, help="open pages (default: 200)")
    parser.add_argument("--jobs", type=int, default=150_000, help="jobs that wait (default: 150,000)")
    parser.add_argument("--seconds", type=float, default=5, help="how long they run at most (default: 5)")
    parser.add_argument("--idle", type=float, default=12, help="seconds of each idle dashboard (default: 12)")
    parser.add_argument(
        "--database-url",
        help="a PostgreSQL server, on which a database is created and dropped again"
        " (default: one is started, with default settings)",
    )
    options = parser.parse_args(arguments)
    wanted = options.databases or BOTH
    print(f"{options.pages} pages, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with ExitStack() as stack:
        if "postgresql" in wanted:
            measure(stack.enter_context(databases.postgresql(options.database_url)), options)
        if "sqlite" in wanted:
            measure(stack.enter_context(databases.sqlite()), options)


if __name__ == "__main__":
    main()
