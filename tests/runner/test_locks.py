"""While another program locks the SQLite database, every call waits and none fails."""

import asyncio
import logging
import sqlite3

import pytest
from sqlalchemy import URL

from oban import JobState, Oban
from tests.support.jobs import reaches, row_of
from tests.support.options import FAST_POLLING
from tests.support.workers import Noop, Runs


async def test_calls_wait_for_a_locked_database(sqlite_url: URL, caplog: pytest.LogCaptureFixture) -> None:
    runs = Runs()
    with caplog.at_level(logging.WARNING, logger="oban"):
        async with (
            Oban(sqlite_url, queues={"default": 3}, **FAST_POLLING) as oban,
            Oban(sqlite_url, name="client") as client,
        ):
            running = await client.enqueue(runs.worker.new())
            waiting = await client.enqueue(Noop.new(schedule_in=3600))
            await runs.begun(1)
            blocking = sqlite3.connect(
                str(sqlite_url.database), isolation_level=None, check_same_thread=False, timeout=60
            )
            # In a thread, as a transaction of the node needs the event loop to end.
            await asyncio.to_thread(blocking.execute, "BEGIN IMMEDIATE")
            blocking.execute("UPDATE oban_jobs SET priority = 0")
            runs.finish(1)
            calls = asyncio.gather(
                *(client.enqueue(Noop.new()) for _ in range(10)),
                oban.enqueue_many([Noop.new() for _ in range(10)]),
                client.update_job(waiting, {"schedule_in": 0}),
            )
            done, _ = await asyncio.wait({asyncio.ensure_future(calls)}, timeout=1)
            assert not done
            # Readers do not wait.
            assert (await row_of(client, running)).state is JobState.EXECUTING
            blocking.execute("COMMIT")
            blocking.close()
            await calls
            for job in await client.list_jobs():
                await reaches(oban, job, JobState.COMPLETED)
    assert [record.getMessage() for record in caplog.records] == []
