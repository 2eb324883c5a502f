"""The other side of each ratio: loops written by hand, with the driver alone, over the same tables.

They fetch a batch, run it and acknowledge it, one after the other, and do nothing else: no
retries, no errors, no signals, no models. What they reach is the limit for one process that works
in this order.
"""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterable

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import URL

from benchmarks.meter import QUEUE, WORKER

Body = Callable[[], None]

FETCH = """
UPDATE oban_jobs AS job
   SET state = 'executing', attempt = attempt + 1,
       attempted_at = timezone('UTC', now()), attempted_by = $3
  FROM (SELECT id FROM oban_jobs
         WHERE state = 'available' AND queue = $1
         ORDER BY priority, scheduled_at, id
         LIMIT $2 FOR UPDATE SKIP LOCKED) AS picked
 WHERE job.id = picked.id
RETURNING job.id, job.worker, job.args, job.attempt, job.max_attempts, job.meta, job.tags,
          job.attempted_at, job.scheduled_at
"""
# As text, so that right after ANALYZE the planner does not take the index on the state.
ACKNOWLEDGE = """
UPDATE oban_jobs
   SET state = 'completed', completed_at = timezone('UTC', now())
 WHERE id = ANY($1::bigint[]) AND state::text = 'executing'
"""
INSERT = """
INSERT INTO oban_jobs (queue, worker, args)
SELECT * FROM unnest($1::text[], $2::text[], $3::jsonb[])
RETURNING id
"""

LITE_FETCH = """
UPDATE oban_jobs
   SET state = 'executing', attempt = attempt + 1, attempted_by = :by,
       attempted_at = strftime('%Y-%m-%d %H:%M:%f000', 'now')
 WHERE id IN (SELECT id FROM oban_jobs
               WHERE state = 'available' AND queue = :queue
               ORDER BY priority, scheduled_at, id LIMIT :limit)
RETURNING id, worker, args, attempt, max_attempts, meta, tags, attempted_at, scheduled_at
"""
LITE_ACKNOWLEDGE = """
UPDATE oban_jobs
   SET state = 'completed', completed_at = strftime('%Y-%m-%d %H:%M:%f000', 'now')
 WHERE id IN (SELECT value FROM json_each(?)) AND state = 'executing'
"""
LITE_INSERT = """
INSERT INTO oban_jobs (queue, worker, args)
SELECT ?, ?, value FROM json_each(?)
RETURNING id
"""


async def connect(url: URL) -> asyncpg.Connection:
    """A connection of the driver itself."""
    return await asyncpg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))


async def drain(url: URL, limit: int, body: Body) -> None:
    """Run all waiting jobs on PostgreSQL."""

    async def noop(args: dict[str, object]) -> None:
        body()

    workers: dict[str, Callable[[dict[str, object]], Awaitable[None]]] = {WORKER: noop}

    async def run(row: asyncpg.Record) -> int:
        await workers[row["worker"]](json.loads(row["args"]))
        id_: int = row["id"]
        return id_

    connection = await connect(url)
    while rows := await connection.fetch(FETCH, QUEUE, limit, ["node", "producer"]):
        tasks = [asyncio.create_task(run(row)) for row in rows]
        await asyncio.wait(tasks)
        await connection.execute(ACKNOWLEDGE, [task.result() for task in tasks])
    await connection.close()


async def insert(connection: asyncpg.Connection, numbers: Iterable[int]) -> None:
    """Insert one batch of jobs on PostgreSQL."""
    args = [json.dumps({"n": number}) for number in numbers]
    await connection.fetch(INSERT, [QUEUE] * len(args), [WORKER] * len(args), args)


def lite_connect(url: URL) -> sqlite3.Connection:
    """A connection of the driver itself, which begins no transactions on its own."""
    return sqlite3.connect(str(url.database), isolation_level=None, timeout=30)


def lite_drain(url: URL, limit: int, body: Body) -> None:
    """Run all waiting jobs on SQLite."""
    workers: dict[str, Callable[[dict[str, object]], None]] = {WORKER: lambda args: body()}
    connection = lite_connect(url)
    values = {"queue": QUEUE, "limit": limit, "by": '["node","producer"]'}
    while rows := connection.execute(LITE_FETCH, values).fetchall():
        for row in rows:
            workers[row[1]](json.loads(row[2]))
        connection.execute(LITE_ACKNOWLEDGE, [json.dumps([row[0] for row in rows])])
    connection.close()


def lite_insert(connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """Insert one batch of jobs on SQLite."""
    args = json.dumps([{"n": number} for number in numbers])
    connection.execute(LITE_INSERT, [QUEUE, WORKER, args]).fetchall()
