"""F9: the connection breaks just before a commit reaches the server, or just before its answer comes back.

The client cannot tell which. With each driver 32 of each for acknowledgements, 16 for fetches and 16 for
enqueueing; 200, 100 and 100 with `OBAN_FAULTS=full`.
"""

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import URL, Select, select, text
from sqlalchemy.exc import DBAPIError

from oban import Cancel, Job, Oban, Worker
from tests.faults import recording
from tests.faults.cluster import Cluster
from tests.faults.invariants import FINAL
from tests.faults.proxy import Moment, Proxy
from tests.faults.workers import noted
from tests.support.database_server import Server
from tests.support.settings import FULL
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

CUTS = 200 if FULL else 32
DRIVERS = ["postgresql+asyncpg", "postgresql+psycopg"]
#: Strings in the statements of a turn that acknowledges, and of one that fetches.
ACKNOWLEDGES, FETCHES = b"completed_at=", b"attempt + 1"


class End(Worker, name="tests.End", max_attempts=1):
    """Ends as `args["how"]` says."""

    async def process(self, job: Job) -> Cancel | None:
        async with noted(job):
            pass
        if job.args["how"] == "discarded":
            raise ValueError("bad")
        return Cancel("why") if job.args["how"] == "cancelled" else None


def moments(rng: random.Random, count: int) -> list[Moment]:
    """This many cuts before and after the server commits, in random order."""
    mixed: list[Moment] = ["request", "answer"]
    mixed *= count
    rng.shuffle(mixed)
    return mixed


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("what", "count"), [(ACKNOWLEDGES, CUTS), (FETCHES, CUTS // 2)], ids=["acknowledging", "fetching"]
)
async def test_cut_while_a_runner_commits(
    server: Server, server_url: URL, tmp_path: Path, rng: random.Random, what: bytes, count: int
) -> None:
    config = {"modules": ["tests.faults.test_ambiguous_commit"]}
    cluster = Cluster(server_url, tmp_path, size=4, ledger=server_url, config=config)
    ends: dict[int, str] = {}

    async def cut(proxy: Proxy, queue: str, when: list[Moment]) -> None:
        """Cut while a job runs, wait until the job has ended nevertheless, and repeat."""
        for moment in when:
            proxy.cut_commits(moment, 1, containing=what)
            how = rng.choices(["completed", "discarded", "cancelled"], k=2)
            jobs = await client.enqueue_many([End.new({"how": each}, queue=queue) for each in how])
            ends.update((job.id, job.args["how"]) for job in jobs)
            these = select(Job).where(Job.id.in_([job.id for job in jobs]))

            async def ended(these: Select[Job] = these) -> bool:
                return {job.state for job in await client.list_jobs(these)} <= FINAL

            await eventually(ended)
            assert not proxy.armed

    async with AsyncExitStack() as stack:
        # Each node has its own queue and network, so all can be cut at the same time.
        proxies = [await stack.enter_async_context(Proxy(server.url)) for _ in cluster.nodes]
        for number, (node, proxy) in enumerate(zip(cluster.nodes, proxies, strict=True)):
            url = proxy.through(server_url).set(drivername=DRIVERS[number % 2])
            node.config["url"] = url.render_as_string(hide_password=False)
            node.options["queues"] = {f"queue-{number}": 1}
        await stack.enter_async_context(cluster)
        client = await stack.enter_async_context(Oban(server_url))
        cuts = [cut(proxy, f"queue-{n}", moments(rng, count // 2)) for n, proxy in enumerate(proxies)]
        await asyncio.gather(*cuts)
        await cluster.stop()
        history = cluster.check(expect=ends)
    assert [proxy.cuts for proxy in proxies] == [count] * 4
    assert Counter(entry.job for entry in history.ledger if entry.what == "start") == dict.fromkeys(ends, 1)
    with recording.connected(server_url) as connection:
        rows = connection.execute(text("SELECT id, state::text, jsonb_array_length(errors) FROM oban_jobs"))
        found = {row[0]: (row[1], row[2]) for row in rows}
    assert found == {id_: (end, 0 if end == "completed" else 1) for id_, end in ends.items()}
    log = "".join(node.log for node in cluster.nodes)
    # Only of the jobs that failed.
    assert log.count("Traceback") == log.count("failed, attempt 1 of")


@pytest.mark.parametrize("driver", DRIVERS)
async def test_cut_while_a_client_enqueues(
    server: Server, server_url: URL, rng: random.Random, driver: str
) -> None:
    async with Proxy(server.url) as proxy, Oban(server_url, name="other") as other:
        async with Oban(proxy.through(server_url).set(drivername=driver)) as client:
            expected: dict[int, int] = {}
            for number, moment in enumerate(moments(rng, CUTS // 2)):
                proxy.cut_commits(moment, 1, containing=b"INTO oban_jobs")
                many = rng.choice([1, 3])
                # The library does not retry, as the job could be stored twice; the caller decides.
                with pytest.raises(DBAPIError):
                    await client.enqueue_many([End.new({"number": number}) for _ in range(many)])
                expected[number] = many if moment == "answer" else 0
                # The next call gets a connection that works.
                await client.enqueue(End.new({"number": number}))
                expected[number] += 1
        assert proxy.cuts == CUTS // 2 * 2
        stored = Counter(job.args["number"] for job in await other.list_jobs())
    assert stored == expected
