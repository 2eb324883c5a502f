"""What the tests of oban-py, of Oban for Elixir and of Celery say about jobs that run when they are enqueued.

Ours are stored and run as on a node, and the instance shows what came of it. With Celery's eager tasks and
with oban-py, nothing is stored; with Oban for Elixir, the outcome is not.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import Job, JobState, Worker, current_job, job, testing
from oban.errors import ConfigError
from tests.testing.applications import Application, with_clients
from tests.testing.peer_workers import Acts, Boom, PlainActs, PlainSlow, Slow, SucceedsThirdTime, ran

pytestmark = pytest.mark.either_database

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def at_new_year() -> Iterator[None]:
    ran.clear()
    with testing.travel(NEW_YEAR), testing.mode("inline"):
        yield


#: What a job does, whether it has only one attempt, and the fields that its instance then has.
OUTCOMES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "completed": ("ok", 20, {"state": "completed", "completed_at": NEW_YEAR, "recorded": None}),
    "a value that is no outcome": ("value", 20, {"state": "completed", "recorded": None}),
    "recorded": ("record", 20, {"state": "completed", "recorded": {"answer": 42}}),
    "cancelled": ("cancel", 20, {"state": "cancelled", "cancelled_at": NEW_YEAR}),
    "cancelled by raising": ("raise cancel", 20, {"state": "cancelled", "cancelled_at": NEW_YEAR}),
    "discarded": ("discard", 20, {"state": "discarded", "discarded_at": NEW_YEAR}),
    "discarded by raising": ("raise discard", 20, {"state": "discarded", "discarded_at": NEW_YEAR}),
    "snoozed": ("snooze", 20, {"state": "scheduled", "scheduled_at": NEW_YEAR + MINUTE}),
    "snoozed by raising": ("raise snooze", 20, {"state": "scheduled", "scheduled_at": NEW_YEAR + MINUTE}),
    "failed": ("fail", 20, {"state": "retryable", "scheduled_at": NEW_YEAR + MINUTE / 4}),
    "failed in the last attempt": ("fail", 1, {"state": "discarded", "discarded_at": NEW_YEAR}),
    "exited": ("exit", 20, {"state": "retryable"}),
}


@pytest.mark.parametrize("outcome", OUTCOMES)
@with_clients
async def test_the_instance_shows_each_outcome(app: Application, outcome: str) -> None:
    do, max_attempts, expected = OUTCOMES[outcome]
    for worker in (Acts, PlainActs):
        job = worker.new({"ref": worker.__name__, "do": do}, max_attempts=max_attempts)
        assert await app.oban.enqueue(job) is job
        assert {field: getattr(job, field) for field in expected} == expected
        # As on a node, a snooze takes the attempt back, which it does not with Oban for Elixir.
        assert (job.attempt, job.attempted_at) == (0 if "snooze" in do else 1, NEW_YEAR)
        assert len(job.errors) == (do not in ("ok", "value", "record") and "snooze" not in do)
        # It is no copy: the row says the same.
        stored = await app.oban.get_job(job.id)
        fields = ("state", "errors", "meta", "attempt", "scheduled_at", "attempted_by", "completed_at")
        assert [getattr(stored, field) for field in fields] == [getattr(job, field) for field in fields]
    assert ran == ["Acts", "PlainActs"]


@pytest.mark.parametrize("worker", [Slow, PlainSlow])
@with_clients
async def test_a_timeout_is_a_failure(app: Application, worker: type[Worker]) -> None:
    job = await app.oban.enqueue(worker.new())
    assert job.state == JobState.RETRYABLE
    assert "TimeoutError" in job.errors[0]["error"]


@with_clients
async def test_a_job_without_a_worker_in_this_process_fails(app: Application) -> None:
    job = await app.oban.enqueue(Job(worker="app.Elsewhere"))
    assert (job.state, len(job.errors)) == (JobState.RETRYABLE, 1)
    assert "app.Elsewhere" in job.errors[0]["error"]


@with_clients
async def test_errors_are_raised_without_safety_after_they_are_stored(app: Application) -> None:
    # Oban for Elixir always raises; Celery has `task_eager_propagates`, which is off by default, like ours.
    for do, error in (("fail", Boom), ("exit", SystemExit)):
        for worker in (Acts, PlainActs):
            job = worker.new({"do": do})
            with testing.mode("inline", with_safety=False), pytest.raises(error):
                await app.oban.enqueue(job)
            assert (job.state, len(job.errors)) == (JobState.RETRYABLE, 1)
    assert len(await app.oban.list_jobs()) == 4


@with_clients
async def test_outcomes_are_not_raised_without_safety(app: Application) -> None:
    with testing.mode("inline", with_safety=False):
        jobs = [Acts.new({"do": do}) for do in ("raise cancel", "raise discard", "raise snooze")]
        await app.oban.enqueue_many(jobs)
    assert [str(job.state) for job in jobs] == ["cancelled", "discarded", "scheduled"]


@with_clients
async def test_many_jobs_run_in_their_order(app: Application) -> None:
    jobs = [Acts.new({"ref": ref, "do": do}) for ref, do in enumerate(["ok", "fail", "record"])]
    assert await app.oban.enqueue_many(jobs) == jobs
    assert [str(job.state) for job in jobs] == ["completed", "retryable", "completed"]
    assert await app.oban.enqueue_many([]) == []
    assert ran == [0, 1, 2]


@with_clients
async def test_without_safety_many_jobs_stop_at_the_first_error(app: Application) -> None:
    jobs = [Acts.new({"ref": ref, "do": do}) for ref, do in enumerate(["ok", "fail", "ok"])]
    with testing.mode("inline", with_safety=False), pytest.raises(Boom):
        await app.oban.enqueue_many(jobs)
    assert [str(job.state) for job in jobs] == ["completed", "retryable", "available"]
    assert ran == [0, 1]


@with_clients
async def test_jobs_of_a_stream_run(app: Application) -> None:
    jobs = [Acts.new({"ref": ref}) for ref in range(5)]
    await streamed(app, jobs, batch=2)
    assert ran == [0, 1, 2, 3, 4]
    assert {str(job.state) for job in await app.oban.list_jobs()} == {"completed"}


async def streamed(app: Application, jobs: list[Job], **options: Any) -> None:
    """Enqueue jobs as a stream, also as an async one where there is an event loop."""
    client: Any = app.client
    if not app.is_async:
        client.enqueue_stream(iter(jobs), **options)
        return

    async def stream() -> AsyncIterator[Job]:
        for each in jobs:
            yield each

    await client.enqueue_stream(stream(), **options)


@with_clients
async def test_scheduled_jobs_run_at_once(app: Application) -> None:
    # As with the peers: what would have to be waited for is no subject of a test in this mode.
    job = await app.oban.enqueue(Acts.new(schedule_in=timedelta(days=1)))
    assert (job.state, job.completed_at) == (JobState.COMPLETED, NEW_YEAR)


@with_clients
async def test_suspended_jobs_and_stored_ones_do_not_run(app: Application) -> None:
    suspended = Acts.new()
    suspended.state = JobState.SUSPENDED
    await app.oban.enqueue(suspended)
    async with app.session() as session:
        added = Acts.new({"do": "fail"})
        session.own.add(added)
        await session.awaited.commit()
    assert ran == []
    assert [str(job.state) for job in await app.oban.list_jobs()] == ["suspended", "available"]


@with_clients
async def test_a_duplicate_does_not_run(app: Application) -> None:
    def once() -> Job:
        return Acts.new({"ref": 1, "do": "fail"}, unique=True)

    first, second = await app.oban.enqueue(once()), await app.oban.enqueue(once())
    assert (first.conflict, second.conflict, second.id) == (False, True, first.id)
    assert ran == [1]


@with_clients
async def test_a_job_is_not_retried(app: Application) -> None:
    # Celery's eager tasks run again at once when they call `retry`.
    job = await app.oban.enqueue(SucceedsThirdTime.new())
    assert (job.state, ran) == (JobState.RETRYABLE, [1])
    assert (await app.testing.drain_queue(with_safety=True))["completed"] == 1


class Nested(Worker):
    """Enqueues another job of its kind, unless it is the last one, and then looks at it."""

    async def process(self, job: Job) -> None:
        ran.append(job.args["ref"])
        if job.args["ref"] < 3:
            inner = await Nested.enqueue({"ref": job.args["ref"] + 1})
            ran.append(str(inner.state))
        assert current_job() is job


class PlainNested(Worker):
    """Does the same in a thread."""

    def process(self, job: Job) -> None:
        ran.append(job.args["ref"])
        if job.args["ref"] < 3:
            inner = PlainNested.enqueue_sync({"ref": job.args["ref"] + 1})
            ran.append(str(inner.state))
        assert current_job() is job


@with_clients
async def test_jobs_that_jobs_enqueue_run_within_them(app: Application) -> None:
    for worker in [Nested, PlainNested] if app.is_async else [PlainNested]:
        ran.clear()
        job = await app.oban.enqueue(worker.new({"ref": 1}))
        assert (job.state, job.errors) == (JobState.COMPLETED, [])
        assert ran == [1, 2, 3, "completed", "completed"]
        assert current_job() is None


@with_clients
async def test_the_calls_of_workers_run_jobs_as_well(app: Application) -> None:
    if app.is_async:
        jobs = [await Acts.enqueue({"do": "record"}), await PlainActs.enqueue({"do": "record"})]
    else:
        jobs = [Acts.enqueue_sync({"do": "record"}), PlainActs.enqueue_sync({"do": "record"})]
    assert [job.recorded for job in jobs] == [{"answer": 42}] * 2


@job
async def add(a: int, b: int = 1) -> dict[str, int]:
    """Add two numbers."""
    ran.append(a + b)
    return {"sum": a + b}


@with_clients
async def test_functions_run(app: Application) -> None:
    done = await add.enqueue(1, b=2) if app.is_async else add.enqueue_sync(1, b=2)
    assert (done.state, ran) == (JobState.COMPLETED, [3])


class CountsJobs(Worker):
    """Records how many jobs its session sees, and adds one."""

    async def process(self, job: Job, session: AsyncSession) -> None:
        ran.append(len((await session.scalars(select(Job.id))).all()))
        session.add(Job(worker="added"))


class PlainCountsJobs(Worker):
    """Does the same in a thread."""

    def process(self, job: Job, session: Session) -> None:
        ran.append(len(session.scalars(select(Job.id)).all()))
        session.add(Job(worker="added"))


@with_clients
async def test_jobs_see_and_write_in_the_transaction_of_the_session(app: Application) -> None:
    async with app.session() as session:
        session.own.add(Job(worker="mine"))
        for worker in (CountsJobs, PlainCountsJobs):
            job = await app.oban.enqueue(worker.new(), session=session.own)
            assert (job.state, job.errors) == (JobState.COMPLETED, [])
            assert job in session.own
        workers = (await session.awaited.scalars(select(Job.worker).order_by(Job.id))).all()
        assert workers.count("added") == 2
        await session.awaited.rollback()
    assert ran == [2, 4]
    assert await app.oban.list_jobs() == []


@with_clients
async def test_a_commit_of_the_session_stays_within_the_test(app: Application) -> None:
    async with app.session() as session:
        job = await app.oban.enqueue(CountsJobs.new(), session=session.own)
        await session.awaited.commit()
    assert [each.state for each in await app.oban.list_jobs()] == ["completed", "available"]
    assert (await app.oban.get_job(job.id)).completed_at == NEW_YEAR


@with_clients
async def test_a_manual_block_only_inserts(app: Application) -> None:
    with testing.mode("manual"):
        job = await app.oban.enqueue(Acts.new({"do": "fail"}))
        with testing.mode("inline"), contextlib.suppress(Boom):
            await app.oban.enqueue(Acts.new({"ref": "inner"}))
    assert (job.state, job.attempt, ran) == (JobState.AVAILABLE, 0, ["inner"])
    await app.testing.assert_enqueued(worker=Acts, args={"do": "fail"})


@with_clients
async def test_the_args_went_through_json(app: Application) -> None:
    # With Celery's eager tasks, they did not by default, so that a mistake appears in production only.
    job = await app.oban.enqueue(Acts.new({"ref": (1, 2)}))
    assert (ran, job.args) == ([[1, 2]], {"ref": [1, 2]})


def test_an_unknown_mode_is_an_error() -> None:
    wrong: Any = "eager"
    with pytest.raises(ConfigError, match="'inline' or 'manual', not 'eager'"), testing.mode(wrong):
        pass
