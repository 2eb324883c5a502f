"""The statements of `docs/explanation/fetching.md` are those of the library, and work as the page says."""

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from oban import JobState, Oban
from oban.config import Options
from oban.database.transaction import Transaction
from oban.notifier import poll
from oban.repository import acknowledge, fetch, stage
from oban.repository.acknowledge import Ack
from oban.runner.execution import fetch_delay, producer
from tests.docs.snippets import fenced
from tests.docs.stage import DOCS
from tests.support.databases import Factory
from tests.support.rows import insert_rows, row
from tests.support.statements import recorded
from tests.support.transactions import joined

CLAIM, ACKNOWLEDGE = fenced("docs/explanation/fetching.md", "sql")
OWNER = str(uuid4())
WHO = {"node": "node-1", "owner": OWNER, "queue_name": "default"}


@pytest.fixture
def factory(asyncpg_factory: Factory) -> Factory:
    """PostgreSQL, whose statements the page shows."""
    return asyncpg_factory


def bare(sql: str) -> str:
    """A statement without types, parentheses, spaces, names of tables, and what it returns at its end."""
    sql = re.sub(r"\bRETURNING (?!.*\bFROM\b).*", "", " ".join(sql.split()))
    sql = re.sub(r"CAST\((.*?) AS [\w\[\]]+\)", r"\1", sql, flags=re.IGNORECASE)
    sql = re.sub(r"::\w+|\b(?:oban_jobs|acknowledged)\.| AS anon_\d", "", sql)
    sql = re.sub(r"\b(\w+) AS \1\b", r"\1", sql)
    return re.sub(r"[\s()]", "", re.sub(r"\$\d+|:\w+", "?", sql)).lower()


async def run(engine: AsyncEngine, call: Callable[[Transaction], Any]) -> tuple[Any, str]:
    """Run a function of the repository; returns its result and its last statement."""
    async with AsyncSession(engine) as session:
        with recorded(engine) as statements:
            result = await session.run_sync(lambda sync: call(joined(sync)))
        await session.commit()
    return result, statements[-1]


async def test_the_claim_is_the_one_of_the_library_and_skips_rows_that_are_locked(url: URL) -> None:
    engine = create_async_engine(url)
    waiting = [row(id=id_, priority=id_ % 2) for id_ in range(1, 7)]
    never = row(id=9, priority=0, attempt=20, attempted_by=["node-0", OWNER])
    await insert_rows(engine, *waiting, never)
    async with engine.begin() as first, engine.begin() as second:
        # Nothing is committed yet, and neither waits for the other.
        claimed = [
            sorted(job.id for job in await connection.execute(text(CLAIM), WHO | {"demand": 2}))
            for connection in (first, second)
        ]
    assert claimed == [[2, 4], [1, 6]]
    jobs, sent = await run(engine, lambda tx: fetch.fetch(tx, "default", 5, "node-1", OWNER))
    assert [(job.id, job.state, job.attempt) for job in jobs] == [
        (id_, JobState.EXECUTING, 1) for id_ in (3, 5)
    ]
    assert bare(sent) == bare(CLAIM)
    await engine.dispose()


async def test_the_acknowledgement_is_the_one_of_the_library_and_has_its_guard(url: URL) -> None:
    engine = create_async_engine(url)
    running: dict[str, Any] = {"state": "executing", "attempted_by": ["node-1", OWNER]}
    cancelled = row(id=2, **running | {"state": "cancelled"}, attempt=1)
    others = [row(id=3, **running, attempt=2), row(id=4, **running | {"attempted_by": ["node-1", "x"]})]
    await insert_rows(engine, row(id=1, **running), cancelled, *others, row(id=5, **running))
    async with engine.begin() as connection:
        acked = {"ids": "1,2,3,4", "acked_attempt": 1, "acked_owner": OWNER}
        assert (await connection.scalars(text(ACKNOWLEDGE), acked)).all() == [1]
    changed, sent = await run(engine, lambda tx: acknowledge.acknowledge(tx, [Ack(5, 1, OWNER, "completed")]))
    assert changed == {5}
    assert bare(sent) == bare(ACKNOWLEDGE)
    oban = Oban(engine)
    assert [len(await oban.list_attempts(id_)) for id_ in (1, 2, 5)] == [1, 0, 1]
    await engine.dispose()


def test_the_figures_of_the_page_match_the_code() -> None:
    page = " ".join((DOCS / "explanation/fetching.md").read_text().split())
    options = Options()
    assert options.poll_interval == options.stage_interval == 1
    assert f"the limit of the queue is {producer.OVERLAPPED_LIMIT} or more" in page
    assert f"up to {fetch_delay.MAX_DELAY * 1000:g} ms" in page
    assert f"up to {stage.BATCH:,} per statement" in page
    assert f"reads {1 / poll.POLL_INTERVAL:g} times a second" in page
