"""The other side of each ratio: hand-written loops over the same tables, with the driver alone.

They fetch a batch, run it and acknowledge it, and do nothing else: no retries, no errors, no
signals, no models. Their result is the upper limit for one process that works in this order.
"""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import URL

from benchmarks.meter import QUEUE, WORKER

#: The body of a job, called with its number.
Body = Callable[[int], None]
#: The value of attempted_by.
BY = ["node", "producer"]

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
# Compared as text, so that the planner does not choose the index on the state right after ANALYZE.
ACKNOWLEDGE = """
UPDATE oban_jobs
   SET state = 'completed', completed_at = timezone('UTC', now())
 WHERE id = ANY($1::bigint[]) AND state::text = 'executing'
"""
FUSED = "WITH done AS (" + ACKNOWLEDGE.replace("$1", "$4") + ")" + FETCH
INSERT_ONE = "INSERT INTO oban_jobs (queue, worker, args) VALUES ($1, $2, $3) RETURNING id"
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
    """Open a connection of the driver itself."""
    return await asyncpg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))


async def _run(rows: list[asyncpg.Record], body: Body) -> list[int]:
    """Run a task for each job; returns the ids."""

    async def noop(args: dict[str, int]) -> None:
        body(args["n"])

    workers: dict[str, Callable[[dict[str, int]], Coroutine[Any, Any, None]]] = {WORKER: noop}
    tasks = [asyncio.create_task(workers[row["worker"]](json.loads(row["args"]))) for row in rows]
    await asyncio.wait(tasks)
    return [row["id"] for row in rows]


async def drain(url: URL, limit: int, body: Body) -> None:
    """Run all waiting jobs: fetch, run, acknowledge."""
    if url.get_backend_name() == "sqlite":
        return lite_drain(url, limit, body)
    connection = await connect(url)
    while rows := await connection.fetch(FETCH, QUEUE, limit, BY):
        await connection.execute(ACKNOWLEDGE, await _run(rows, body))
    await connection.close()


async def drain_fused(url: URL, limit: int, body: Body) -> None:
    """Run all waiting jobs: one statement acknowledges a batch and fetches the next."""
    connection = await connect(url)
    done: list[int] = []
    while rows := await connection.fetch(FUSED, QUEUE, limit, BY, done):
        done = await _run(rows, body)
    await connection.close()


async def drain_writing(url: URL, limit: int, body: Body) -> None:
    """Run all waiting jobs; each one writes a row and is completed in one transaction."""
    connection, *others = [await connect(url) for _ in range(limit + 1)]

    async def run(row: asyncpg.Record, own: asyncpg.Connection) -> None:
        n = json.loads(row["args"])["n"]
        async with own.transaction():
            body(n)
            await own.execute("INSERT INTO bench_writes (n) VALUES ($1)", n)
            await own.execute(ACKNOWLEDGE, [row["id"]])

    while rows := await connection.fetch(FETCH, QUEUE, limit, BY):
        await asyncio.gather(*map(run, rows, others))
    for each in (connection, *others):
        await each.close()


async def serve(url: URL, limit: int, body: Body, last: asyncio.Event) -> None:
    """Run jobs as they arrive, until `last` is set; wakes by the trigger on the table or once a second."""
    connection, listener = await connect(url), await connect(url)
    wake = asyncio.Event()
    await listener.add_listener("public.oban_insert", lambda *_: wake.set())
    while not last.is_set():
        wake.clear()
        if rows := await connection.fetch(FETCH, QUEUE, limit, BY):
            await connection.execute(ACKNOWLEDGE, await _run(rows, body))
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), 1)
    await connection.close()
    await listener.close()


async def insert_one(connection: asyncpg.Connection, number: int) -> None:
    """Insert one job on PostgreSQL."""
    await connection.fetchval(INSERT_ONE, QUEUE, WORKER, json.dumps({"n": number}))


async def insert(connection: asyncpg.Connection, numbers: Iterable[int]) -> None:
    """Insert one batch of jobs on PostgreSQL."""
    args = [json.dumps({"n": number}) for number in numbers]
    await connection.fetch(INSERT, [QUEUE] * len(args), [WORKER] * len(args), args)


def lite_connect(url: URL) -> sqlite3.Connection:
    """Open a connection of the driver itself that does not begin transactions on its own."""
    return sqlite3.connect(str(url.database), isolation_level=None, timeout=30)


def lite_drain(url: URL, limit: int, body: Body) -> None:
    """Run all waiting jobs on SQLite."""
    workers: dict[str, Callable[[dict[str, int]], None]] = {WORKER: lambda args: body(args["n"])}
    connection = lite_connect(url)
    values = {"queue": QUEUE, "limit": limit, "by": json.dumps(BY)}
    while rows := connection.execute(LITE_FETCH, values).fetchall():
        for row in rows:
            workers[row[1]](json.loads(row[2]))
        connection.execute(LITE_ACKNOWLEDGE, [json.dumps([row[0] for row in rows])])
    connection.close()


def lite_insert(connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """Insert one batch of jobs on SQLite."""
    args = json.dumps([{"n": number} for number in numbers])
    connection.execute(LITE_INSERT, [QUEUE, WORKER, args]).fetchall()
