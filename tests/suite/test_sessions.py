"""With `session=` a call takes part in the caller's transaction, and the caller ends it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import URL, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from oban import Job, Oban, Worker
from oban.errors import InvalidJob, JobNotFound
from tests.support.databases import DATABASES
from tests.support.rows import delete_rows, insert_rows, lasting_url, read_rows, row, shown
from tests.support.waiting import eventually

Caller = AsyncSession | AsyncConnection
Call = Callable[[Oban, Any, Caller | None], Awaitable[Any]]

#: Calls that change a retryable job, given its id.
CALLS: dict[str, Call] = {
    "enqueue": lambda oban, _, session: oban.enqueue(Job(worker="tests.New"), session=session),
    "enqueue_many": lambda oban, _, session: oban.enqueue_many(
        [Job(worker="tests.New") for _ in range(3)], session=session
    ),
    "cancel": lambda oban, target, session: oban.cancel_job(target, session=session),
    "retry": lambda oban, target, session: oban.retry_job(target, session=session),
    "delete": lambda oban, target, session: oban.delete_job(target, session=session),
    "update": lambda oban, target, session: oban.update_job(target, {"tags": ["new"]}, session=session),
    "update by a callable": lambda oban, target, session: oban.update_many_jobs(
        [target], lambda job: {"priority": job.priority + 1}, session=session
    ),
    "cancel by a select": lambda oban, target, session: oban.cancel_many_jobs(
        select(Job).where(Job.id == target), session=session
    ),
}
CREATE = text("CREATE TABLE IF NOT EXISTS orders (name text)")
ORDER = text("INSERT INTO orders VALUES ('mine')")


class Notes(Worker):
    """Records which jobs ran."""

    ran: list[int]

    async def process(self, job: Job) -> None:
        self.ran.append(job.id)


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture(autouse=True)
async def emptied(oban: Oban) -> None:
    await delete_rows(oban.engine)


@pytest.fixture
async def engine(oban: Oban, url: URL) -> AsyncIterator[AsyncEngine]:
    """The application's engine, in a database with a table of the application."""
    made = create_async_engine(url)
    async with made.begin() as connection:
        await connection.execute(CREATE)
        await connection.execute(text("DELETE FROM orders"))
    yield made
    await made.dispose()


@pytest.fixture(params=["AsyncSession", "AsyncConnection"])
async def session(request: pytest.FixtureRequest, engine: AsyncEngine) -> AsyncIterator[Caller]:
    """A session or a connection of the application."""
    made = AsyncSession(engine) if request.param == "AsyncSession" else engine.connect()
    async with made as opened:
        yield opened


async def orders(oban: Oban) -> int:
    async with oban.engine.connect() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM orders"))).scalar_one())


@pytest.mark.parametrize("name", CALLS)
async def test_other_connections_see_a_change_after_the_commit(
    oban: Oban, session: Caller, name: str
) -> None:
    (id_,) = await insert_rows(oban.engine, row("retryable"))
    before = await read_rows(oban.engine)
    await session.execute(ORDER)
    await CALLS[name](oban, id_, session)
    assert session.in_transaction()
    assert (await read_rows(oban.engine), await orders(oban)) == (before, 0)
    await session.commit()
    assert await orders(oban) == 1
    assert await read_rows(oban.engine) != before


@pytest.mark.parametrize("name", CALLS)
async def test_a_rollback_undoes_a_call(oban: Oban, session: Caller, name: str) -> None:
    (id_,) = await insert_rows(oban.engine, row("retryable"))
    before = await read_rows(oban.engine)
    await session.execute(ORDER)
    await CALLS[name](oban, id_, session)
    await session.rollback()
    assert (await read_rows(oban.engine), await orders(oban)) == (before, 0)


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_can_be_the_first_in_a_transaction(oban: Oban, session: Caller, name: str) -> None:
    (id_,) = await insert_rows(oban.engine, row("retryable"))
    before = await read_rows(oban.engine)
    await CALLS[name](oban, id_, session)
    assert await read_rows(oban.engine) == before
    await session.commit()
    assert await read_rows(oban.engine) != before


async def test_calls_in_one_transaction_see_each_other(oban: Oban, session: Caller) -> None:
    job = await oban.enqueue(Job(worker="tests.New", tags=["a"]), session=session)
    assert await oban.get_job(job.id) is None
    assert (await oban.list_jobs(session=session))[0].id == job.id
    await oban.update_job(job, lambda job: {"tags": [*job.tags, "b"]}, session=session)
    found = await oban.get_job(job.id, session=session)
    assert found is not None
    assert found.tags == job.tags == ["a", "b"]
    assert await oban.cancel_job(job, session=session)
    assert await oban.retry_many_jobs(select(Job).where(Job.state == "cancelled"), session=session) == 1
    assert [found.state for found in await oban.list_jobs(session=session)] == ["available"]
    assert await oban.delete_job(job, session=session)
    assert await oban.get_job(job.id, session=session) is None
    await session.commit()
    assert await read_rows(oban.engine) == {}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"priority": 77}, InvalidJob),
        ({"state": "completed"}, InvalidJob),
        (lambda job: {"priority": 77}, InvalidJob),
        (lambda job: 1 / 0, ZeroDivisionError),
    ],
)
async def test_a_refused_update_leaves_the_transaction_usable(
    oban: Oban, session: Caller, changes: Any, error: type[Exception]
) -> None:
    ids = await insert_rows(oban.engine, row("retryable"), row("retryable"))
    before = await read_rows(oban.engine)
    await session.execute(ORDER)
    with pytest.raises(error):
        await oban.update_many_jobs(ids, changes, session=session)
    with pytest.raises(JobNotFound):
        await oban.update_many_jobs([*ids, 10**9], {"priority": 7}, session=session)
    with pytest.raises(InvalidJob):
        await oban.enqueue_many([Job(worker="tests.New"), spoilt()], session=session)
    await session.commit()
    assert (await read_rows(oban.engine), await orders(oban)) == (before, 1)


def spoilt() -> Job:
    """A job that became invalid after it was created."""
    job = Job(worker="tests.New")
    job.args["bad"] = {1}
    return job


@pytest.mark.parametrize("changes", [{"priority": 77}, lambda job: setattr(job, "priority", 5)])
async def test_a_refused_update_leaves_the_instances_of_the_session_readable(
    oban: Oban, engine: AsyncEngine, changes: Any
) -> None:
    (id_,) = await insert_rows(oban.engine, row("retryable"))
    before = await read_rows(oban.engine)
    async with AsyncSession(engine) as session:
        job = await session.get_one(Job, id_)
        with pytest.raises(InvalidJob):
            await oban.update_job(job, changes, session=session)
        assert shown(job) == before[id_]


# -- instances ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cancel", "retry", "update", "update by a callable"])
async def test_the_instances_of_the_session_show_the_new_row_however_the_job_is_named(
    oban: Oban, engine: AsyncEngine, name: str
) -> None:
    (id_,) = await insert_rows(oban.engine, row("retryable"))
    async with AsyncSession(engine, expire_on_commit=False) as session:
        loaded = await session.get_one(Job, id_)
        detached = await oban.get_job(id_)
        await CALLS[name](oban, id_, session)
        await CALLS[name](oban, detached, session)
        await CALLS[name](oban, loaded, session)
        await session.commit()
    found = (await read_rows(oban.engine))[id_]
    assert shown(loaded) == found
    assert detached is not None


async def test_a_call_flushes_pending_changes_first(oban: Oban, engine: AsyncEngine) -> None:
    (id_,) = await insert_rows(oban.engine, row("retryable", tags=["a"]))
    async with AsyncSession(engine) as session:
        loaded = await session.get_one(Job, id_)
        loaded.tags = ["set"]
        fresh = Job(worker="tests.New")
        session.add(fresh)
        await oban.update_job(loaded, lambda job: {"tags": [*job.tags, "then"]}, session=session)
        assert await oban.cancel_job(fresh, session=session)
        assert (loaded.tags, fresh.state) == (["set", "then"], "cancelled")
        await session.commit()
    found = await read_rows(oban.engine)
    assert found[id_]["tags"] == ["set", "then"]
    assert [item["state"] for item in found.values()] == ["retryable", "cancelled"]


async def test_an_instance_that_a_commit_has_expired_is_still_a_job(oban: Oban, engine: AsyncEngine) -> None:
    (id_,) = await insert_rows(oban.engine, row("retryable"))
    async with AsyncSession(engine) as session:
        loaded = await session.get_one(Job, id_)
        await session.commit()
        assert await oban.cancel_job(loaded)
        assert loaded.state == "cancelled"


async def test_a_job_enqueued_in_a_session_belongs_to_it(oban: Oban, engine: AsyncEngine) -> None:
    async with AsyncSession(engine, expire_on_commit=False) as session:
        job = await oban.enqueue(Job(worker="tests.New"), session=session)
        assert job in session
        job.priority = 5
        await session.commit()
    assert (await read_rows(oban.engine))[job.id]["priority"] == 5


async def test_a_job_that_was_added_to_the_session_is_enqueued_once(oban: Oban, engine: AsyncEngine) -> None:
    async with AsyncSession(engine, expire_on_commit=False) as session:
        job = Job(worker="tests.New", schedule_in=60)
        session.add(job)
        assert await oban.enqueue(job, session=session) is job
        await session.commit()
    assert list(await read_rows(oban.engine)) == [job.id]


async def test_a_job_whose_transaction_was_rolled_back_can_be_enqueued_again(
    oban: Oban, session: Caller
) -> None:
    job = Job(worker="tests.New", args={"n": 1}, tags=["a"])
    await oban.enqueue(job, session=session)
    await session.rollback()
    await oban.enqueue(job, session=session)
    await session.commit()
    assert [(item["args"], item["tags"]) for item in (await read_rows(oban.engine)).values()] == [
        ({"n": 1}, ["a"])
    ]


# -- notifications -----------------------------------------------------------------------------


async def put_one_in(oban: Oban, session: Caller, how: str) -> int:
    """Make one job available for a runner."""
    if how == "enqueue":
        return (await oban.enqueue(Notes.new(), session=session)).id
    (id_,) = await insert_rows(oban.engine, row("scheduled", worker=Notes.worker_name))
    if how == "retry":
        await oban.retry_job(id_, session=session)
    else:
        await oban.update_job(id_, {"schedule_in": 0}, session=session)
    return id_


async def completed(oban: Oban, id_: int) -> bool:
    job = await oban.get_job(id_)
    return job is not None and job.state == "completed"


@pytest.mark.parametrize("how", ["enqueue", "retry", "update"])
async def test_a_runner_is_woken_by_the_commit(oban: Oban, session: Caller, url: URL, how: str) -> None:
    Notes.ran = []
    # The runner does not poll during this test.
    async with Oban(url, queues={"default": 5}, poll_interval=300, stage_interval=300) as runner:
        # The runner has polled once, and will fetch again only if it is woken.
        first = await runner.enqueue(Notes.new())
        await eventually(lambda: completed(oban, first.id))
        await put_one_in(runner, session, how)
        await session.rollback()
        second = await put_one_in(runner, session, how)
        assert Notes.ran == [first.id]
        await session.commit()
        await eventually(lambda: len(Notes.ran) > 1)
        assert Notes.ran == [first.id, second]


async def test_a_job_enqueued_in_a_savepoint_runs_after_the_commit(
    oban: Oban, engine: AsyncEngine, url: URL
) -> None:
    Notes.ran = []
    async with (
        Oban(url, queues={"default": 5}, poll_interval=300, stage_interval=300) as runner,
        AsyncSession(engine, expire_on_commit=False) as session,
    ):
        async with session.begin_nested():
            kept = await runner.enqueue(Notes.new(), session=session)
        nested = await session.begin_nested()
        await runner.enqueue(Notes.new(), session=session)
        await nested.rollback()
        await session.commit()
        await eventually(lambda: Notes.ran)
        assert Notes.ran == [kept.id]
        assert list(await read_rows(oban.engine)) == [kept.id]
