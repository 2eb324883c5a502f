"""Workers for many processes on one file: `Insert` inserts jobs of `Noop` in its own transactions."""

import asyncio

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, Oban, Worker

BATCH = 20


class Noop(Worker, name="contending.Noop"):
    """Does nothing and succeeds."""

    async def process(self, job: Job) -> None: ...


class Insert(Worker, name="contending.Insert", queue="inserts", max_attempts=100):
    """Inserts `args["batches"]` batches, each exactly once, however often it is interrupted."""

    async def process(self, job: Job) -> None:
        oban, part = Oban.get_instance(), job.args["part"]
        async with AsyncSession(oban.engine) as session:
            done = set(
                await session.scalars(text("SELECT n FROM batches WHERE part = :part"), {"part": part})
            )
        for n in sorted(set(range(job.args["batches"])) - done):
            async with AsyncSession(oban.engine) as session, session.begin():
                await session.execute(text("INSERT INTO batches VALUES (:part, :n)"), {"part": part, "n": n})
                await oban.enqueue_many([Noop.new() for _ in range(BATCH)], session=session)
            await asyncio.sleep(0)
