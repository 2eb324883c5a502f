"""oban (oban-py, the official Python port; open-source part, psycopg 3)."""

from __future__ import annotations

from oban.schema import install

from oban import Oban, worker
from oban.worker import worker_name

from .. import core


@worker(queue=core.QUEUE)
class Noop:
    async def process(self, job):
        core.record(job.args["i"])


class Adapter(core.Adapter):
    packages = ("oban", "psycopg", "psycopg-pool")
    remaining_sql = "SELECT count(*) FROM oban_jobs WHERE queue = 'bench' AND state <> 'completed'"
    notes = "pool of its default size (10); enqueue_many for bulk"

    async def setup(self, db):
        pool = await Oban.create_pool(self.dsn)
        await install(pool)
        await pool.close()

    def reset(self, db):
        db.execute("TRUNCATE oban_jobs, oban_leaders, oban_producers RESTART IDENTITY")

    async def fill(self, db, count):
        db.execute(
            "INSERT INTO oban_jobs (queue, worker, args) SELECT %s, %s,"
            " jsonb_build_object('i', n) FROM generate_series(0, %s - 1) n",
            (core.QUEUE, worker_name(Noop), count),
        )

    def backlog(self, db, completed, available):
        db.execute(
            "INSERT INTO oban_jobs (queue, worker, args, state, attempt, attempted_at,"
            " completed_at) SELECT %s, %s, jsonb_build_object('i', n), 'completed', 1,"
            " timezone('UTC', now()), timezone('UTC', now())"
            " FROM generate_series(1, %s) n",
            (core.QUEUE, worker_name(Noop), completed),
        )
        db.execute(
            "INSERT INTO oban_jobs (queue, worker, args) SELECT %s, %s,"
            " jsonb_build_object('i', n) FROM generate_series(1, %s) n",
            (core.OTHER, worker_name(Noop), available),
        )
        db.execute("CREATE TABLE IF NOT EXISTS bench_mark (id bigint)")
        db.execute("INSERT INTO bench_mark SELECT max(id) FROM oban_jobs")

    def clear_queue(self, db):
        db.execute("DELETE FROM oban_jobs WHERE id > (SELECT max(id) FROM bench_mark)")

    async def open_client(self):
        self.pool = await Oban.create_pool(self.dsn)
        self.oban = Oban(pool=self.pool)

    async def close_client(self):
        await self.pool.close()

    async def enqueue(self, index, delay=None):
        extra = {"scheduled_in": delay} if delay else {}
        await self.oban.enqueue(Noop.new({"i": index}, **extra))

    async def enqueue_many(self, indexes):
        await self.oban.enqueue_many(Noop.new({"i": index}) for index in indexes)

    async def run_worker(self, stop, concurrency):
        pool = await Oban.create_pool(self.dsn)
        async with Oban(pool=pool, queues={core.QUEUE: concurrency}):
            await stop.wait()
        await pool.close()
