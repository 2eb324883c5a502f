"""What the tests of oban-py, of Oban for Elixir and of River say about running one job in a test.

Nothing is stored about the job, as with oban-py and Oban for Elixir. River stores it, and works it in the
caller's transaction: that is our `drain_queue`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import (
    CallNext,
    Cancel,
    Discard,
    Job,
    JobState,
    Record,
    Snooze,
    Worker,
    current_job,
    job,
    testing,
)
from oban.errors import ConfigError, InvalidJob, InvalidTarget, UnknownWorker
from tests.testing.applications import Application, with_clients
from tests.testing.peer_workers import Acts, Boom, PlainActs, PlainSlow, Slow, SucceedsThirdTime, ran

pytestmark = pytest.mark.either_database

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def at_new_year() -> Iterator[None]:
    ran.clear()
    with testing.travel(NEW_YEAR):
        yield


class Returns(Worker):
    """Returns what it got."""

    async def process(self, job: Job) -> Any:
        return job.args


@job(queue="mailers")
async def echo(email: str, times: int = 1) -> str:
    """Return the arguments."""
    return email * times


@job
def plain_echo(email: str) -> str:
    """Return the argument."""
    return email


@dataclass
class ReportArgs:
    """Typed args."""

    day: date


class Report(Worker[ReportArgs]):
    """Takes typed args."""

    def process(self, job: Job, args: ReportArgs) -> Any:
        return args.day + timedelta(days=1)


class Tells(Worker):
    """Returns the job as its worker sees it."""

    async def process(self, job: Job) -> Job:
        assert current_job() is job
        return job


@with_clients
async def test_it_returns_what_each_kind_of_worker_returns(app: Application) -> None:
    process = app.testing.process_job
    assert await process(Returns.new({"user": 123})) == {"user": 123}
    assert await process(echo.new("ada@example.com")) == "ada@example.com"
    assert await process(echo.new("ada", times=2)) == "adaada"
    assert await process(plain_echo.new("ada@example.com")) == "ada@example.com"
    assert await process(Report.new(ReportArgs(date(2026, 1, 31)))) == date(2026, 2, 1)
    assert await process(PlainActs.new()) is None
    assert await app.oban.list_jobs() == []


OUTCOMES: dict[str, Any] = {
    "value": {"not": "stored"},
    "record": Record({"answer": 42}),
    "cancel": Cancel("not needed"),
    "raise cancel": Cancel("not needed"),
    "discard": Discard("hopeless"),
    "raise discard": Discard("hopeless"),
    "snooze": Snooze(60),
    "raise snooze": Snooze(60),
}


@with_clients
async def test_outcomes_are_returned_however_they_came(app: Application) -> None:
    for do, outcome in OUTCOMES.items():
        for worker in (Acts, PlainActs):
            assert await app.testing.process_job(worker.new({"do": do})) == outcome


@with_clients
async def test_errors_are_raised(app: Application) -> None:
    for worker in (Acts, PlainActs):
        with pytest.raises(Boom, match="no luck"):
            await app.testing.process_job(worker.new({"do": "fail"}))
        with pytest.raises(SystemExit):
            await app.testing.process_job(worker.new({"do": "exit"}))
    for slow in (Slow, PlainSlow):
        with pytest.raises(TimeoutError):
            await app.testing.process_job(slow.new())


@with_clients
async def test_a_job_is_in_its_first_attempt_unless_it_tells_another(app: Application) -> None:
    with pytest.raises(Boom):
        await app.testing.process_job(SucceedsThirdTime.new())
    third = SucceedsThirdTime.new()
    third.attempt = 3
    assert await app.testing.process_job(third) is None
    assert ran == [1, 3]


@with_clients
async def test_the_worker_sees_a_job_that_executes(app: Application) -> None:
    job = Tells.new({"value": (1, 2)}, meta={"by": ("ada",)}, schedule_in=60)
    seen = await app.testing.process_job(job)
    assert (seen.state, seen.attempt, seen.max_attempts) == (JobState.EXECUTING, 1, 20)
    assert (seen.inserted_at, seen.attempted_at) == (NEW_YEAR, NEW_YEAR)
    assert seen.scheduled_at == NEW_YEAR + timedelta(minutes=1)
    assert isinstance(seen.id, int)
    # The args went through JSON, as they do on the way to a node.
    assert (seen.args, seen.meta) == ({"value": [1, 2]}, {"by": ["ada"]})
    # With oban-py, the job itself is changed.
    assert (job.state, job.attempt) == (JobState.SCHEDULED, 0)
    assert job.__dict__.get("id") is job.attempted_at is None


@with_clients
async def test_what_the_job_tells_is_kept(app: Application) -> None:
    job = Tells.new()
    job.id, job.attempt, job.scheduled_at = 999, 5, NEW_YEAR - timedelta(days=1)
    seen = await app.testing.process_job(job)
    assert (seen.id, seen.attempt, seen.scheduled_at) == (999, 5, NEW_YEAR - timedelta(days=1))


@with_clients
async def test_a_stored_job_can_run_without_being_changed(app: Application) -> None:
    stored = await app.oban.enqueue(Acts.new({"do": "record"}))
    assert await app.testing.process_job(stored) == Record({"answer": 42})
    row = await app.oban.get_job(stored.id)
    assert (row.state, row.attempt, row.recorded) == (JobState.AVAILABLE, 0, None)


@with_clients
async def test_a_job_that_has_ended_can_run_as_well(app: Application) -> None:
    # River, which stores what comes of it, refuses this.
    stored = await app.oban.enqueue(Acts.new())
    await app.testing.drain_queue()
    assert await app.testing.process_job(await app.oban.get_job(stored.id)) is None
    assert len(ran) == 2


@with_clients
async def test_what_is_no_job_is_refused(app: Application) -> None:
    with pytest.raises(InvalidTarget, match=r"a Job is needed, not .*; MyWorker.new\(…\) makes one"):
        await app.testing.process_job(Acts)
    with pytest.raises(InvalidJob, match="function"):
        await app.testing.process_job(Acts.new({"function": print}))
    with pytest.raises(InvalidJob, match="day"):
        await app.testing.process_job(Job(worker=Report.worker_name, args={"day": "never"}))
    with pytest.raises(UnknownWorker, match=r"app\.Elsewhere"):
        await app.testing.process_job(Job(worker="app.Elsewhere"))


class Writes(Worker):
    """Adds a job with its session, and fails if it has to."""

    async def process(self, job: Job, session: AsyncSession) -> int:
        session.add(Job(worker="added"))
        await session.flush()
        if job.args.get("fail"):
            raise Boom("no luck")
        return len((await session.scalars(select(Job))).all())


class PlainWrites(Worker):
    """Does the same in a thread."""

    def process(self, job: Job, session: Session) -> int:
        session.add(Job(worker="added"))
        session.flush()
        if job.args.get("fail"):
            raise Boom("no luck")
        return len(session.scalars(select(Job)).all())


@pytest.mark.parametrize("worker", [Writes, PlainWrites])
@with_clients
async def test_the_session_of_a_worker_is_in_the_transaction_of_the_test(
    app: Application, worker: type[Worker]
) -> None:
    await app.oban.enqueue(Job(worker="mine"))
    assert await app.testing.process_job(worker.new()) == 2
    with pytest.raises(Boom):
        await app.testing.process_job(worker.new({"fail": True}))
    # As on a node, what a job that fails has written is rolled back.
    assert [each.worker for each in await app.oban.list_jobs()] == ["mine", "added"]


def noting(name: str) -> Callable[..., Any]:
    async def middleware(job: Job, call_next: CallNext) -> Any:
        ran.append(name)
        result = await call_next(job)
        return [name, result]

    return middleware


@with_clients(middleware=[noting("outer"), noting("inner")])
async def test_the_middleware_of_the_client_runs(app: Application) -> None:
    for worker in (Acts, PlainActs):
        ran.clear()
        wrapped = await app.testing.process_job(worker.new({"ref": 1, "do": "value"}))
        assert wrapped == ["outer", ["inner", {"not": "stored"}]]
        assert ran == ["outer", "inner", 1]


@dataclass
class Mailer:
    """A resource."""

    host: str


@asynccontextmanager
async def lifespan(oban: Any) -> AsyncIterator[dict[str, Any]]:
    ran.append("opened")
    yield {"mailer": Mailer("smtp.example.com")}
    ran.append("closed")


@with_clients(lifespan=lifespan)
async def test_workers_get_the_resources_of_the_client(app: Application, own_registry: None) -> None:
    # Nodes of other tests, which have no mailer, would refuse to start with this worker.
    class Mails(Worker):
        async def process(self, job: Job, mailer: Mailer) -> str:
            return mailer.host

    assert await app.testing.process_job(Mails.new()) == "smtp.example.com"
    assert ran == ["opened", "closed"]


class Unlimited(Worker):
    """Has no timeout of its own."""

    async def process(self, job: Job) -> None:
        await asyncio.sleep(60)


@with_clients(timeout=0.01)
async def test_the_timeout_of_the_client_counts_for_workers_without_one(app: Application) -> None:
    with pytest.raises(TimeoutError):
        await app.testing.process_job(Unlimited.new())


async def test_no_client_is_needed_without_a_session(no_clients: None) -> None:
    assert await testing.process_job(echo.new("ada")) == "ada"
    assert await testing.process_job(plain_echo.new("ada")) == "ada"
    with pytest.raises(ConfigError, match="there is no Oban or SyncOban"):
        await testing.process_job(Writes.new())


def test_no_client_and_no_event_loop_are_needed(no_clients: None) -> None:
    process: Any = testing.process_job
    assert process(echo.new("ada")) == "ada"
    assert process(plain_echo.new("ada")) == "ada"
    with pytest.raises(ConfigError, match="there is no Oban or SyncOban"):
        process(PlainWrites.new())
