"""Inserts jobs. The time includes creating them, but not a first batch, which connects."""

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession

from benchmarks import raw
from benchmarks.meter import QUEUE, WORKER, Meter
from oban import Job, Oban, Worker

#: Number of jobs in one call or one statement.
BATCH = 1000
WARM_UP = 100

Insert = Callable[[range], Awaitable[object]]


class Noop(Worker, name=WORKER, queue=QUEUE):
    async def process(self, job: Job) -> None:
        """Never runs here."""


class Once(Worker, name=f"{WORKER}.Once", queue=QUEUE, unique=True):
    async def process(self, job: Job) -> None:
        """Never runs here."""


async def insert(url: URL, meter: Meter, side: str, how: str) -> None:
    """Measure one of the functions below; `how` is "one", "many", "session" or "add-all"."""
    # The number of jobs in each call; with a session, one transaction inserts all of them.
    size = {"one": 1, "many": BATCH}.get(how, meter.jobs)
    if side == "ours":
        async with Oban(url) as oban:
            await _measure(meter, ours(oban)[how], size)
    elif url.get_backend_name() == "sqlite":
        with closing(raw.lite_connect(url)) as lite:
            await _measure(meter, by_hand_lite(lite), size)
    else:
        connection = await raw.connect(url)
        await _measure(meter, by_hand(connection)[how], size)
        await connection.close()


async def insert_unique(url: URL, meter: Meter, _: str, how: str, conflict: bool = False) -> None:
    """Measure the same with unique jobs, "one" or "many"; with `conflict`, all of them are there already."""
    async with Oban(url) as oban:
        insert = ours(oban, Once)[how]
        if conflict:
            await ours(oban, Once)["many"](range(meter.jobs))
        await _measure(meter, insert, 1 if how == "one" else BATCH, warm_up=range(-WARM_UP, 0))


def ours(oban: Oban, worker: type[Worker] = Noop) -> dict[str, Insert]:
    """Return the ways to insert with the library."""

    async def one(numbers: range) -> None:
        for n in numbers:
            await oban.enqueue(worker.new({"n": n}))

    async def many(numbers: range) -> None:
        await oban.enqueue_many([worker.new({"n": n}) for n in numbers])

    async def session(numbers: range) -> None:
        async with AsyncSession(oban.engine) as session, session.begin():
            for n in numbers:
                await oban.enqueue(worker.new({"n": n}), session=session)

    async def add_all(numbers: range) -> None:
        async with AsyncSession(oban.engine) as session, session.begin():
            session.add_all([worker.new({"n": n}) for n in numbers])

    return {"one": one, "many": many, "session": session, "add-all": add_all}


def by_hand(connection: asyncpg.Connection) -> dict[str, Insert]:
    """Return the same with the driver alone; "add-all" uses statements of 1,000 jobs in one transaction."""

    async def one(numbers: range) -> None:
        for n in numbers:
            await raw.insert_one(connection, n)

    async def many(numbers: range) -> None:
        for first in range(0, len(numbers), BATCH):
            await raw.insert(connection, numbers[first : first + BATCH])

    async def session(numbers: range) -> None:
        async with connection.transaction():
            await one(numbers)

    async def add_all(numbers: range) -> None:
        async with connection.transaction():
            await many(numbers)

    return {"one": one, "many": many, "session": session, "add-all": add_all}


def by_hand_lite(lite: sqlite3.Connection) -> Insert:
    """Return a function that inserts one or many jobs in one statement on SQLite."""

    async def statement(numbers: range) -> None:
        raw.lite_insert(lite, numbers)

    return statement


async def _measure(meter: Meter, insert: Insert, size: int, warm_up: range = range(WARM_UP)) -> None:
    await insert(warm_up)
    meter.start()
    for first in range(0, meter.jobs, size):
        await insert(range(first, min(first + size, meter.jobs)))
    meter.stop()
