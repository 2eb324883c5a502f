"""F13: six clients call everything on the same 200 jobs, and never deadlock.

They run for 3 s, and on a slow machine until each operation was called many times and has changed jobs.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import URL, select, text

from oban import Job, JobState, JobUpdate, Oban, Worker
from oban.errors import JobNotFound
from oban.repository import acknowledge, fetch, prune, rescue, stage
from oban.repository.acknowledge import Ack
from oban.repository.prune import Rule
from tests.faults import recording
from tests.faults.invariants import check
from tests.support.internals import database_of

pytestmark = pytest.mark.slow

SECONDS = 3.0
CLIENTS = 6
JOBS = 200
#: How many jobs a call takes at once, in random order.
SOME = 20
#: How each client brings jobs of other clients back.
AGE = 0.2
#: What each client calls, besides what finds jobs only after a crash.
OPERATIONS = {"claim", "cancel", "retry", "delete", "update", "stage", "rescue", "prune"}
IDS = text("SELECT id FROM oban_jobs WHERE queue = :queue")


class Contended(Worker, name="tests.Contended"):
    async def process(self, job: Job) -> None: ...


class Client:
    """Calls one operation after another on some jobs of a queue, until it is told to stop."""

    def __init__(self, oban: Oban, queue: str, choice: random.Random) -> None:
        self.oban = oban
        self.database = database_of(oban)
        self.queue = queue
        self.choice = choice
        self.owner = str(choice.random())
        self.ids: list[int] = []
        #: How often each operation was called, and for how many jobs.
        self.done: Counter[str] = Counter()
        self.touched: Counter[str] = Counter()

    async def run(self, is_over: Callable[[], bool]) -> None:
        things = [
            *(self.claim, self.claim, self.cancel, self.retry, self.delete, self.update),
            *(self.stage, self.rescue, self.prune, self.sweep),
        ]
        while not is_over():
            if self.done.total() % 5 == 0:
                await self.refill()
            thing = self.choice.choice(things)
            self.touched[thing.__name__] += await thing()
            self.done[thing.__name__] += 1

    async def refill(self) -> None:
        """Load the existing jobs, and replace those that were deleted."""
        async with self.oban.engine.connect() as connection:
            rows = await connection.execute(IDS, {"queue": self.queue})
            self.ids = list(rows.scalars())
        if missing := JOBS - len(self.ids):
            await self.oban.enqueue_many([Contended.new(queue=self.queue) for _ in range(missing)])

    def some(self) -> list[int]:
        return self.choice.sample(self.ids, min(SOME, len(self.ids)))

    async def claim(self) -> int:
        demand = self.choice.randint(1, SOME)
        jobs = await self.database.write(
            fetch.acknowledge_and_fetch, [], self.queue, demand, "node", self.owner
        )
        outcomes = ["completed", "failed", "cancelled", "snoozed", "released", "discarded"]
        only = self.choice.choice([["completed"], outcomes])
        acks = []
        for job in jobs:
            outcome = self.choice.choice(only)
            delay = 0.01 if outcome in ("failed", "snoozed") else None
            error = "no" if outcome in ("failed", "cancelled", "discarded") else None
            acks.append(Ack(job.id, job.attempt, self.owner, outcome, error=error, delay=delay))
        self.choice.shuffle(acks)
        # Some jobs are never acknowledged, so other clients can rescue them.
        again = await self.database.write(
            fetch.acknowledge_and_fetch,
            acks[: self.choice.choice([5, SOME])],
            self.queue,
            5,
            "node",
            self.owner,
        )
        acks = [Ack(job.id, job.attempt, self.owner, "completed") for job in again]
        await self.database.write(acknowledge.acknowledge, acks)
        return len(jobs) + len(again)

    async def cancel(self) -> int:
        return await self.oban.cancel_many_jobs(self.some())

    async def retry(self) -> int:
        return await self.oban.retry_many_jobs(
            select(Job).where(Job.id.in_(self.some())).order_by(Job.worker)
        )

    async def delete(self) -> int:
        return await self.oban.delete_many_jobs(self.some()[:5])

    async def update(self) -> int:
        changed: JobUpdate = {
            "priority": self.choice.randint(0, 9),
            "schedule_in": self.choice.choice([0, 0.01]),
        }
        try:
            return len(await self.oban.update_many_jobs(self.some(), lambda job: changed))
        except JobNotFound:
            # Another client has deleted it.
            return 0

    async def stage(self) -> int:
        return await self.database.write(stage.stage)

    async def rescue(self) -> int:
        return len(await self.database.write(rescue.rescue, AGE, AGE))

    async def prune(self) -> int:
        states = (JobState.COMPLETED, JobState.CANCELLED, JobState.DISCARDED)
        return await self.database.write(prune.prune, Rule(self.choice.choice(states), 0.0), 5)

    async def sweep(self) -> int:
        return len(await self.database.write(rescue.discard_exhausted))


async def contend(url: URL, rng: random.Random) -> None:
    """Run all clients until together they have called each operation often."""
    clients = [
        Client(Oban(url, name=f"client-{n}"), "same", random.Random(rng.random())) for n in range(CLIENTS)
    ]
    least = time.monotonic() + SECONDS

    def is_over() -> bool:
        if time.monotonic() < least:
            return False
        done = sum((client.done for client in clients), Counter[str]())
        touched = sum((client.touched for client in clients), Counter[str]())
        return all(done[operation] > 5 and touched[operation] for operation in OPERATIONS)

    try:
        await asyncio.gather(*(client.run(is_over) for client in clients))
    finally:
        for client in clients:
            await client.oban.stop()


def deadlocks(url: URL) -> int:
    with recording.connected(url) as connection:
        statement = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return connection.scalar(statement) or 0


async def test_six_clients_on_the_same_jobs_never_deadlock(postgresql_url: URL, rng: random.Random) -> None:
    recording.install(postgresql_url)
    with recording.connected(postgresql_url) as connection:
        connection.execute(text(f"ALTER DATABASE {postgresql_url.database} SET deadlock_timeout = '50ms'"))
    # Any error is raised here.
    await contend(postgresql_url, rng)
    assert deadlocks(postgresql_url) == 0
    history = recording.read(postgresql_url)
    jobs = {change.job for change in history.changes}
    found = check(history, lease=AGE, silent=jobs, at_rest=False)
    # No client sends heartbeats, so each job can be taken from its owner after a while.
    assert [violation for violation in found if violation.rule != "I2"] == []
