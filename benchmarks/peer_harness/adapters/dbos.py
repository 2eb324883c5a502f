"""dbos: durable workflows on a queue (SQLAlchemy, threads). Optional peer."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from dbos import DBOS, DBOSClient

from .. import core


class Adapter(core.Adapter):
    packages = ("dbos", "SQLAlchemy", "psycopg")
    variants: ClassVar = {
        "c10": {"concurrency": 10, "poll": 1.0},
        "c200-poll10ms": {"concurrency": 200, "poll": 0.01},
        "unlimited": {"concurrency": None, "poll": 1.0},
    }
    latency_variant = "unlimited"
    bulk = False
    remaining_sql = (
        "SELECT count(*) FROM dbos.workflow_status WHERE queue_name = 'bench' AND status <> 'SUCCESS'"
    )
    notes = (
        "a durable workflow without steps per job; its client is sync (called in the "
        "loop here: one caller); the worker polls (default: each 1 s) and claims at most "
        "worker_concurrency jobs a poll, so c10 is some 10 jobs/s; no bulk enqueue"
    )

    def launch(self):
        DBOS(
            config={
                "name": "bench",
                "system_database_url": self.dsn,
                "console_log_level": "ERROR",
                "application_version": "1",
            }
        )

        @DBOS.workflow(name="noop")
        async def noop(i):
            core.record(i)

        DBOS.launch()

    async def setup(self, db):
        self.launch()
        DBOS.destroy()

    def reset(self, db):
        db.execute("TRUNCATE dbos.workflow_status CASCADE")

    async def open_client(self):
        self.client = DBOSClient(system_database_url=self.dsn)

    async def close_client(self):
        self.client.destroy()

    async def enqueue(self, index, delay=None):
        options = {"queue_name": core.QUEUE, "workflow_name": "noop"}
        if delay:
            options["delay_seconds"] = delay
        self.client.enqueue(options, index)

    async def run_worker(self, stop, concurrency, poll):
        self.launch()
        await DBOS.register_queue_async(
            core.QUEUE,
            worker_concurrency=concurrency,
            polling_interval_sec=poll,
            on_conflict="always_update",
        )
        await stop.wait()
        await asyncio.to_thread(DBOS.destroy)
