"""New jobs with a state or a time that was assigned, in every way to store a job."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, insert, select, text, update
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from oban import Job, JobState, Oban, Worker, filters
from oban.errors import InvalidArgument, InvalidJob
from tests.support.databases import DATABASES
from tests.support.rows import delete_rows, lasting_url

WAYS = ("add", "bulk", "enqueue", "enqueue(session=)", "enqueue_many", "enqueue_stream")
HOUR = timedelta(hours=1)


class Quiet(Worker):
    async def process(self, job: Job) -> None:
        pass


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture(autouse=True)
async def emptied(oban: Oban) -> None:
    await delete_rows(oban.engine)


async def store(oban: Oban, job: Job, way: str) -> Job:
    """Store a job in one of `WAYS`, and return the only job of the table."""
    async with AsyncSession(oban.engine, expire_on_commit=False) as session, session.begin():
        if way == "add":
            session.add(job)
        elif way == "bulk":
            await session.run_sync(lambda sync: sync.bulk_save_objects([job]))
        elif way == "enqueue(session=)":
            await oban.enqueue(job, session=session)
    if way == "enqueue":
        await oban.enqueue(job)
    elif way == "enqueue_many":
        await oban.enqueue_many(job)
    elif way == "enqueue_stream":
        await oban.enqueue_stream([job])
    (stored,) = await oban.list_jobs()
    return stored


def job_in(state: Any, **fields: Any) -> Job:
    job = Quiet.new(**fields)
    job.state = state
    return job


@pytest.mark.parametrize("state", ["suspended", JobState.SUSPENDED], ids=repr)
@pytest.mark.parametrize("way", WAYS)
async def test_a_suspended_job_is_stored_as_such(oban: Oban, way: str, state: Any) -> None:
    at = datetime.now(UTC) + HOUR
    stored = await store(oban, job_in(state, scheduled_at=at), way)
    assert (stored.state, stored.scheduled_at) == (JobState.SUSPENDED, at)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "bulk"])
async def test_an_available_job_that_is_due_later_is_scheduled(oban: Oban, way: str) -> None:
    job = Quiet.new()
    job.scheduled_at = datetime.now(UTC) + HOUR
    job.state = "available"  # type: ignore[assignment]
    assert (await store(oban, job, way)).state is JobState.SCHEDULED


@pytest.mark.parametrize("state", ["completed", "cancelled", "executing", "retryable", JobState.DISCARDED])
async def test_a_session_stores_any_state_and_enqueue_refuses_it(oban: Oban, state: Any) -> None:
    with pytest.raises(InvalidJob, match=r"^state of a new job is available, scheduled or suspended, not"):
        await oban.enqueue_many([Quiet.new(), job_in(state)])
    assert await oban.list_jobs() == []
    assert (await store(oban, job_in(state), "add")).state is JobState(state)


@pytest.mark.parametrize("name", ["schedule_in", "scheduled_in"])
@pytest.mark.parametrize(
    "delay", [-1, -0.001, -1e300, -(10**30), timedelta(days=-1), timedelta.min], ids=repr
)
async def test_a_deadline_that_has_passed_means_now(oban: Oban, name: str, delay: Any) -> None:
    jobs = await oban.enqueue_many(Quiet.new(**{name: delay}), Quiet.new(scheduled_in=3600))
    assert [job.state for job in jobs] == ["available", "scheduled"]
    assert jobs[0].scheduled_at == jobs[0].inserted_at
    updated = await oban.update_job(jobs[1], lambda _: {name: delay})
    assert updated.state is JobState.AVAILABLE
    assert timedelta(0) <= updated.scheduled_at - jobs[0].scheduled_at < timedelta(minutes=1)


async def test_statements_take_a_state_as_a_string_or_an_enum(oban: Oban, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin():
        for number, state in enumerate(["completed", JobState.COMPLETED]):
            await session.execute(insert(Job).values(worker=f"{number}", state=state))
            await session.execute(insert(Job), [{"worker": f"many {number}", "state": state}])
        loaded = list(await session.scalars(select(Job).where(Job.state == "completed")))
        assert [job.state for job in loaded] == [JobState.COMPLETED] * 4
        await session.execute(update(Job).where(Job.state.in_(["completed"])).values(state="cancelled"))
        assert all(job.cancelled() for job in loaded)
    for condition in (Job.state == JobState.CANCELLED, filters.state("cancelled"), Job.state != "available"):
        assert len(await oban.list_jobs(select(Job).where(condition))) == 4


async def test_statements_refuse_an_unknown_state(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        for statement in (
            insert(Job).values(worker="w", state="cancelld"),
            update(Job).values(state="cancelld"),
            select(Job).where(Job.state == "cancelld"),
            select(Job).where(Job.state.in_(["available", "cancelld"])),
        ):
            with pytest.raises(StatementError, match=r"'cancelld' is not a state; did you mean cancelled\?"):
                await session.execute(statement)
    with pytest.raises(InvalidArgument, match="did you mean cancelled"):
        filters.state("cancelld")


class Explicit(Quiet, max_attempts=20):
    pass


@pytest.mark.parametrize("way", WAYS)
async def test_an_instance_can_have_its_own_default_of_max_attempts(oban: Oban, url: URL, way: str) -> None:
    client = Oban(oban.engine, name="other", max_attempts=5)
    job = Quiet.new()
    assert job.max_attempts == 20
    stored = await store(client, job, way)
    # Only the client knows its options.
    assert stored.max_attempts == (20 if way in ("add", "bulk") else 5)
    if way != "enqueue_stream":
        assert job.max_attempts == stored.max_attempts


async def test_what_a_worker_or_a_call_sets_is_no_default(oban: Oban) -> None:
    client = Oban(oban.engine, name="other", max_attempts=5)
    assigned, row = Quiet.new(), Job(worker="app.W", max_attempts=20)
    assigned.max_attempts = 20
    jobs = [Quiet.new(max_attempts=20), Explicit.new(), assigned, row, Quiet.new(), Quiet.new(schedule_in=60)]
    assert [job.max_attempts for job in await client.enqueue_many(jobs)] == [20, 20, 20, 20, 5, 5]
    stored = {job.id: job.max_attempts for job in await oban.list_jobs()}
    assert stored == {job.id: job.max_attempts for job in jobs}


async def test_a_rollback_undoes_the_default_of_max_attempts(oban: Oban) -> None:
    client = Oban(oban.engine, name="other", max_attempts=5)
    job = Quiet.new()
    async with AsyncSession(oban.engine) as session:
        await client.enqueue(job, session=session)
        assert job.max_attempts == 5
        await session.rollback()
    assert job.max_attempts == 20
    assert (await oban.enqueue(job)).max_attempts == 20


async def test_a_value_that_other_programs_have_nested_deeply_does_not_stop_an_update(oban: Oban) -> None:
    job = await oban.enqueue(Quiet.new(scheduled_in=60))
    document = '{"a": ' + "[" * 600 + "]" * 600 + "}"
    meta = "CAST(:document AS jsonb)" if oban.engine.dialect.name == "postgresql" else ":document"
    async with oban.engine.begin() as connection:
        await connection.execute(text(f"UPDATE oban_jobs SET meta = {meta}"), {"document": document})
    updated = await oban.update_job(job, lambda current: {"priority": len(current.meta)})
    assert (updated is job, updated.priority, len(updated.meta["a"])) == (True, 1, 1)
    with pytest.raises(InvalidJob, match=r"^meta.* is nested more than 100 levels deep$"):
        await oban.update_job(job, lambda current: {"meta": {**current.meta, "b": 1}})


async def test_a_list_in_a_statement_has_only_strings(oban: Oban) -> None:
    deep: list[Any] = []
    for _ in range(20_000):
        deep = [deep]
    async with AsyncSession(oban.engine) as session:
        for tags, raised in (([5], StatementError), (["a", None], StatementError), (deep, InvalidJob)):
            with pytest.raises(raised, match="the list must have strings only; "):
                await session.execute(insert(Job).values(worker="w", tags=tags))
            await session.rollback()
        await session.execute(insert(Job).values(worker="w", tags=["a"]))
        assert list(await session.scalars(select(Job.tags))) == [["a"]]
