"""This library as an adapter of the harness that measures other job queues.

`benchmarks.peers` copies this file into the harness, the package `bench`, as the adapter `ours`. Nothing in
this repository imports it.
"""

import asyncio
from typing import Any

from bench import core
from sqlalchemy import URL, make_url

from oban import Job, Oban, Worker, __version__, migration


class Noop(Worker, queue=core.QUEUE):
    async def process(self, job: Job) -> None:
        core.record(job.args["i"])


_WAITING = (
    "INSERT INTO oban_jobs (queue, worker, args)"
    " SELECT %s, %s, jsonb_build_object('i', n) FROM generate_series(0, %s - 1) AS n"
)
_FINISHED = (
    "INSERT INTO oban_jobs (queue, worker, args, state, attempt, attempted_at, completed_at)"
    " SELECT %s, %s, jsonb_build_object('i', n), 'completed', 1, timezone('UTC', now()),"
    " timezone('UTC', now()) FROM generate_series(0, %s - 1) AS n"
)


class Adapter(core.Adapter):
    packages = ("sqlalchemy", "asyncpg")
    remaining_sql = "SELECT count(*) FROM oban_jobs WHERE queue = 'bench' AND state <> 'completed'"
    notes = f"oban {__version__} (this library) with its defaults; enqueue_many for bulk"

    def url(self) -> URL:
        return make_url(self.dsn).set(drivername="postgresql+asyncpg")

    async def setup(self, db: Any) -> None:
        await asyncio.to_thread(migration.upgrade, self.url())

    def reset(self, db: Any) -> None:
        db.execute(f"TRUNCATE {', '.join(migration.metadata.tables)} RESTART IDENTITY")

    async def fill(self, db: Any, count: int) -> None:
        db.execute(_WAITING, (core.QUEUE, Noop.worker_name, count))

    def backlog(self, db: Any, completed: int, available: int) -> None:
        db.execute(_FINISHED, (core.QUEUE, Noop.worker_name, completed))
        db.execute(_WAITING, (core.OTHER, Noop.worker_name, available))
        db.execute("CREATE TABLE IF NOT EXISTS bench_mark (id bigint)")
        db.execute("INSERT INTO bench_mark SELECT max(id) FROM oban_jobs")

    def clear_queue(self, db: Any) -> None:
        db.execute("DELETE FROM oban_jobs WHERE id > (SELECT max(id) FROM bench_mark)")

    async def open_client(self) -> None:
        self.oban = Oban(self.url())
        await self.oban.start()

    async def close_client(self) -> None:
        await self.oban.stop()

    async def enqueue(self, index: int, delay: float | None = None) -> None:
        if delay is None:
            await self.oban.enqueue(Noop.new({"i": index}))
        else:
            await self.oban.enqueue(Noop.new({"i": index}, schedule_in=delay))

    async def enqueue_many(self, indexes: list[int]) -> None:
        await self.oban.enqueue_many([Noop.new({"i": index}) for index in indexes])

    async def run_worker(self, stop: asyncio.Event, **options: Any) -> None:
        async with Oban(self.url(), queues={core.QUEUE: options["concurrency"]}):
            await stop.wait()
