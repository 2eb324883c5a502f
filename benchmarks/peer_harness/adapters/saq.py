"""saq with its PostgreSQL queue (psycopg 3)."""

from __future__ import annotations

import asyncio
import time

from saq import Worker
from saq.queue.postgres import PostgresQueue

from .. import core


async def noop(ctx, *, i):
    core.record(i)


class Adapter(core.Adapter):
    packages = ("saq", "psycopg", "psycopg-pool")
    remaining_sql = "SELECT count(*) FROM saq_jobs WHERE queue = 'bench' AND status <> 'complete'"
    bulk = False
    notes = (
        "pool of its default size (4..20); no bulk insert for PostgreSQL, so a loop; "
        "schedules in whole seconds (rounded up here, so that nothing is due early)"
    )

    def queue(self):
        return PostgresQueue.from_url(self.dsn, name=core.QUEUE)

    async def setup(self, db):
        queue = self.queue()
        await queue.connect()
        await queue.disconnect()

    def reset(self, db):
        db.execute("TRUNCATE saq_jobs, saq_stats RESTART IDENTITY")

    def _insert(self, db, queue, status, count, first):
        # the job column is the JSON text that saq itself writes
        db.execute(
            "INSERT INTO saq_jobs (key, job, queue, status, priority, scheduled)"
            " SELECT k, convert_to(json_build_object('function', 'noop',"
            " 'kwargs', json_build_object('i', n), 'key', k, 'queue', %(q)s::text,"
            " 'queued', t, 'status', %(s)s::text)::text, 'UTF8'), %(q)s, %(s)s, 0, t / 1000"
            " FROM (SELECT n, gen_random_uuid()::text AS k,"
            " (extract(epoch FROM now()) * 1000)::bigint AS t"
            " FROM generate_series(%(f)s, %(f)s + %(n)s - 1) n) x",
            {"q": queue, "s": status, "n": count, "f": first},
        )

    async def fill(self, db, count):
        self._insert(db, core.QUEUE, "queued", count, 0)

    def backlog(self, db, completed, available):
        self._insert(db, core.QUEUE, "complete", completed, 1)
        self._insert(db, core.OTHER, "queued", available, 1)
        db.execute("CREATE TABLE IF NOT EXISTS bench_mark (id bigint)")
        db.execute("INSERT INTO bench_mark SELECT max(lock_key) FROM saq_jobs")

    def clear_queue(self, db):
        db.execute("DELETE FROM saq_jobs WHERE lock_key > (SELECT max(id) FROM bench_mark)")

    async def open_client(self):
        self.client = self.queue()
        await self.client.connect()

    async def close_client(self):
        await self.client.disconnect()

    async def enqueue(self, index, delay=None):
        extra = {"scheduled": int(time.time() + delay) + 1} if delay else {}
        await self.client.enqueue("noop", i=index, **extra)

    async def run_worker(self, stop, concurrency):
        queue = self.queue()
        await queue.connect()
        worker = Worker(queue, [("noop", noop)], concurrency=concurrency)
        task = asyncio.create_task(worker.start())
        await stop.wait()
        await worker.stop()
        await asyncio.wait([task])
        await queue.disconnect()
