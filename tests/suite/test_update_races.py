"""Concurrent management calls on the same rows, and transactions that have to be repeated."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import URL, event, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from oban import Job, Oban
from oban.errors import JobNotFound
from oban.repository import insert
from tests.support.databases import DATABASES
from tests.support.rows import TABLE, delete_rows, insert_row, insert_rows, lasting_url, read_rows, row
from tests.support.statements import recorded
from tests.support.waiting import eventually, within

OPERATIONS = ("cancel", "retry", "delete", "update")


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture(autouse=True)
async def emptied(oban: Oban) -> None:
    await delete_rows(oban.engine)


@pytest.fixture
async def other(url: URL) -> AsyncIterator[Oban]:
    """A second client, with its own connections."""
    async with Oban(url, name="other") as client:
        yield client


@contextlib.asynccontextmanager
async def holding(oban: Oban, *statements: Any) -> AsyncIterator[AsyncConnection]:
    """Run statements in a transaction that stays open inside the block and commits at its end."""
    async with oban.engine.connect() as connection:
        for statement in statements:
            await connection.execute(statement)
        yield connection
        await connection.commit()


async def waiting(oban: Oban) -> bool:
    """Whether a statement in the database waits for a lock (PostgreSQL)."""
    found = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    async with oban.engine.connect() as connection:
        return bool((await connection.execute(found)).scalar_one())


async def meeting(oban: Oban, other: Oban, call: Callable[[], Any], *statements: Any) -> asyncio.Task[Any]:
    """Start a call of `other` while a transaction with these statements is open, and wait for its end."""
    with recorded(other.engine) as sent:
        async with holding(oban, *statements):
            task = asyncio.create_task(call())
            # On SQLite, the call waits inside the driver, in its first statement.
            await eventually(lambda: sent)
            if oban.engine.dialect.name == "postgresql":
                await eventually(lambda: waiting(oban))
            assert not task.done()
        await within(asyncio.wait([task]), 20)
    return task


# -- the callable and the lock -----------------------------------------------------------------


@pytest.mark.parametrize("steps", [50, pytest.param(200, marks=pytest.mark.slow)])
async def test_two_concurrent_counters_lose_no_step(oban: Oban, other: Oban, steps: int) -> None:
    id_ = await insert_row(oban.engine, meta={"count": 0})

    async def count(client: Oban) -> None:
        for _ in range(steps):
            await client.update_job(id_, lambda job: {"meta": {"count": job.meta["count"] + 1}})

    await asyncio.gather(count(oban), count(other))
    assert (await read_rows(oban.engine))[id_]["meta"] == {"count": 2 * steps}


async def test_two_counters_over_many_jobs_lose_no_step(oban: Oban, other: Oban) -> None:
    ids = await insert_rows(oban.engine, *[row(meta={"count": 0}) for _ in range(20)])

    async def count(client: Oban) -> None:
        for _ in range(20):
            some = random.sample(ids, 10)
            await client.update_many_jobs(some, lambda job: {"meta": {"count": job.meta["count"] + 1}})

    await asyncio.gather(count(oban), count(other), count(oban), count(other))
    counts = [found["meta"]["count"] for found in (await read_rows(oban.engine)).values()]
    assert sum(counts) == 4 * 20 * 10


async def test_the_callable_sees_what_the_transaction_before_it_wrote(oban: Oban, other: Oban) -> None:
    id_ = await insert_row(oban.engine, tags=["old"])
    stale = await other.get_job(id_)
    assert stale is not None
    task = await meeting(
        oban,
        other,
        lambda: other.update_job(stale, lambda job: {"tags": [*job.tags, "mine"]}),
        update(TABLE).where(TABLE.c.id == id_).values(tags=["theirs"], meta={"theirs": 1}),
    )
    assert task.result() is stale
    assert (stale.tags, stale.meta) == (["mine", "theirs"], {"theirs": 1})


async def test_a_job_that_is_deleted_while_an_update_waits_for_it_is_not_found(
    oban: Oban, other: Oban
) -> None:
    ids = await insert_rows(oban.engine, row(), row())
    task = await meeting(
        oban,
        other,
        lambda: other.update_many_jobs(ids, {"priority": 9}),
        TABLE.delete().where(TABLE.c.id == ids[0]),
    )
    assert isinstance(task.exception(), JobNotFound)
    assert (await read_rows(oban.engine))[ids[1]]["priority"] == 3


@pytest.mark.parametrize(
    ("operation", "state", "becomes"),
    [
        ("cancel", "executing", "completed"),
        ("retry", "retryable", "executing"),
        ("delete", "available", "executing"),
    ],
)
async def test_the_state_after_the_wait_for_a_lock_decides(
    oban: Oban, other: Oban, operation: str, state: str, becomes: str
) -> None:
    id_ = await insert_row(oban.engine, state)
    task = await meeting(
        oban,
        other,
        lambda: getattr(other, f"{operation}_job")(id_),
        update(TABLE).where(TABLE.c.id == id_).values(state=becomes),
    )
    assert task.result() is False
    assert (await read_rows(oban.engine))[id_]["state"] == becomes


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_job_that_leaves_a_select_while_a_call_waits_for_it_is_left_alone(
    oban: Oban, other: Oban, operation: str
) -> None:
    stays, leaves = await insert_rows(oban.engine, *[row("scheduled", queue="media") for _ in range(2)])
    statement = select(Job).where(Job.queue == "media", Job.state == "scheduled")
    more = ({"priority": 9},) if operation == "update" else ()
    before = (await read_rows(oban.engine))[leaves]
    await meeting(
        oban,
        other,
        lambda: getattr(other, f"{operation}_many_jobs")(statement, *more),
        update(TABLE).where(TABLE.c.id == leaves).values(queue="moved"),
    )
    found = await read_rows(oban.engine)
    assert found[leaves] == {**before, "queue": "moved"}
    assert found.get(stays) != before


# -- deadlocks ---------------------------------------------------------------------------------


async def call(client: Oban, operation: str, jobs: Any, session: AsyncSession) -> None:
    if operation == "update":
        await client.update_many_jobs(jobs, {"priority": 1}, session=session)
    else:
        await getattr(client, f"{operation}_many_jobs")(jobs, session=session)


@pytest.mark.parametrize("times", [10, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("second", [*OPERATIONS, "select"])
async def test_overlapping_batches_in_opposite_order_never_deadlock(
    oban: Oban, other: Oban, url: URL, second: str, times: int
) -> None:
    # The rows are not in the order of their ids in the table.
    ids = list(range(1, 61))
    await insert_rows(oban.engine, *[row("retryable", id=id_) for id_ in random.sample(ids, len(ids))])
    if url.get_backend_name() == "postgresql":
        async with oban.engine.begin() as connection:
            await connection.execute(text(f"ALTER DATABASE {url.database} SET deadlock_timeout = '5ms'"))
        await oban.engine.dispose()
    backwards = select(Job).order_by(Job.id.desc()).limit(60)

    async def batches(client: Oban, operation: str, jobs: Any) -> None:
        for _ in range(times):
            # With `session=`, as the library would repeat its own transaction after a deadlock.
            async with AsyncSession(client.engine) as session:
                await call(client, operation, jobs, session)
                await session.rollback()

    by_select = second == "select"
    await within(
        asyncio.gather(
            batches(oban, "update", ids),
            batches(other, "update" if by_select else second, backwards if by_select else ids[::-1]),
            batches(oban, "cancel", backwards if by_select else ids[::-1]),
        ),
        40,
    )


@pytest.mark.parametrize("times", [6, pytest.param(50, marks=pytest.mark.slow)])
async def test_overlapping_calls_that_commit_all_end(oban: Oban, other: Oban, times: int) -> None:
    ids = await insert_rows(oban.engine, *[row(meta={"count": 0}) for _ in range(40)])

    async def rounds(client: Oban, jobs: list[int]) -> None:
        for _ in range(times):
            await client.cancel_many_jobs(jobs)
            await client.update_many_jobs(jobs, lambda job: {"meta": {"count": job.meta["count"] + 1}})
            await client.retry_many_jobs(jobs)

    await asyncio.gather(rounds(oban, ids), rounds(other, ids[::-1]), rounds(other, ids[10:30]))
    counts = [found["meta"]["count"] for found in (await read_rows(oban.engine)).values()]
    assert counts == [2 * times] * 10 + [3 * times] * 20 + [2 * times] * 10


# -- transactions that are repeated ------------------------------------------------------------


@contextlib.contextmanager
def failing_commit(oban: Oban) -> Any:
    """Let the next commit fail with an error that is worth a second try."""
    driver_error: Any = Exception("could not serialize access")
    driver_error.sqlstate, driver_error.sqlite_errorcode = "40001", 5
    left = [DBAPIError("COMMIT", None, driver_error)]

    def fail(connection: Any) -> None:
        if left:
            # The database does the same when it refuses a commit.
            connection.connection.rollback()
            raise left.pop()

    event.listen(oban.engine.sync_engine, "commit", fail)
    try:
        yield
    finally:
        event.remove(oban.engine.sync_engine, "commit", fail)
    assert not left


@pytest.mark.parametrize("operation", ["cancel", "retry", "delete"])
async def test_a_call_that_is_repeated_still_has_the_jobs_of_an_iterator(oban: Oban, operation: str) -> None:
    ids = await insert_rows(oban.engine, *[row("retryable") for _ in range(3)])
    with failing_commit(oban):
        assert await getattr(oban, f"{operation}_many_jobs")(iter(ids)) == 3


async def test_an_update_that_is_repeated_is_applied_once(oban: Oban) -> None:
    ids = await insert_rows(oban.engine, *[row(meta={"count": 0}) for _ in range(3)])
    with failing_commit(oban):
        updated = await oban.update_many_jobs(
            iter(ids), lambda job: {"meta": {"count": job.meta["count"] + 1}}
        )
    assert [job.meta for job in updated] == [{"count": 1}] * 3
    assert [found["meta"] for found in (await read_rows(oban.engine)).values()] == [{"count": 1}] * 3


async def test_an_insert_that_is_repeated_inserts_once(oban: Oban) -> None:
    # A single statement would be committed on its own.
    jobs = [Job(worker="tests.Nobody", args={"n": n}) for n in range(insert.BATCH + 1)]
    with failing_commit(oban):
        assert await oban.enqueue_many(iter(jobs)) == jobs
    found = await read_rows(oban.engine)
    assert [(id_, item["args"]) for id_, item in found.items()] == [(job.id, job.args) for job in jobs]


async def test_an_insert_that_fails_leaves_the_job_unchanged(oban: Oban) -> None:
    job = Job(worker="tests.Nobody", queue="x" * 20)
    async with oban.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE oban_jobs RENAME TO hidden"))
    with pytest.raises(RuntimeError, match="no Oban tables"):
        await oban.enqueue(job)
    async with oban.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE hidden RENAME TO oban_jobs"))
    assert (await oban.enqueue(job)).id in await read_rows(oban.engine)
