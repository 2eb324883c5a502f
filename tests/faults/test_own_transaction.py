"""F2: jobs kill their process around their effect. With a job session the effect is stored exactly once."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import URL, text

from oban import Job, JobState, Oban
from tests.faults import recording
from tests.faults.cluster import Cluster
from tests.faults.history import Fault
from tests.faults.proxy import Moment, Proxy
from tests.faults.transactional import BEGUN, DEATHS, KINDS, POINTS, SLOW, TABLE, Plain
from tests.support.database_server import Server
from tests.support.jobs import reaches
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

LEASE = 1.0
TRANSACTIONAL, PLAIN = 50, 10
LIMIT = 10
TOLD = {"modules": ["tests.faults.workers", "tests.faults.transactional"]}


def effects(url: URL) -> Counter[int]:
    """The number of effects of each job."""
    with recording.connected(url) as connection:
        return Counter(row[0] for row in connection.execute(text("SELECT job FROM effects")))


def cluster_for(url: URL, folder: Path, *, limit: int) -> Cluster:
    with recording.connected(url) as connection:
        connection.execute(text(TABLE))
        connection.commit()
    cluster = Cluster(url, folder, lease=LEASE, limit=limit, config=TOLD, shutdown_grace_period=5.0)
    deaths = folder / "deaths"
    deaths.mkdir()
    cluster.environment[DEATHS] = str(deaths)
    return cluster


async def test_effects_are_there_exactly_once_when_jobs_kill_their_process(
    url: URL, tmp_path: Path, rng: random.Random
) -> None:
    async with cluster_for(url, tmp_path, limit=2) as cluster, Oban(url) as client:
        cluster.supervise()
        own = [KINDS[n % 2]({"point": rng.choice(POINTS)}) for n in range(TRANSACTIONAL)]
        plain = [Plain.new({"point": rng.choice(POINTS[:2])}) for _ in range(PLAIN)]
        mixed = [*own, *plain]
        rng.shuffle(mixed)
        await client.enqueue_many(mixed)
        took = await cluster.settled(45, jobs=len(mixed))
        rows = await client.list_jobs()
        await asyncio.gather(*(node.ready() for node in cluster.nodes))
        await cluster.stop()
        files = [path for path in (tmp_path / "deaths").iterdir() if not path.suffix]
        deaths = [path.read_text().split() for path in files]
        cluster.faults += [Fault(node, "kill", float(at)) for node, at in deaths]
        ids = [job.id for job in mixed]
        cluster.check(expect=ids, silent=ids)
    found = effects(url)
    repeated = sum(found[job.id] - 1 for job in plain)
    print(f"{len(deaths)} processes died in {took:.1f} s; {repeated} effects of plain jobs were repeated")
    assert {row.state for row in rows} == {"completed"}
    # A job that shared its process with another one can have been stored without killing the process itself.
    spared = [job for job in mixed if not (tmp_path / "deaths" / str(job.id)).exists()]
    assert {job.args["point"] for job in spared} <= {"committed"}
    assert len(deaths) >= TRANSACTIONAL
    assert [found[job.id] for job in own] == [1] * TRANSACTIONAL
    assert repeated >= sum(job.args["point"] == "written" for job in plain)


async def all_running_on(client: Oban, node: str) -> list[Job]:
    """Wait until a node runs as many jobs as its limit, and return them."""

    async def full() -> list[Job] | None:
        jobs = [job for job in await client.list_jobs() if job.state == "executing"]
        here = [job for job in jobs if job.attempted_by[0] == node]
        return here if len(here) == LIMIT else None

    jobs: list[Job] = await eventually(full)
    return jobs


async def test_runs_that_lost_their_job_leave_no_effect(url: URL, tmp_path: Path, rng: random.Random) -> None:
    # On SQLite, no other connection could write after one of these jobs has written.
    first = url.get_backend_name() != "sqlite"
    async with cluster_for(url, tmp_path, limit=LIMIT) as cluster, Oban(url) as client:
        jobs = [
            SLOW[n % 2]({"seconds": rng.uniform(1.5, 2.5) * LEASE, "first": first}) for n in range(3 * LIMIT)
        ]
        await client.enqueue_many(jobs)
        frozen, other, _ = cluster.nodes
        lost = await all_running_on(client, frozen.name)
        # A node that is frozen between the fetch and the start of a job does not start it later.
        await eventually(lambda: frozen.log.count(BEGUN) >= len(lost))
        cancelled = rng.sample(await all_running_on(client, other.name), 4)
        assert await client.cancel_many_jobs(cancelled) == len(cancelled)
        await frozen.freeze(3 * LEASE)
        await cluster.settled(15, jobs=len(jobs))
        # The frozen runs end too late.
        await eventually(lambda: frozen.log.count("its writes are rolled back") >= len(lost))
        states = {job.id: job.state for job in await client.list_jobs()}
        await cluster.stop()
        ids = [job.id for job in jobs]
        history = cluster.check(expect=ids, silent=ids)
    rescued = {change.job for change in history.rescues()}
    print(f"{len(rescued)} jobs were rescued, {len(cancelled)} cancelled")
    assert rescued == {job.id for job in lost}
    gone = {job.id for job in cancelled}
    assert states == {id_: "cancelled" if id_ in gone else "completed" for id_ in ids}
    assert effects(url) == {id_: 1 for id_ in ids if id_ not in gone}


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_there_is_one_effect_when_the_commit_breaks(
    server: Server, server_url: URL, rng: random.Random, driver: str
) -> None:
    with recording.connected(server_url) as connection:
        connection.execute(text(TABLE))
        connection.commit()
    moments: list[Moment] = ["request", "answer"] * 8
    rng.shuffle(moments)
    expected = {}
    async with Proxy(server.url) as proxy, Oban(server_url, name="other") as other:
        url = proxy.through(server_url).set(drivername=f"postgresql+{driver}")
        async with Oban(url, queues={"default": 1}):
            for number, moment in enumerate(moments):
                proxy.cut_commits(moment, 1, containing=b"INTO effects")
                job = await other.enqueue(KINDS[number % 2]({"point": "none"}))
                expected[job.id] = ("retryable", 1, 0) if moment == "request" else ("completed", 0, 1)
                await eventually(lambda: not proxy.armed)
                await reaches(other, job, JobState.COMPLETED, JobState.RETRYABLE)
            assert await stored_of(other, server_url) == expected
            await other.retry_many_jobs(id_ for id_, stored in expected.items() if stored[0] == "retryable")
            for id_ in expected:
                await reaches(other, id_, JobState.COMPLETED)
    assert effects(server_url) == dict.fromkeys(expected, 1)


async def stored_of(client: Oban, url: URL) -> dict[int, tuple[str, int, int]]:
    """The state, the number of errors and the number of effects of each job."""
    found = effects(url)
    return {job.id: (str(job.state), len(job.errors), found[job.id]) for job in await client.list_jobs()}
