"""The limit: hand-written asyncpg loops over an Oban-like table.

No retries, no plugins, no telemetry: what one Python process can reach when
it only fetches, runs and acknowledges batches.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import asyncpg

from .. import core

SCHEMA = """
CREATE TYPE raw_state AS ENUM ('available', 'scheduled', 'executing', 'retryable',
                               'completed', 'discarded', 'cancelled');
CREATE TABLE raw_jobs (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    state raw_state NOT NULL DEFAULT 'available',
    queue text NOT NULL DEFAULT 'default',
    worker text NOT NULL,
    attempt smallint NOT NULL DEFAULT 0,
    max_attempts smallint NOT NULL DEFAULT 20,
    priority smallint NOT NULL DEFAULT 0,
    args jsonb NOT NULL DEFAULT '{}',
    meta jsonb NOT NULL DEFAULT '{}',
    tags text[] NOT NULL DEFAULT '{}',
    errors jsonb NOT NULL DEFAULT '[]',
    attempted_by text[] NOT NULL DEFAULT '{}',
    inserted_at timestamp NOT NULL DEFAULT timezone('UTC', now()),
    scheduled_at timestamp NOT NULL DEFAULT timezone('UTC', now()),
    attempted_at timestamp, completed_at timestamp,
    cancelled_at timestamp, discarded_at timestamp
);
CREATE INDEX raw_jobs_fetch ON raw_jobs (state, queue, priority, scheduled_at, id);
"""
FETCH = """
UPDATE raw_jobs j
   SET state = 'executing', attempt = attempt + 1,
       attempted_at = timezone('UTC', now()), attempted_by = $3
  FROM (SELECT id FROM raw_jobs
         WHERE state = 'available' AND queue = $1
         ORDER BY priority, scheduled_at, id
         LIMIT $2 FOR UPDATE SKIP LOCKED) picked
 WHERE j.id = picked.id
RETURNING j.id, j.worker, j.args, j.attempt, j.max_attempts, j.meta, j.tags,
          j.attempted_at, j.scheduled_at
"""
ACK = """
UPDATE raw_jobs j SET state = 'completed', completed_at = timezone('UTC', now())
  FROM unnest($1::bigint[]) AS done(id)
 WHERE j.id = done.id AND j.state = 'executing'
"""
FUSED = FETCH.replace(
    "UPDATE raw_jobs j",
    "WITH acked AS ("
    + ACK.replace("j ", "a ").replace("j.", "a.").replace("$1", "$4")
    + ")\nUPDATE raw_jobs j",
    1,
)
INSERT_ONE = """
WITH job AS (INSERT INTO raw_jobs (queue, worker, args, state, scheduled_at)
             VALUES ($1, $2, $3, $4, $5) RETURNING id)
SELECT id, pg_notify('raw_insert', $1) FROM job
"""
INSERT_MANY = """
WITH jobs AS (INSERT INTO raw_jobs (queue, worker, args)
              SELECT q, w, a FROM unnest($1::text[], $2::text[], $3::jsonb[])
                     AS t(q, w, a) RETURNING id)
SELECT count(*), pg_notify('raw_insert', 'bench') FROM jobs
"""
WORKER = "bench.Noop"


async def noop(args: dict) -> None:
    core.record(args["i"])


class Adapter(core.Adapter):
    packages = ("asyncpg",)
    variants: ClassVar = {
        "c10": {"concurrency": 10},
        "c50": {"concurrency": 50},
        "c200": {"concurrency": 200},
        "c1000": {"concurrency": 1000},
        "c200-fused": {"concurrency": 200, "mode": "fused"},
        "c200-pipelined": {"concurrency": 200, "mode": "pipelined"},
    }
    backlog_variant = "c50"
    remaining_sql = "SELECT count(*) FROM raw_jobs WHERE queue = 'bench' AND state <> 'completed'"
    can_schedule = False
    notes = (
        "plain: fetch, run, ack, one after the other; fused: ack of batch k and "
        "fetch of k+1 in one statement; pipelined: ack of k beside the fetch of k+1"
    )
    bulk_mode = "unnest"

    async def setup(self, db):
        db.execute(SCHEMA)

    def reset(self, db):
        db.execute("TRUNCATE raw_jobs RESTART IDENTITY")

    async def fill(self, db, count):
        db.execute(
            "INSERT INTO raw_jobs (queue, worker, args) SELECT %s, %s,"
            " jsonb_build_object('i', n) FROM generate_series(0, %s - 1) n",
            (core.QUEUE, WORKER, count),
        )

    def backlog(self, db, completed, available):
        db.execute(
            "INSERT INTO raw_jobs (queue, worker, args, state, attempt, attempted_at,"
            " completed_at) SELECT %s, %s, jsonb_build_object('i', n), 'completed', 1,"
            " timezone('UTC', now()), timezone('UTC', now())"
            " FROM generate_series(1, %s) n",
            (core.QUEUE, WORKER, completed),
        )
        db.execute(
            "INSERT INTO raw_jobs (queue, worker, args) SELECT %s, %s,"
            " jsonb_build_object('i', n) FROM generate_series(1, %s) n",
            (core.OTHER, WORKER, available),
        )
        self.mark(db)

    def mark(self, db):
        db.execute("CREATE TABLE IF NOT EXISTS bench_mark (id bigint)")
        db.execute("INSERT INTO bench_mark SELECT max(id) FROM raw_jobs")

    def clear_queue(self, db):
        db.execute("DELETE FROM raw_jobs WHERE id > (SELECT max(id) FROM bench_mark)")

    async def open_client(self):
        self.conn = await asyncpg.connect(self.dsn)

    async def close_client(self):
        await self.conn.close()

    async def enqueue(self, index, delay=None):
        now = datetime.now(UTC).replace(tzinfo=None)
        if delay:
            state, at = "scheduled", now + timedelta(seconds=delay)
        else:
            state, at = "available", now
        args = json.dumps({"i": index})
        await self.conn.fetchrow(INSERT_ONE, core.QUEUE, WORKER, args, state, at)

    async def enqueue_many(self, indexes):
        args = [json.dumps({"i": index}) for index in indexes]
        if self.bulk_mode == "copy":
            await self.conn.copy_records_to_table(
                "raw_jobs",
                columns=["queue", "worker", "args"],
                records=[(core.QUEUE, WORKER, value) for value in args],
            )
            await self.conn.execute("SELECT pg_notify('raw_insert', 'bench')")
            return
        size = len(args)
        await self.conn.fetchrow(INSERT_MANY, [core.QUEUE] * size, [WORKER] * size, args)

    async def run_worker(self, stop, concurrency, mode="plain"):
        one = await asyncpg.connect(self.dsn)
        two = await asyncpg.connect(self.dsn)
        listener = await asyncpg.connect(self.dsn)
        wake = asyncio.Event()
        await listener.add_listener("raw_insert", lambda *_: wake.set())
        workers = {WORKER: noop}
        by = ["node", "uuid"]
        size = concurrency

        async def perform(rows):
            tasks = [asyncio.create_task(workers[row["worker"]](json.loads(row["args"]))) for row in rows]
            await asyncio.wait(tasks)
            return [row["id"] for row in rows]

        async def idle():
            with suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), 1.0)

        if mode == "plain":
            while not stop.is_set():
                wake.clear()
                rows = await one.fetch(FETCH, core.QUEUE, size, by)
                if rows:
                    await one.execute(ACK, await perform(rows))
                else:
                    await idle()
        elif mode == "fused":
            done = []
            while not stop.is_set():
                wake.clear()
                rows = await one.fetch(FUSED, core.QUEUE, size, by, done)
                done = await perform(rows) if rows else []
                if not rows:
                    await idle()
        else:
            ack = asyncio.create_task(asyncio.sleep(0))
            while not stop.is_set():
                wake.clear()
                rows = await one.fetch(FETCH, core.QUEUE, size, by)
                done = await perform(rows) if rows else []
                await ack
                if done:
                    ack = asyncio.create_task(two.execute(ACK, done))
                else:
                    await idle()
