"""F15: however many producers claim at once, a job is claimed once, and no claim gets more than its demand.

On PostgreSQL eight claimers ask for 1 to 50 of 20,000 jobs at a time, or of 4,000 jobs if the planner can
only use nested loops and scans. On SQLite there are four, as tasks, threads and processes, with 5,000 jobs.
"""

import asyncio
import json
import random
import sys
from asyncio.subprocess import PIPE
from collections import Counter

import pytest
from sqlalchemy import URL, text

from oban import Job, Oban
from oban.repository import fetch
from oban.repository.acknowledge import Ack
from tests.faults.node import die_with_parent
from tests.support.internals import database_of
from tests.support.processes import ROOT
from tests.support.waiting import within

pytestmark = pytest.mark.slow

_OFF = ("hashjoin", "mergejoin", "hashagg", "sort", "material", "indexscan", "bitmapscan")
#: A join that runs a subquery with a LIMIT again for each row would claim other jobs each time.
PLANNERS = {
    "as it likes": {},
    "nested loops": {"plan_cache_mode": "force_generic_plan"} | {f"enable_{how}": "off" for how in _OFF},
}
#: Without an index each claim scans the whole table.
JOBS = {"as it likes": 20_000, "nested loops": 4_000}


async def claim(url: URL | str, name: str, seed: int) -> list[list[int]]:
    """Claim until no job is left, acknowledging each claim with the next. Returns each `[demand, *ids]`."""
    choice = random.Random(seed)
    claims: list[list[int]] = []
    async with Oban(url, name=name) as client:
        acks: list[Ack] = []
        while True:
            demand = choice.randint(1, 50)
            # Successes without a value take one statement, other outcomes two.
            outcome = "cancelled" if choice.random() < 0.1 else "completed"
            acks = [ack._replace(outcome=outcome) for ack in acks]
            jobs = await database_of(client).write(
                fetch.acknowledge_and_fetch, acks, "default", demand, name, name
            )
            claims.append([demand, *(job.id for job in jobs)])
            acks = [Ack(job.id, job.attempt, name, "completed") for job in jobs]
            if not jobs:
                return claims


async def claim_in_process(url: URL, name: str, seed: int, together: asyncio.Barrier) -> list[list[int]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, url.render_as_string(hide_password=False), name, str(seed)),
        cwd=ROOT,
        stdin=PIPE,
        stdout=PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    await together.wait()
    said, _ = await process.communicate(b"go\n")
    assert process.returncode == 0
    claims: list[list[int]] = json.loads(said)
    return claims


async def fill(url: URL, jobs: int) -> None:
    async with Oban(url) as client:
        await client.enqueue_many([Job(worker="tests.Claimed") for _ in range(jobs)])


async def check(url: URL, claimed: list[list[list[int]]], jobs: int) -> None:
    """Each job was claimed once, each claim got up to its demand, and the claimers ran concurrently."""
    claims = [claim for each in claimed for claim in each]
    assert [claim for claim in claims if len(claim) - 1 > claim[0]] == []
    times = Counter(id_ for claim in claims for id_ in claim[1:])
    assert (len(times), set(times.values())) == (jobs, {1})
    assert sum(len(each) > 2 for each in claimed) >= len(claimed) / 2
    async with Oban(url) as client, client.engine.connect() as connection:
        statement = "SELECT count(*), min(attempt), max(attempt) FROM oban_jobs WHERE state <> 'executing'"
        assert tuple((await connection.execute(text(statement))).one()) == (jobs, 1, 1)


@pytest.mark.parametrize("planner", PLANNERS)
async def test_eight_claimers_on_postgresql(postgresql_url: URL, planner: str, rng: random.Random) -> None:
    await fill(postgresql_url, JOBS[planner])
    async with Oban(postgresql_url) as client, client.engine.begin() as connection:
        for setting, value in PLANNERS[planner].items():
            database = postgresql_url.database
            await connection.execute(text(f"ALTER DATABASE {database} SET {setting} = {value}"))
    claimers = [claim(postgresql_url, f"claimer-{n}", rng.randrange(2**32)) for n in range(8)]
    await check(postgresql_url, await asyncio.gather(*claimers), JOBS[planner])


async def test_locked_rows_are_skipped(postgresql_url: URL) -> None:
    await fill(postgresql_url, 100)
    async with Oban(postgresql_url) as client, client.engine.begin() as connection:
        held = "SELECT id FROM oban_jobs WHERE id % 2 = 0 FOR UPDATE"
        locked = set((await connection.execute(text(held))).scalars())
        turn = database_of(client).write(fetch.acknowledge_and_fetch, [], "default", 60, "node", "owner")
        jobs = await within(turn, 10)
        assert (len(jobs), locked & {job.id for job in jobs}) == (50, set())


@pytest.mark.parametrize("kind", ["tasks", "threads", "processes"])
async def test_four_claimers_on_sqlite(sqlite_url: URL, kind: str, rng: random.Random) -> None:
    await fill(sqlite_url, 5_000)
    async with Oban(sqlite_url, queues={"other": 1}):
        # Switch to WAL mode, as any start of a node does.
        pass

    together = asyncio.Barrier(4)

    def claimer(number: int) -> "asyncio.Future[list[list[int]]]":
        which = (sqlite_url, f"claimer-{number}", rng.randrange(2**32))
        match kind:
            case "tasks":
                return asyncio.ensure_future(claim(*which))
            case "threads":
                return asyncio.ensure_future(asyncio.to_thread(lambda: asyncio.run(claim(*which))))
            case _:
                return asyncio.ensure_future(claim_in_process(*which, together))

    await check(sqlite_url, await asyncio.gather(*map(claimer, range(4))), 5_000)


if __name__ == "__main__":
    die_with_parent()
    url, name, seed = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(asyncio.run(claim(url, name, int(seed)))))
