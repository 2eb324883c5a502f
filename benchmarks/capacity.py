"""What jobs cost a PostgreSQL server: space, nodes and queues, and next to an application's transactions."""

import argparse
import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from multiprocessing.sharedctypes import Synchronized
from statistics import median
from typing import Any, NamedTuple

from sqlalchemy import URL, make_url

from benchmarks import databases, drain, raw
from benchmarks import meter as meters
from benchmarks.databases import Filling, PostgreSQL
from benchmarks.meter import CPU, QUEUE, RATE, SERVER, WORKER, Meter, cpu_of, cpu_of_server
from oban import Job, Oban, Worker

#: Jobs per call of `enqueue_many`.
_BATCH = 1_000
#: Numbers of nodes, and of queues of each node.
CLUSTERS = ((1, 1), (1, 10), (1, 100), (4, 10), (16, 10))
#: Seconds from the start of nodes to a measurement, and seconds between two jobs for these nodes.
REST, GAP = 5.0, 0.02
#: The application: its connections, the seconds that each pauses after a transaction, and its rows.
CONNECTIONS, PAUSE, ACCOUNTS = 4, 0.002, 10_000


# -- Space -----------------------------------------------------------------------------------


class Space(NamedTuple):
    """Bytes per job on disk."""

    state: str
    rows: float
    indexes: float
    history: float

    def __str__(self) -> str:
        total = self.rows + self.indexes + self.history
        return (
            f"| {self.state} | {self.rows:,.0f} | {self.indexes:,.0f} | {self.history:,.0f} | {total:,.0f} |"
        )


SPACE_HEAD = "| bytes per job | rows | indexes | history | total |\n| --- | ---: | ---: | ---: | ---: |"
_SIZES = """
SELECT pg_table_size('oban_jobs'), pg_indexes_size('oban_jobs'), pg_total_relation_size('oban_attempts')
"""


async def space(url: URL, jobs: int) -> list[Space]:
    """Measure the size of the tables before and after `jobs` jobs have run."""

    class Noop(Worker, name=WORKER, queue=QUEUE):
        async def process(self, job: Job) -> None:
            pass

    found = []
    connection = await raw.connect(url)

    async def note(state: str) -> None:
        await connection.execute("VACUUM oban_jobs")
        await connection.execute("VACUUM oban_attempts")
        found.append(Space(state, *(size / jobs for size in await connection.fetchrow(_SIZES))))

    async with Oban(url) as oban:
        for first in range(0, jobs, _BATCH):
            numbers = range(first, min(first + _BATCH, jobs))
            # 100 bytes of JSON.
            await oban.enqueue_many([Noop.new({"n": n, "path": f"uploads/{n:077}.png"}) for n in numbers])
    await note("waiting")
    async with Oban(url, queues={QUEUE: 50}) as oban:
        await oban.wait_until_empty()
    await note("completed")
    await connection.close()
    return found


# -- Nodes -----------------------------------------------------------------------------------


class Nodes(NamedTuple):
    """What some nodes cost while they wait, and what each job costs that they run one at a time."""

    nodes: int
    queues: int
    connections: int
    transactions: float
    server: float
    per_job: float
    server_per_job: float

    def __str__(self) -> str:
        return (
            f"| {self.nodes} | {self.queues} | {self.connections} | {self.transactions:.1f} |"
            f" {self.server:.2f} % | {self.per_job:.1f} | {self.server_per_job:,.0f} |"
        )


NODES_HEAD = (
    "| nodes | queues | connections | idle: transactions/s | idle: server's CPU | a job: transactions"
    " | a job: server CPU us |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
_COMMITS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1"


@asynccontextmanager
async def _running(url: URL, nodes: int, queues: int) -> AsyncIterator[None]:
    """Run nodes in this process, all with the same queues."""
    names = {QUEUE: 10} | {f"queue-{n}": 10 for n in range(1, queues)}
    async with AsyncExitStack() as stack:
        for number in range(nodes):
            await stack.enter_async_context(Oban(url, node=f"node-{number}", queues=names))
        yield


async def nodes(
    url: URL, server: int | None, clusters: Sequence[tuple[int, int]], seconds: float, jobs: int
) -> AsyncIterator[Nodes]:
    """Measure each number of nodes and queues for so long, and then with jobs, one every `GAP` seconds."""

    class Noop(Worker, name=WORKER, queue=QUEUE):
        async def process(self, job: Job) -> None:
            pass

    watching = await raw.connect(url)
    statistics = await raw.connect(url.set(database="postgres"))

    async def used() -> tuple[float, float]:
        # The counts of a server process arrive up to a second late.
        await asyncio.sleep(1.5)
        return await statistics.fetchval(_COMMITS, url.database), cpu_of_server(server)

    async with Oban(url) as client:
        await client.enqueue_many([])
        for number, queues in clusters:
            async with _running(url, number, queues):
                await asyncio.sleep(REST)
                commits, cpu = await used()
                await asyncio.sleep(seconds)
                idle_commits, idle_cpu = (
                    after - before for after, before in zip(await used(), (commits, cpu), strict=True)
                )
                waited = seconds + 1.5
                commits, cpu = await used()
                began = time.monotonic()
                for n in range(jobs):
                    await client.enqueue(Noop.new({"n": n}))
                    await asyncio.sleep(GAP)
                await client.wait_until_empty(QUEUE)
                # Of a cluster that waits, the rest of the cost.
                after_commits, after_cpu = await used()
                share = (time.monotonic() - began) / waited
                yield Nodes(
                    number,
                    queues,
                    # Without the client and `watching`.
                    await watching.fetchval(_CONNECTIONS, url.database) - 1,
                    idle_commits / waited,
                    100 * idle_cpu / waited,
                    (after_commits - commits - idle_commits * share) / jobs,
                    1e6 * (after_cpu - cpu - idle_cpu * share) / jobs,
                )
    await watching.close()
    await statistics.close()


# -- Next to an application ------------------------------------------------------------------


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


async def beside(database: PostgreSQL, jobs: int, seconds: float) -> Beside:
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


BESIDE_HEAD = "| | alone | together | ratio |\n| --- | ---: | ---: | ---: |"
#: The lines of the table, and their values alone and together.
FIGURES: dict[str, Callable[[Beside], tuple[float, float]]] = {
    "jobs/s": lambda it: (it.alone[0], it.together[0]),
    "node: CPU us/job": lambda it: (it.alone[1], it.together[1]),
    "server: CPU us/job": lambda it: (it.alone[2], it.together[2]),
    "application: transactions/s": lambda it: (it.application_alone[0], it.application_together[0]),
    "application: median, ms": lambda it: (it.application_alone[1], it.application_together[1]),
    "application: 99th percentile, ms": lambda it: (it.application_alone[2], it.application_together[2]),
}


def beside_table(rounds: Sequence[Beside]) -> Iterator[str]:
    """The lines of the table: medians of the rounds, and the medians of their ratios."""
    for name, pick in FIGURES.items():
        pairs = [pick(each) for each in rounds]
        before, after = (median(values) for values in zip(*pairs, strict=True))
        # The kernel counts CPU time in steps of 10 ms, so a short drain may have used none.
        ratios = [b / a for a, b in pairs if a]
        ratio = f"{median(ratios):.2f}" if ratios else "–"
        yield f"| {name} | {before:,.1f} | {after:,.1f} | {ratio} |"


# -- The command -----------------------------------------------------------------------------


def _cluster(text: str) -> tuple[int, int]:
    number, _, queues = text.partition("x")
    return int(number), int(queues)


async def _nodes_table(url: URL, server: int | None, options: argparse.Namespace) -> None:
    print(NODES_HEAD, flush=True)
    async for line in nodes(url, server, options.clusters, options.seconds, options.single_jobs):
        print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs of a drain (default: 20,000)")
    parser.add_argument("--single-jobs", type=int, default=200, help="jobs for waiting nodes (default: 200)")
    parser.add_argument("--seconds", type=float, default=10, help="how long something waits (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="how often drains are measured (default: 3)")
    parser.add_argument(
        "--clusters",
        type=_cluster,
        nargs="+",
        default=CLUSTERS,
        help="numbers of nodes and queues, such as 4x10 for four nodes of ten queues each",
    )
    parser.add_argument(
        "--database-url",
        help="a PostgreSQL server, on which a database is created and dropped again"
        " (default: one is started, with default settings)",
    )
    options = parser.parse_args(arguments)
    with databases.postgresql(options.database_url) as database:
        print(database.about, "", SPACE_HEAD, sep="\n", flush=True)
        for line in meters.run(space(database.prepare(Filling()), options.jobs)):
            print(line, flush=True)
        print("", flush=True)
        meters.run(_nodes_table(database.prepare(Filling()), database.server, options))
        print("", BESIDE_HEAD, sep="\n", flush=True)
        rounds = [meters.run(beside(database, options.jobs, options.seconds)) for _ in range(options.rounds)]
        print(*beside_table(rounds), sep="\n", flush=True)


if __name__ == "__main__":
    main()
