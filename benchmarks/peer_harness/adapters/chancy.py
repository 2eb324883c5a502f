"""chancy (psycopg 3) with its AsyncExecutor, eager polling and no rate limit."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from chancy import Chancy, Job, Queue, Worker, job

from .. import core

# its default logger formats and prints a line for every job
QUIET = logging.getLogger("chancy.quiet")
QUIET.setLevel(logging.WARNING)


@job(queue=core.QUEUE)
async def noop(*, i: int):
    core.record(i)


class Adapter(core.Adapter):
    packages = ("chancy", "psycopg", "psycopg-pool")
    remaining_sql = "SELECT count(*) FROM chancy_jobs WHERE queue = 'bench' AND state <> 'succeeded'"
    notes = (
        "executor Async, eager_polling on, polling_interval 1 (its smallest), "
        "default plugins, pool of its default size (10); logger at WARNING (its default "
        "prints a line per job)"
    )

    async def setup(self, db):
        async with Chancy(self.dsn, log=QUIET) as chancy:
            await chancy.migrate()

    def reset(self, db):
        db.execute(
            "TRUNCATE chancy_jobs, chancy_workers, chancy_leader, chancy_queues, chancy_queue_rate_limits"
        )

    def _insert(self, db, queue, count, first, done=False):
        # time-ordered keys, as its own uuid7 keys are
        db.execute(
            "INSERT INTO chancy_jobs (id, queue, func, kwargs, limits, meta, state,"
            " priority, attempts, max_attempts, completed_at)"
            " SELECT ((lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint),"
            " 12, '0') || '70008' || lpad(to_hex(n), 15, '0'))::uuid), %(q)s, %(w)s,"
            " jsonb_build_object('i', n), '[]', '{}', %(s)s, 0, %(a)s, 1, %(c)s"
            " FROM generate_series(%(f)s, %(f)s + %(n)s - 1) n",
            {
                "q": queue,
                "w": f"{__name__}.noop",
                "s": "succeeded" if done else "pending",
                "a": int(done),
                "c": datetime.now(UTC) if done else None,
                "f": first,
                "n": count,
            },
        )

    async def fill(self, db, count):
        self._insert(db, core.QUEUE, count, 0)

    def backlog(self, db, completed, available):
        self._insert(db, core.QUEUE, completed, 1, done=True)
        self._insert(db, core.OTHER, available, 1)
        db.execute("CREATE TABLE IF NOT EXISTS bench_mark (at timestamptz)")
        db.execute("INSERT INTO bench_mark SELECT clock_timestamp()")

    def clear_queue(self, db):
        db.execute(
            "DELETE FROM chancy_jobs WHERE queue = %s AND created_at > (SELECT max(at) FROM bench_mark)",
            (core.QUEUE,),
        )

    async def open_client(self):
        self.chancy = Chancy(self.dsn, log=QUIET)
        await self.chancy.__aenter__()

    async def close_client(self):
        await self.chancy.__aexit__(None, None, None)

    async def enqueue(self, index, delay=None):
        work = noop.job.with_kwargs(i=index)
        if delay:
            at = datetime.now(UTC) + timedelta(seconds=delay)
            work = work.with_scheduled_at(at)
        await self.chancy.push(work)

    async def enqueue_many(self, indexes):
        jobs: list[Job] = [noop.job.with_kwargs(i=index) for index in indexes]
        async for _ in self.chancy.push_many(jobs):
            pass

    async def run_worker(self, stop, concurrency):
        async with Chancy(self.dsn, log=QUIET) as chancy:
            await chancy.declare(
                Queue(
                    core.QUEUE,
                    concurrency=concurrency,
                    executor=Chancy.Executor.Async,
                    polling_interval=1,
                    eager_polling=True,
                ),
                upsert=True,
            )
            async with Worker(chancy, register_signal_handlers=False):
                await stop.wait()
