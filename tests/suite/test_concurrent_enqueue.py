"""Many tasks enqueue in their own transactions, and roll some of them back, while jobs run."""

import asyncio
import random
from collections import Counter

import pytest
from sqlalchemy import URL, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, Oban, Worker
from tests.support.rows import TABLE
from tests.support.waiting import eventually

TASKS = 16
#: Transactions per task.
TRANSACTIONS = 130


class Count(Worker):
    """Counts how often each job ran, by its args."""

    ran: Counter[str]

    async def process(self, job: Job) -> None:
        self.ran[job.args["key"]] += 1


@pytest.mark.slow
@pytest.mark.parametrize("factory", ["sqlite", "asyncpg"], indirect=True)
async def test_only_committed_transactions_of_thousands_enqueue_and_their_jobs_run_once(
    url: URL, rng: random.Random
) -> None:
    Count.ran = Counter()
    committed: set[str] = set()
    async with Oban(url, queues={"default": 50}, shutdown_grace_period=1) as oban:

        async def application(task: int) -> None:
            for number in range(TRANSACTIONS):
                key = f"{task}-{number}"
                async with AsyncSession(oban.engine) as session:
                    how = rng.randrange(3)
                    if how == 0:
                        session.add(Count.new({"key": key}))
                        await session.flush()
                    elif how == 1:
                        await oban.enqueue(Count.new({"key": key}), session=session)
                    else:
                        row = {"worker": Count.worker_name, "args": {"key": key}}
                        await session.execute(insert(Job), [row])
                    if rng.randrange(3):
                        await session.commit()
                        committed.add(key)
                    else:
                        await session.rollback()

        await asyncio.gather(*(application(task) for task in range(TASKS)))
        await eventually(lambda: len(Count.ran) >= len(committed), progress=lambda: len(Count.ran))
        still = select(func.count()).where(TABLE.c.state != "completed")

        async def is_done() -> bool:
            async with oban.engine.connect() as connection:
                return (await connection.execute(still)).scalar_one() == 0

        await eventually(is_done, 30)
        stored = [job.args["key"] for job in await oban.list_jobs()]
    assert 0.6 < len(committed) / (TASKS * TRANSACTIONS) < 0.73
    assert len(stored) == len(committed)
    assert set(stored) == committed
    assert Count.ran == Counter(committed)
