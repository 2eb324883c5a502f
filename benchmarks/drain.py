"""Runs the jobs that wait in the table.

The time is measured from the first job body until the table shows that all jobs are completed. It excludes,
for both sides, imports, connecting and the first fetch.
"""

import asyncio
import contextlib
import multiprocessing
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.synchronize import Barrier
from typing import Any

from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from benchmarks import meter as meters
from benchmarks import raw
from benchmarks.meter import POLL_INTERVAL, QUEUE, TIME_LIMIT, WORKER, Mark, Meter
from benchmarks.raw import Body
from oban import CallNext, Job, Middleware, Oban, Worker
from oban.telemetry import Event, Handler

LEFT = f"SELECT count(*) FROM oban_jobs WHERE queue = '{QUEUE}' AND state <> 'completed'"
WRITE = text("INSERT INTO bench_writes (n) VALUES (:n)")

Finished = Callable[[], Awaitable[object]]


async def ours(
    url: URL,
    limit: int,
    body: Body,
    finished: Finished,
    middleware: Sequence[Middleware] = (),
    history: bool = True,
    handler: Handler | None = None,
) -> None:
    """Run jobs with the library until `finished` returns."""

    class Noop(Worker, name=WORKER, queue=QUEUE):
        async def process(self, job: Job) -> None:
            body(job.args["n"])

    oban = Oban(url, queues={QUEUE: limit}, middleware=middleware, history=history)
    if handler is not None:
        oban.telemetry.attach(handler)
    async with oban:
        await finished()


def ignore(event: Event) -> None:
    pass


async def async_middleware(job: Job, call_next: CallNext) -> Any:
    return await call_next(job)


def plain_middleware(job: Job, call_next: CallNext) -> Any:
    return call_next(job)


async def ours_writing(url: URL, limit: int, body: Body, finished: Finished) -> None:
    """Like `ours`, with jobs that write a row in their own transaction."""

    class Writing(Worker, name=WORKER, queue=QUEUE):
        async def process(self, job: Job, session: AsyncSession) -> None:
            body(job.args["n"])
            await session.execute(WRITE, {"n": job.args["n"]})

    await _on_application_engine(url, limit, finished)


async def ours_threads(url: URL, limit: int, body: Body, finished: Finished) -> None:
    """Like `ours_writing`, with a plain worker, whose jobs run in threads."""
    loop = asyncio.get_running_loop()

    class Writing(Worker, name=WORKER, queue=QUEUE):
        def process(self, job: Job, session: Session) -> None:
            # The meter belongs to the loop.
            loop.call_soon_threadsafe(body, job.args["n"])
            session.execute(WRITE, {"n": job.args["n"]})

    await _on_application_engine(url, limit, finished)


async def _on_application_engine(url: URL, limit: int, finished: Finished) -> None:
    # An engine with the pool that most applications have: the default one.
    engine = create_async_engine(url)
    async with Oban(engine, queues={QUEUE: limit}):
        await finished()
    await engine.dispose()


def by_hand(
    loop: Callable[[URL, int, Body], Awaitable[None]],
) -> Callable[[URL, int, Body, Finished], Awaitable[None]]:
    """Run jobs with a hand-written loop, which ends when there are no more."""

    async def drain(url: URL, limit: int, body: Body, finished: Finished) -> None:
        await loop(url, limit, body)
        await finished()

    return drain


SIDES: dict[str, Callable[[URL, int, Body, Finished], Awaitable[None]]] = {
    "ours": ours,
    "raw": by_hand(raw.drain),
    "raw-fused": by_hand(raw.drain_fused),
    "ours-writing": ours_writing,
    "ours-threads": ours_threads,
    "ours-without-history": partial(ours, history=False),
    "ours-telemetry": partial(ours, handler=ignore),
    "ours-async": partial(ours, middleware=[async_middleware]),
    "ours-plain": partial(ours, middleware=[plain_middleware]),
    "raw-writing": by_hand(raw.drain_writing),
    # In a thread or not, the same transaction.
    "raw-threads": by_hand(raw.drain_writing),
}


async def drain(
    url: URL,
    meter: Meter,
    side: str,
    limit: int,
    *,
    snapshot: bool = False,
    variant: str | None = None,
    ready: Callable[[], object] = int,
) -> None:
    """Measure one process; calls `ready` once everything is set up.

    With `snapshot`, a transaction that is older than the drain stays open. A `variant` is the second part of
    a name in `SIDES`: with "writing", each job writes a row; with "threads", a plain worker does; with
    "async" or "plain", it has such a middleware; "without-history" stores no attempts; with "telemetry", a
    handler that does nothing gets every event.
    """
    async with counting(url) as left, old_snapshot(url) if snapshot else contextlib.nullcontext():
        if (waiting := await left()) != meter.jobs:
            raise SystemExit(f"{waiting} jobs wait in the table, not {meter.jobs}")
        ready()

        async def finished() -> None:
            await meter.all_ran()
            # Polled, because only the table shows when the last process has finished.
            while await left():  # noqa: ASYNC110
                await asyncio.sleep(POLL_INTERVAL)
            meter.stop()

        await SIDES[f"{side}-{variant}" if variant else side](url, limit, meter.body, finished)
    if meter.ran > meter.jobs:
        raise SystemExit(f"{meter.jobs} jobs ran {meter.ran} times")


@contextlib.asynccontextmanager
async def counting(url: URL) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Yield a function that counts the jobs that are not completed, on a connection of its own."""
    if url.get_backend_name() == "sqlite":
        with contextlib.closing(raw.lite_connect(url)) as lite:

            async def count_lite() -> int:
                return int(lite.execute(LEFT).fetchone()[0])

            yield count_lite
        return
    connection = await raw.connect(url)

    async def count() -> int:
        return int(await connection.fetchval(LEFT))

    yield count
    await connection.close()


@contextlib.asynccontextmanager
async def old_snapshot(url: URL) -> AsyncIterator[None]:
    """Keep a transaction open, so that the server cannot remove any dead row."""
    connection = await raw.connect(url)
    async with connection.transaction(isolation="repeatable_read"):
        await connection.fetchval(LEFT)
        yield
    await connection.close()


# -- Several processes -----------------------------------------------------------------------


class Shared(Meter):
    """One of several meters that share their counts."""

    def __init__(self, jobs: int, server: int | None, counts: Any, place: int) -> None:
        super().__init__(jobs, server)
        self._counts = counts
        self._place = place

    def body(self, n: int) -> None:
        super().body(n)
        self._counts[self._place] = self.ran

    async def all_ran(self) -> None:
        # Polled, because other processes cannot wake this one.
        while sum(self._counts) < self.jobs:  # noqa: ASYNC110
            await asyncio.sleep(POLL_INTERVAL)
        # This process ran no job, because the others ran them all.
        if not self.marks:
            self.start()


async def drain_together(url: URL, meter: Meter, side: str, limit: int, *, processes: int) -> None:
    """Measure several processes that start together, each with the same `limit`."""
    context = multiprocessing.get_context("spawn")
    counts, barrier = context.Array("q", processes, lock=False), context.Barrier(processes)
    with ProcessPoolExecutor(processes, context, _share, (counts, barrier)) as pool:
        loop = asyncio.get_running_loop()
        each = (meter.jobs, meter.server, url.render_as_string(hide_password=False), side, limit)
        parts = [loop.run_in_executor(pool, _part, place, *each) for place in range(processes)]
        meter.combine(await asyncio.gather(*parts))
    if sum(counts) != meter.jobs:
        raise SystemExit(f"{meter.jobs} jobs ran {sum(counts)} times")


#: Set in each process: the number of jobs that each process ran, and the barrier at which all start.
_counts: Any
_barrier: Barrier


def _share(counts: Any, barrier: Barrier) -> None:
    global _counts, _barrier
    _counts, _barrier = counts, barrier


def _part(place: int, jobs: int, server: int | None, url: str, side: str, limit: int) -> Sequence[Mark]:
    async def part() -> Sequence[Mark]:
        meter = Shared(jobs, server, _counts, place)
        async with asyncio.timeout(TIME_LIMIT):
            await drain(make_url(url), meter, side, limit, ready=lambda: _barrier.wait(TIME_LIMIT))
        return meter.marks

    return meters.run(part())
