"""pgqueuer with its asyncpg pool driver."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import ClassVar

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.queries import Queries

from .. import core


class Adapter(core.Adapter):
    packages = ("pgqueuer", "asyncpg")
    variants: ClassVar = {
        "c10": {"batch": 5, "limit": 10},
        "c50": {"batch": 25, "limit": 50},
        "c200": {"batch": 100, "limit": 200},
        "b10-unbounded": {"batch": 10, "limit": None},
        "b200-unbounded": {"batch": 200, "limit": None},
    }
    latency_variant = "b10-unbounded"
    backlog_variant = "c50"
    remaining_sql = "SELECT count(*) FROM pgqueuer WHERE entrypoint = 'bench'"
    notes = (
        "cN: max_concurrent_tasks=N with the largest batch_size it then allows (N/2); "
        "b10-unbounded is its default (batch_size=10, no limit on running tasks); "
        "finished jobs are deleted and logged in pgqueuer_log"
    )

    async def setup(self, db):
        conn = await asyncpg.connect(self.dsn)
        await Queries(AsyncpgDriver(conn)).install()
        await conn.close()

    def reset(self, db):
        db.execute("TRUNCATE pgqueuer, pgqueuer_log, pgqueuer_statistics RESTART IDENTITY")

    def _insert(self, db, entrypoint, count, first):
        # without triggers (and so notifications); the log rows are added by hand
        with db.transaction():
            db.execute("SET LOCAL session_replication_role = replica")
            db.execute(
                "WITH jobs AS (INSERT INTO pgqueuer (priority, status, entrypoint, payload)"
                " SELECT 0, 'queued', %(q)s,"
                " convert_to(json_build_object('i', n)::text, 'UTF8')"
                " FROM generate_series(%(f)s, %(f)s + %(n)s - 1) n RETURNING id)"
                " INSERT INTO pgqueuer_log (job_id, status, entrypoint, priority)"
                " SELECT id, 'queued', %(q)s, 0 FROM jobs",
                {"q": entrypoint, "n": count, "f": first},
            )

    async def fill(self, db, count):
        self._insert(db, core.QUEUE, count, 0)

    def backlog(self, db, completed, available):
        # finished jobs are not in the queue table at all, only in the log
        db.execute(
            "INSERT INTO pgqueuer_log (job_id, status, entrypoint, priority)"
            " SELECT n, e, %s, 0 FROM generate_series(1, %s) n,"
            " unnest('{queued,picked,successful}'::pgqueuer_status[]) e",
            (core.QUEUE, completed),
        )
        db.execute("SELECT setval(pg_get_serial_sequence('pgqueuer', 'id'), %s)", (completed,))
        self._insert(db, core.OTHER, available, 1)

    def clear_queue(self, db):
        db.execute("DELETE FROM pgqueuer WHERE entrypoint = %s", (core.QUEUE,))

    async def open_client(self):
        self.pool = await asyncpg.create_pool(self.dsn, min_size=2, max_size=10)
        self.queries = Queries.from_asyncpg_pool(self.pool)

    async def close_client(self):
        await self.pool.close()

    async def enqueue(self, index, delay=None):
        payload = json.dumps({"i": index}).encode()
        after = timedelta(seconds=delay) if delay else None
        await self.queries.enqueue(core.QUEUE, payload, execute_after=after)

    async def enqueue_many(self, indexes):
        size = len(indexes)
        await self.queries.enqueue(
            [core.QUEUE] * size,
            [json.dumps({"i": index}).encode() for index in indexes],
            [0] * size,
        )

    async def run_worker(self, stop, batch, limit):
        pool = await asyncpg.create_pool(self.dsn, min_size=3, max_size=10)
        pgq = PgQueuer.from_asyncpg_pool(pool)

        @pgq.entrypoint(core.QUEUE)
        async def noop(job):
            core.record(json.loads(job.payload)["i"])

        task = asyncio.create_task(pgq.run(batch_size=batch, max_concurrent_tasks=limit))
        await stop.wait()
        pgq.shutdown.set()
        await asyncio.wait([task])
        await pool.close()
