"""Every snippet of `docs/guides/pgbouncer.md`, runs unchanged through a pooler in transaction mode."""

from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import create_async_engine

from oban import Job, Oban, Worker
from tests.docs.snippets import fenced
from tests.support.databases import PostgreSQLFactory
from tests.support.pooler import pooler
from tests.support.waiting import eventually

SNIPPETS = fenced("docs/guides/pgbouncer.md", "python")


class Counted(Worker):
    """Counts its runs; with the arg `wait`, it runs until it is cancelled."""

    begun = 0
    cancelled = 0

    async def process(self, job: Job) -> None:
        Counted.begun += 1
        if job.args.get("wait"):
            await eventually(job.cancelled, timeout=5)
        Counted.cancelled += job.cancelled()


def test_the_page_shows_both_ways_and_both_drivers() -> None:
    assert ["listen_url" in code for code in SNIPPETS] == [True, False, False, False]
    assert ["create_async_engine" in code for code in SNIPPETS] == [False, False, True, True]


@pytest.mark.parametrize("code", SNIPPETS, ids=["listen_url", "poll", "own-asyncpg", "own-psycopg"])
async def test_jobs_run_and_are_cancelled(
    code: str, postgresql_factory: PostgreSQLFactory, caplog: pytest.LogCaptureFixture
) -> None:
    Counted.begun = Counted.cancelled = 0
    direct: URL = postgresql_factory.create()
    async with pooler(direct) as through:
        names: dict[str, Any] = {
            "Oban": Oban,
            "create_async_engine": create_async_engine,
            "pooled_url": through.url,
            "pooled_psycopg_url": through.url.set(drivername="postgresql+psycopg"),
            "direct_url": direct,
        }
        exec(compile(code, "docs/guides/pgbouncer.md", "exec"), names)
        async with names["oban"] as oban:
            # Drivers prepare a statement after several executions; run more than that.
            for _ in range(12):
                await oban.enqueue(Counted.new())
            waiting = await oban.enqueue(Counted.new({"wait": True}))
            await eventually(lambda: Counted.begun == 13)
            assert await oban.cancel_job(waiting)
            await eventually(lambda: Counted.cancelled == 1, timeout=2)
        if "engine" in names:
            await names["engine"].dispose()
    assert [
        record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")
    ] == []
    postgresql_factory.drop(direct)
