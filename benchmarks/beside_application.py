"""A drain next to an application's transactions on the same server: each alone, and both at the same time."""

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.sharedctypes import Synchronized
from statistics import median
from typing import Any, NamedTuple

from sqlalchemy import URL, make_url

from benchmarks import drain, raw
from benchmarks import meter as meters
from benchmarks.databases import Filling, PostgreSQL
from benchmarks.meter import CPU, RATE, SERVER, Meter, cpu_of

#: The application: its connections, the seconds that each pauses after a transaction, and its rows.
CONNECTIONS, PAUSE, ACCOUNTS = 4, 0.002, 10_000


class Beside(NamedTuple):
    """A drain, and the transactions of an application: alone, and at the same time."""

    #: Jobs per second, and microseconds of CPU time per job of the node and of its server processes.
    alone: tuple[float, float, float]
    together: tuple[float, float, float]
    #: Transactions per second, and their median and 99th percentile in milliseconds.
    application_alone: tuple[float, float, float]
    application_together: tuple[float, float, float]


_FILL = (
    "CREATE TABLE IF NOT EXISTS bench_accounts (id bigint PRIMARY KEY, balance bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS bench_ledger (account bigint NOT NULL, amount bigint NOT NULL)",
    "INSERT INTO bench_accounts SELECT n, 0 FROM generate_series(0, $1 - 1) AS n ON CONFLICT DO NOTHING",
)

#: Set in the application's process: 0 while it runs alone, 1 while jobs run, 2 at the end.
_phase: Any
_pids: Any


def _share(phase: "Synchronized[int]", pids: Any) -> None:
    global _phase, _pids
    _phase, _pids = phase, pids


def _application(url: str) -> list[list[float]]:
    """Run transactions until the last phase; returns the seconds that each took, by phase."""
    return meters.run(_transactions(make_url(url)))


async def _transactions(url: URL) -> list[list[float]]:
    took: list[list[float]] = [[], []]

    async def run(place: int) -> None:
        connection = await raw.connect(url)
        _pids[place] = await connection.fetchval("SELECT pg_backend_pid()")
        account = place
        while (phase := _phase.value) < 2:
            account = (account * 31 + 7) % ACCOUNTS
            began = time.monotonic()
            async with connection.transaction():
                await connection.fetchval("SELECT balance FROM bench_accounts WHERE id = $1", account)
                await connection.execute(
                    "UPDATE bench_accounts SET balance = balance + 1 WHERE id = $1", account
                )
                await connection.execute("INSERT INTO bench_ledger VALUES ($1, 1)", account)
            took[phase].append(time.monotonic() - began)
            await asyncio.sleep(PAUSE)
        await connection.close()

    await asyncio.gather(*(run(place) for place in range(CONNECTIONS)))
    return took


class _Meter(Meter):
    """Also measures the CPU time of some of the server's processes, and tells when it runs."""

    def __init__(
        self, jobs: int, server: int | None, pids: Sequence[int], phase: "Synchronized[int]"
    ) -> None:
        super().__init__(jobs, server)
        self._pids, self._phase = pids, phase
        self._others = 0.0

    def start(self) -> None:
        super().start()
        self._others = -sum(map(cpu_of, self._pids))
        self._phase.value = 1

    def stop(self) -> None:
        self._phase.value = 2
        super().stop()
        self._others += sum(map(cpu_of, self._pids))
        if SERVER in self.figures:
            self.figures[SERVER] -= self._others / self.jobs * 1e6


def _figures(meter: Meter) -> tuple[float, float, float]:
    return meter.figures[RATE], meter.figures[CPU], meter.figures.get(SERVER, float("nan"))


async def measure(database: PostgreSQL, jobs: int, seconds: float) -> Beside:
    """Drain jobs alone, run the application alone for so long, and then both at the same time."""
    url = await asyncio.to_thread(database.prepare, Filling(jobs))
    alone = Meter(jobs, database.server)
    await drain.drain(url, alone, "ours", 50)
    url = await asyncio.to_thread(database.prepare, Filling(jobs))
    connection = await raw.connect(url)
    for statement in _FILL:
        await connection.execute(statement.replace("$1", str(ACCOUNTS)))
    await connection.close()
    context = multiprocessing.get_context("spawn")
    phase, pids = context.Value("i", 0), context.Array("q", CONNECTIONS, lock=False)
    with ProcessPoolExecutor(1, context, _share, (phase, pids)) as pool:
        address = url.render_as_string(hide_password=False)
        application = asyncio.get_running_loop().run_in_executor(pool, _application, address)
        while not all(pids):  # noqa: ASYNC110 - another process sets them
            await asyncio.sleep(0.01)
        began = time.monotonic()
        await asyncio.sleep(seconds)
        meter = _Meter(jobs, database.server, list(pids), phase)
        waited = time.monotonic()
        try:
            await drain.drain(url, meter, "ours", 50)
        finally:
            phase.value = 2
        took = await application
    lasted = (meter.marks[0].wall - began, meter.marks[-1].wall - meter.marks[0].wall)
    assert waited <= meter.marks[0].wall
    by_phase = [
        (len(times) / length, *meters.percentiles(times).values())
        for times, length in zip(took, lasted, strict=True)
    ]
    return Beside(_figures(alone), _figures(meter), *by_phase)  # type: ignore[arg-type]


HEAD = "| | alone | together | ratio |\n| --- | ---: | ---: | ---: |"
#: The lines of the table, and their values alone and together.
FIGURES: dict[str, Callable[[Beside], tuple[float, float]]] = {
    "jobs/s": lambda it: (it.alone[0], it.together[0]),
    "node: CPU us/job": lambda it: (it.alone[1], it.together[1]),
    "server: CPU us/job": lambda it: (it.alone[2], it.together[2]),
    "application: transactions/s": lambda it: (it.application_alone[0], it.application_together[0]),
    "application: median, ms": lambda it: (it.application_alone[1], it.application_together[1]),
    "application: 99th percentile, ms": lambda it: (it.application_alone[2], it.application_together[2]),
}


def table(rounds: Sequence[Beside]) -> Iterator[str]:
    """The lines of the table: medians of the rounds, and the medians of their ratios."""
    for name, pick in FIGURES.items():
        pairs = [pick(each) for each in rounds]
        before, after = (median(values) for values in zip(*pairs, strict=True))
        # The kernel counts CPU time in steps of 10 ms, so a short drain may have used none.
        ratios = [b / a for a, b in pairs if a]
        ratio = f"{median(ratios):.2f}" if ratios else "–"
        yield f"| {name} | {before:,.1f} | {after:,.1f} | {ratio} |"
