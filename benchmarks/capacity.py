"""What jobs cost a PostgreSQL server: space, nodes and queues, and next to an application's transactions."""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from sqlalchemy import URL

from benchmarks import beside_application, databases, raw
from benchmarks import meter as meters
from benchmarks.databases import Filling
from benchmarks.meter import QUEUE, WORKER, cpu_of_server
from oban import Job, Oban, Worker

#: Jobs per call of `enqueue_many`.
_BATCH = 1_000
#: Numbers of nodes, and of queues of each node.
CLUSTERS = ((1, 1), (1, 10), (1, 100), (4, 10), (16, 10))
#: Seconds from the start of nodes to a measurement, and seconds between two jobs for these nodes.
REST, GAP = 5.0, 0.02


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
        print("", beside_application.HEAD, sep="\n", flush=True)
        rounds = [
            meters.run(beside_application.measure(database, options.jobs, options.seconds))
            for _ in range(options.rounds)
        ]
        print(*beside_application.table(rounds), sep="\n", flush=True)


if __name__ == "__main__":
    main()
