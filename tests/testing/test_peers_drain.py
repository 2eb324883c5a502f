"""What the tests of oban-py and of Oban for Elixir say about draining a queue, and where ours differs.

River and Procrastinate have a worker that stops when its queue is empty instead, and Celery has nothing.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oban import Job, JobState, Oban, SyncOban, Worker, testing
from oban.errors import ConfigError
from tests.testing.applications import Application, with_clients
from tests.testing.peer_workers import Acts, Boom, PlainActs, SnoozesTwice, SucceedsThirdTime, ran

pytestmark = pytest.mark.either_database

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def at_new_year() -> Iterator[None]:
    ran.clear()
    with testing.travel(NEW_YEAR):
        yield


def counts(**some: int) -> dict[str, int]:
    """All counts; those that are not named are zero."""
    return {**dict.fromkeys(("cancelled", "completed", "discarded", "retryable", "scheduled"), 0), **some}


async def enqueue(app: Application, *jobs: Job) -> list[Job]:
    enqueued: list[Job] = await app.oban.enqueue_many(jobs)
    return enqueued


async def states(app: Application) -> list[str]:
    return [str(job.state) for job in await app.oban.list_jobs()]


@pytest.mark.parametrize("worker", [Acts, PlainActs])
@with_clients
async def test_all_jobs_run_and_are_counted_by_outcome(app: Application, worker: type[Worker]) -> None:
    ends = ("ok", "fail", "ok", "snooze", "cancel", "discard")
    await enqueue(app, *(worker.new({"ref": ref, "do": do}) for ref, do in enumerate(ends, 1)))
    await enqueue(app, worker.new({"ref": 7, "do": "fail"}, max_attempts=1))
    await enqueue(app, worker.new({"ref": 8}, queue="other"))
    drained = await app.testing.drain_queue(with_safety=True, with_scheduled=False)
    assert drained == counts(completed=2, cancelled=1, discarded=2, retryable=1, scheduled=1)
    assert ran == [1, 2, 3, 4, 5, 6, 7]
    assert await states(app) == [
        *("completed", "retryable", "completed", "scheduled", "cancelled"),
        *("discarded", "discarded", "available"),
    ]


@with_clients
async def test_the_outcomes_are_stored_as_by_a_node(app: Application) -> None:
    ends = ("record", "fail", "snooze", "cancel")
    jobs = await enqueue(app, *(Acts.new({"do": do}) for do in ends))
    await app.testing.drain_queue(with_safety=True, with_scheduled=False)
    recorded, failed, snoozed, cancelled = [await app.oban.get_job(job.id) for job in jobs]
    assert (recorded.recorded, recorded.completed_at) == ({"answer": 42}, NEW_YEAR)
    assert (failed.attempt, failed.scheduled_at) == (1, NEW_YEAR + timedelta(seconds=15))
    assert "Boom: no luck" in failed.errors[0]["error"]
    assert (snoozed.scheduled_at, snoozed.meta["snoozed"]) == (NEW_YEAR + timedelta(minutes=1), 1)
    assert (cancelled.cancelled_at, len(cancelled.errors)) == (NEW_YEAR, 1)


@with_clients
async def test_nothing_to_do_is_all_zeros(app: Application) -> None:
    assert await app.testing.drain_queue() == counts()
    await enqueue(app, Acts.new())
    # The second argument of a peer is a name as well.
    assert await app.testing.drain_queue(queue="other") == counts()


@with_clients
async def test_jobs_run_in_the_order_in_which_a_node_starts_them(app: Application) -> None:
    await enqueue(
        app,
        Acts.new({"ref": "third"}, priority=5),
        Acts.new({"ref": "second"}, priority=1),
        Acts.new({"ref": "first"}, priority=0),
    )
    await app.testing.drain_queue()
    assert ran == ["first", "second", "third"]


@with_clients
async def test_jobs_that_cannot_run_stay(app: Application) -> None:
    suspended = Acts.new()
    suspended.state = JobState.SUSPENDED
    jobs = await enqueue(app, Acts.new(), Acts.new(), suspended)
    await app.oban.cancel_job(jobs[0])
    assert await app.testing.drain_queue() == counts(completed=1)
    assert await states(app) == ["cancelled", "completed", "suspended"]


@with_clients
async def test_with_scheduled_jobs_that_are_due_later_run(app: Application) -> None:
    await enqueue(app, *(Acts.new(schedule_in=hours * HOUR) for hours in (1, 2)))
    drain = app.testing.drain_queue
    assert await drain(with_scheduled=False) == counts()
    # Oban for Elixir needs the flag for that; like oban-py, our default is to run them.
    assert await drain() == counts(completed=2)


@with_clients
async def test_with_scheduled_up_to_a_time_and_including_it(app: Application) -> None:
    await enqueue(app, *(Acts.new({"ref": hours}, schedule_in=hours * HOUR) for hours in (1, 2)))
    drain = app.testing.drain_queue
    assert await drain(with_scheduled=NEW_YEAR + timedelta(seconds=1)) == counts()
    assert await drain(with_scheduled=NEW_YEAR + HOUR) == counts(completed=1)
    assert await drain(with_scheduled=NEW_YEAR + 3 * HOUR) == counts(completed=1)
    assert ran == [1, 2]


@with_clients
async def test_retries_are_jobs_that_are_due_later(app: Application) -> None:
    await enqueue(app, SucceedsThirdTime.new())
    drain = app.testing.drain_queue
    assert await drain(with_safety=True, with_scheduled=False) == counts(retryable=1)
    assert await drain(with_safety=True) == counts(retryable=1, completed=1)
    assert ran == [1, 2, 3]


@with_clients
async def test_a_job_that_always_fails_is_retried_until_it_is_discarded(app: Application) -> None:
    await enqueue(app, Acts.new({"do": "fail"}, max_attempts=4))
    assert await app.testing.drain_queue(with_safety=True) == counts(retryable=3, discarded=1)
    (job,) = await app.oban.list_jobs()
    assert (job.attempt, len(job.errors)) == (4, 4)


@pytest.mark.parametrize("worker", [Acts, PlainActs])
@with_clients
async def test_without_safety_the_error_of_a_job_is_raised_after_it_is_stored(
    app: Application, worker: type[Worker]
) -> None:
    await enqueue(app, *(worker.new({"ref": ref, "do": do}) for ref, do in enumerate(["ok", "fail", "ok"])))
    with pytest.raises(Boom, match="no luck"):
        await app.testing.drain_queue(with_safety=False)
    assert ran == [0, 1]
    assert await states(app) == ["completed", "retryable", "available"]
    # This is the default of oban-py; that of Oban for Elixir is `with_safety=True`.
    with pytest.raises(Boom, match="no luck"):
        await app.testing.drain_queue()
    assert ran == [0, 1, 2, 1]


@with_clients
async def test_without_safety_a_job_that_exits_raises_as_well(app: Application) -> None:
    (job,) = await enqueue(app, Acts.new({"do": "exit"}))
    # Oban for Elixir raises an error about a crash instead.
    with pytest.raises(SystemExit, match="leaving"):
        await app.testing.drain_queue()
    assert (await app.oban.get_job(job.id)).state == JobState.RETRYABLE


@pytest.mark.parametrize("do", ["cancel", "raise cancel", "discard", "raise discard"])
@with_clients
async def test_outcomes_are_no_errors(app: Application, do: str) -> None:
    await enqueue(app, Acts.new({"do": do}))
    drained = await app.testing.drain_queue(with_safety=False)
    assert drained == counts(**{"cancelled" if "cancel" in do else "discarded": 1})


@with_clients
async def test_snoozed_jobs_run_again_with_recursion(app: Application) -> None:
    await enqueue(app, SnoozesTwice.new())
    assert await app.testing.drain_queue() == counts(scheduled=2, completed=1)
    await enqueue(app, SnoozesTwice.new())
    assert await app.testing.drain_queue(with_recursion=False) == counts(scheduled=1)
    assert await app.testing.drain_queue(with_scheduled=False) == counts()


@with_clients
async def test_a_job_that_always_snoozes_is_an_error_instead_of_a_loop(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oban.testing.drain.MAX_SNOOZES", 5)
    await enqueue(app, Acts.new({"do": "snooze"}))
    # With oban-py, this never ends.
    with pytest.raises(RuntimeError, match="snoozed 5 times"):
        await app.testing.drain_queue()
    assert await app.testing.drain_queue(with_limit=3) == counts(scheduled=3)


class Chain(Worker):
    """Enqueues the next job until the last one, in the same queue."""

    async def process(self, job: Job) -> None:
        ran.append(job.args["ref"])
        if job.args["ref"] < job.args["last"]:
            await Chain.enqueue({**job.args, "ref": job.args["ref"] + 1})


class PlainChain(Worker):
    """Does the same in a thread."""

    def process(self, job: Job) -> None:
        ran.append(job.args["ref"])
        if job.args["ref"] < job.args["last"]:
            PlainChain.enqueue_sync({**job.args, "ref": job.args["ref"] + 1})


def chains(app: Application) -> list[type[Worker]]:
    """The workers that can enqueue jobs: an async one awaits an `Oban`."""
    return [Chain, PlainChain] if app.is_async else [PlainChain]


@with_clients
async def test_with_recursion_jobs_that_jobs_enqueue_run(app: Application) -> None:
    for worker in chains(app):
        await enqueue(app, worker.new({"ref": 1, "last": 3}))
        assert await app.testing.drain_queue(with_recursion=True) == counts(completed=3)
    assert ran == [1, 2, 3] * len(chains(app))


@with_clients
async def test_without_recursion_each_job_of_the_start_has_one_attempt(app: Application) -> None:
    jobs = [worker.new({"ref": 1, "last": 3}) for worker in chains(app)]
    await enqueue(app, *jobs, Acts.new({"do": "fail"}))
    # oban-py stops after one job in all; Oban for Elixir runs those of the start, as we do.
    drained = await app.testing.drain_queue(with_recursion=False, with_safety=True)
    assert drained == counts(completed=len(jobs), retryable=1)
    drained = await app.testing.drain_queue(with_recursion=False, with_scheduled=False)
    assert drained == counts(completed=len(jobs))
    assert [job.args["ref"] for job in await app.testing.all_enqueued()] == [3] * len(jobs)


@with_clients
async def test_with_limit_only_so_many_jobs_run(app: Application) -> None:
    await enqueue(app, *(Acts.new({"ref": ref}) for ref in (1, 2, 3)))
    assert await app.testing.drain_queue(with_limit=1) == counts(completed=1)
    assert ran == [1]
    assert await app.testing.drain_queue(with_limit=2, with_recursion=False) == counts(completed=2)


@with_clients
async def test_a_drain_in_a_session_is_part_of_its_transaction(app: Application) -> None:
    async with app.session() as session:
        job = Acts.new({"do": "record"})
        await app.oban.enqueue(job, session=session.own)
        assert await app.testing.drain_queue(session=session.own) == counts(completed=1)
        assert (job.state, job.recorded) == (JobState.COMPLETED, {"answer": 42})
        assert job in session.own
        await session.awaited.rollback()
    assert await app.oban.list_jobs() == []
    assert ran == [None]


@with_clients
async def test_a_unique_job_can_be_enqueued_again_once_it_has_run(app: Application) -> None:
    def once() -> Job:
        return Acts.new(unique={"period": None, "states": ["available", "scheduled", "executing"]})

    # Procrastinate raises an error for the second one.
    first, second = await app.oban.enqueue(once()), await app.oban.enqueue(once())
    assert (second.conflict, second.id) == (True, first.id)
    assert await app.testing.drain_queue() == counts(completed=1)
    third = await app.oban.enqueue(once())
    assert (third.conflict, third.id == first.id) == (False, False)


@with_clients(name="Batch")
async def test_the_instance_can_be_named(app: Application) -> None:
    await enqueue(app, Acts.new())
    helper: Any = testing.drain_queue
    drained = helper(oban="Batch")
    assert (await drained if app.is_async else drained) == counts(completed=1)
    kind = Oban if app.is_async else SyncOban
    assert isinstance(app.client, kind)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"queue": ""}, "queue"),
    ({"with_scheduled": "tomorrow"}, "with_scheduled must be a bool or a datetime"),
    ({"with_scheduled": datetime(2030, 1, 1)}, "must carry a time zone"),
    ({"with_limit": 0}, "with_limit must be a positive number"),
    ({"with_limit": True}, "with_limit must be a positive number"),
]


@with_clients
async def test_wrong_arguments_are_clear_errors(app: Application) -> None:
    for arguments, message in WRONG:
        with pytest.raises((ConfigError, ValueError), match=message):
            await app.testing.drain_queue(**arguments)
