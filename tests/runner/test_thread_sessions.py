"""The event loop and the connection of jobs in threads: which they are, and what a warm job costs."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import URL, Connection, event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban
from tests.runner.effects import RUNNING, worker
from tests.support.jobs import reaches
from tests.support.waiting import eventually

ONE_AT_A_TIME = {**RUNNING, "queues": {"default": 1}}
OWN = "SELECT 'the statement of the job'"


async def test_a_warm_job_in_a_thread_sends_its_statements_and_three_more(emptied_postgresql: URL) -> None:
    engine = create_async_engine(emptied_postgresql.set(drivername="postgresql+asyncpg"))
    begins_and_ends: dict[Any, list[str]] = defaultdict(list)
    statements: dict[Any, list[str]] = defaultdict(list)

    @event.listens_for(engine.sync_engine, "connect")
    def log_queries(dbapi_connection: Any, entry: Any) -> None:
        # asyncpg logs what it sends without preparing it.
        driver = dbapi_connection.driver_connection
        driver.add_query_logger(lambda record: begins_and_ends[driver].append(record.query))

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def log_statement(connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        statements[connection.connection.driver_connection].append(statement)

    def body(job: Job, session: Session) -> None:
        session.execute(text(OWN))

    made = worker("thread", body, max_attempts=1)
    async with Oban(engine, **ONE_AT_A_TIME) as oban:
        for _ in range(3):
            await reaches(oban, await oban.enqueue(made.new()), JobState.COMPLETED)
    await engine.dispose()
    # One connection for all jobs. It has logged everything when the node has closed it.
    (used,) = (driver for driver in statements if OWN in statements[driver])
    assert [statement.split()[0] for statement in statements[used]] == ["SELECT", "WITH"] * 3
    assert begins_and_ends[used][-4:] == ["BEGIN;", "COMMIT;"] * 2


async def test_a_job_in_a_thread_replaces_a_connection_that_was_lost_while_idle(postgresql_url: URL) -> None:
    pids: list[int] = []

    def body(job: Job, session: Session) -> None:
        pids.append(session.scalar(text("SELECT pg_backend_pid()")) or 0)

    made = worker("thread", body, max_attempts=1)
    # The engine of an application does not test its connections.
    engine = create_async_engine(postgresql_url)
    async with Oban(engine, **ONE_AT_A_TIME) as oban:
        await reaches(oban, await oban.enqueue(made.new()), JobState.COMPLETED)
        async with engine.connect() as connection:
            await connection.execute(text(f"SELECT pg_terminate_backend({pids[0]}, 5000)"))
        await reaches(oban, await oban.enqueue(made.new()), JobState.COMPLETED)
    await engine.dispose()
    assert pids[0] != pids[1]


async def test_jobs_in_threads_use_no_more_connections_than_ran_at_once(emptied_postgresql: URL) -> None:
    engine = create_async_engine(emptied_postgresql.set(drivername="postgresql+asyncpg"))
    pids: list[int] = []

    def body(job: Job, session: Session) -> None:
        pids.append(session.scalar(text("SELECT pg_backend_pid()")) or 0)

    made = worker("thread", body, max_attempts=1)
    async with Oban(engine, **{**RUNNING, "queues": {"default": 3}}) as oban:
        await oban.enqueue_many(made.new() for _ in range(50))
        await eventually(lambda: len(pids) == 50)
    await engine.dispose()
    assert len(set(pids)) <= 3


def uvloops() -> asyncio.AbstractEventLoop:
    return pytest.importorskip("uvloop").new_event_loop()  # type: ignore[no-any-return]


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloops])
def test_the_loops_of_threads_are_of_the_kind_of_the_nodes(
    emptied_postgresql: URL, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    def body(job: Job, session: Session) -> None:
        session.execute(text(OWN))
        loops.append(asyncio.get_event_loop())

    async def node() -> None:
        loops.append(asyncio.get_running_loop())
        made = worker("thread", body, max_attempts=1)
        async with Oban(emptied_postgresql.set(drivername="postgresql+asyncpg"), **ONE_AT_A_TIME) as oban:
            await reaches(oban, await oban.enqueue(made.new()), JobState.COMPLETED)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(node())
    of_node, of_thread = loops
    assert of_node is not of_thread
    assert type(of_node) is type(of_thread)
    assert of_thread.is_closed()
