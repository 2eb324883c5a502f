"""procrastinate (psycopg 3)."""

from __future__ import annotations

import asyncio

import procrastinate

from .. import core


class Adapter(core.Adapter):
    packages = ("procrastinate", "psycopg", "psycopg-pool")
    remaining_sql = (
        "SELECT count(*) FROM procrastinate_jobs WHERE queue_name = 'bench' AND status <> 'succeeded'"
    )
    notes = (
        "pool 4..20 (its default is 4); default fetch_job_polling_interval (5 s), "
        "by which scheduled jobs are found; finished jobs kept (default)"
    )

    def __init__(self, dsn):
        super().__init__(dsn)
        self.app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(conninfo=dsn, min_size=4, max_size=20)
        )

        @self.app.task(queue=core.QUEUE, name="noop")
        async def noop(i):
            core.record(i)

        self.task = noop

    async def setup(self, db):
        async with self.app.open_async():
            await self.app.schema_manager.apply_schema_async()

    def reset(self, db):
        db.execute(
            "TRUNCATE procrastinate_jobs, procrastinate_events,"
            " procrastinate_periodic_defers, procrastinate_workers RESTART IDENTITY CASCADE"
        )

    async def fill(self, db, count):
        self._insert(db, core.QUEUE, "todo", count, 0)

    def _insert(self, db, queue, status, count, first):
        # without triggers (and so notifications); the events are added by hand
        with db.transaction():
            db.execute("SET LOCAL session_replication_role = replica")
            db.execute(
                "WITH jobs AS (INSERT INTO procrastinate_jobs (queue_name, task_name,"
                " args, status, attempts) SELECT %(q)s, 'noop', jsonb_build_object('i', n),"
                " %(s)s, %(a)s FROM generate_series(%(f)s, %(f)s + %(n)s - 1) n"
                " RETURNING id) INSERT INTO procrastinate_events (job_id, type)"
                " SELECT id, e FROM jobs, unnest(%(e)s::procrastinate_job_event_type[]) e",
                {
                    "q": queue,
                    "s": status,
                    "a": int(status == "succeeded"),
                    "f": first,
                    "n": count,
                    "e": ["deferred"] if status == "todo" else ["deferred", "started", "succeeded"],
                },
            )

    def backlog(self, db, completed, available):
        self._insert(db, core.QUEUE, "succeeded", completed, 1)
        self._insert(db, core.OTHER, "todo", available, 1)
        db.execute("CREATE TABLE IF NOT EXISTS bench_mark (id bigint)")
        db.execute("INSERT INTO bench_mark SELECT max(id) FROM procrastinate_jobs")

    def clear_queue(self, db):
        db.execute("DELETE FROM procrastinate_jobs WHERE id > (SELECT max(id) FROM bench_mark)")

    async def open_client(self):
        await self.app.open_async()

    async def close_client(self):
        await self.app.close_async()

    async def enqueue(self, index, delay=None):
        if delay:
            seconds = {"seconds": delay}
            await self.task.configure(schedule_in=seconds).defer_async(i=index)
        else:
            await self.task.defer_async(i=index)

    async def enqueue_many(self, indexes):
        await self.task.batch_defer_async(*({"i": index} for index in indexes))

    async def run_worker(self, stop, concurrency):
        async with self.app.open_async():
            task = asyncio.create_task(
                self.app.run_worker_async(
                    queues=[core.QUEUE],
                    concurrency=concurrency,
                    install_signal_handlers=False,
                )
            )
            await stop.wait()
            task.cancel()
            await asyncio.wait([task])
