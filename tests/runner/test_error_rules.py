"""Exceptions decide the outcome of an attempt: raised outcomes, and the options that name classes."""

import asyncio
import copy
import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from oban import CallNext, Cancel, Discard, InvalidJob, Job, JobState, Oban, Snooze, Worker
from tests.runner.effects import RUNNING, effect, effects, nothing_leaked, worker
from tests.support.ending_workers import WORKERS, Decorated, Dies, PaymentFailed, SlowInChild, function
from tests.support.jobs import reaches
from tests.support.options import FAST_POLLING
from tests.support.waiting import eventually

pytestmark = pytest.mark.either_driver

assert issubclass(Decorated, Worker)

#: The state, the end of the error in the row, and the seconds until the job runs again.
ENDINGS: dict[str, tuple[JobState, str | None, float | None]] = {
    "discard": (JobState.DISCARDED, "no such account", None),
    "raise cancel": (JobState.CANCELLED, "no such account", None),
    "raise discard": (JobState.DISCARDED, "no such account", None),
    "raise snooze": (JobState.SCHEDULED, None, 60),
    "raise a class": (JobState.CANCELLED, "cancelled by its worker", None),
    "raise own": (JobState.CANCELLED, "never mind", None),
    "busy": (JobState.RETRYABLE, "Busy: try again", 90),
    "later": (JobState.SCHEDULED, None, 60),
    "gone": (JobState.CANCELLED, "Gone: moved", None),
    "hopeless": (JobState.DISCARDED, "Hopeless: no", None),
    "hopeless and opaque": (JobState.DISCARDED, "HopelessAndOpaque: opaque", None),
}


@pytest.mark.parametrize(
    "made",
    [*WORKERS.values(), function.worker, Decorated],
    ids=[*WORKERS, "function", "decorated"],
)
async def test_exceptions_decide_the_outcome_in_every_executor(sqlite_url: URL, made: type[Worker]) -> None:
    async with Oban(sqlite_url, queues={"default": 5}, **FAST_POLLING) as oban:
        jobs = await oban.enqueue_many([made.new({"do": do}) for do in ENDINGS])
        for job, (do, (state, error, delay)) in zip(jobs, ENDINGS.items(), strict=True):
            row = await reaches(oban, job, state)
            shown = [entry["error"] for entry in row.errors]
            assert len(shown) == (error is not None), (do, shown)
            if error is not None:
                assert shown[0].endswith(error), (do, shown)
            # An exception is stored with its traceback, a reason as it is.
            assert (shown == [error]) == (do.startswith("raise") or do == "discard") or error is None
            assert row.attempt == (0 if state is JobState.SCHEDULED else 1)
            assert row.meta == ({"snoozed": 1} if state is JobState.SCHEDULED else {})
            if delay is not None:
                assert row.attempted_at is not None
                waits = row.scheduled_at - row.attempted_at
                assert timedelta(seconds=delay) <= waits <= timedelta(seconds=delay + 10)
            assert (row.discarded_at is not None) == (state is JobState.DISCARDED)


@pytest.mark.parametrize("made", WORKERS.values(), ids=WORKERS)
async def test_middleware_sees_what_was_raised_and_can_change_it(sqlite_url: URL, made: type[Worker]) -> None:
    seen: dict[str, BaseException] = {}

    async def middleware(job: Job, call_next: CallNext) -> Any:
        try:
            return await call_next(job)
        except (Discard, PaymentFailed) as error:
            seen[job.args["do"]] = copy.copy(error)
            raise Cancel("changed") from None

    options: dict[str, Any] = {"queues": {"default": 5}, "middleware": [middleware], **FAST_POLLING}
    async with Oban(sqlite_url, **options) as oban:
        for do in ("raise discard", "payment"):
            row = await reaches(oban, await oban.enqueue(made.new({"do": do})), JobState.CANCELLED)
            assert [entry["error"] for entry in row.errors] == ["changed"]
    assert seen["raise discard"] == Discard("no such account")
    assert str(seen["payment"]) == "account 7: no money"


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Cancel("why"), JobState.CANCELLED),
        (Discard("why"), JobState.DISCARDED),
        (Snooze(60), JobState.SCHEDULED),
    ],
    ids=["cancel", "discard", "snooze"],
)
async def test_a_returned_outcome_commits_the_session_and_a_raised_one_rolls_it_back(
    one_table: URL, form: str, outcome: Any, state: JobState
) -> None:
    def body(job: Job, session: Session) -> Any:
        effect(job, session)
        session.flush()
        if job.args["raise"]:
            # A copy, as an exception keeps the frames, and the session in them, alive.
            raise copy.copy(outcome)
        return outcome

    made = worker(form, body)
    async with Oban(one_table, **RUNNING) as oban:
        returned = await oban.enqueue(made.new({"raise": False}))
        raised = await oban.enqueue(made.new({"raise": True}))
        rows = [await reaches(oban, job, state) for job in (returned, raised)]
        assert await effects(oban) == [f"{returned.id}/1"]
        texts = [[entry["error"] for entry in row.errors] for row in rows]
        assert texts[0] == texts[1] == ([] if state is JobState.SCHEDULED else ["why"])
        await eventually(lambda: nothing_leaked(oban))


class Slow(Worker, timeout=0.05, discard_on=TimeoutError):
    async def process(self, job: Job) -> None:
        await asyncio.Event().wait()


class SlowInThread(Worker, timeout=0.05, discard_on=TimeoutError):
    def process(self, job: Job) -> None:
        stop = threading.Event()
        while not job.cancelled():
            stop.wait(0.005)


class Interrupted(Worker, timeout=0.05):
    """Raises an outcome when it is interrupted."""

    async def process(self, job: Job) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise Snooze(60)


@pytest.mark.parametrize("made", [Slow, SlowInThread, SlowInChild])
async def test_a_timeout_is_a_timeout_error(sqlite_url: URL, made: type[Worker]) -> None:
    async with Oban(sqlite_url, queues={"default": 5}, **FAST_POLLING) as oban:
        row = await reaches(oban, await oban.enqueue(made.new()), JobState.DISCARDED)
    assert "timed out after 0." in row.errors[0]["error"]


async def test_a_child_process_that_dies_is_a_child_process_error(sqlite_url: URL) -> None:
    async with Oban(sqlite_url, queues={"default": 5}, **FAST_POLLING) as oban:
        row = await reaches(oban, await oban.enqueue(Dies.new()), JobState.CANCELLED)
    assert row.errors[0]["error"].endswith("ended with exit code 3")


class Numbers(TypedDict):
    n: int


class Typed(Worker[Numbers], discard_on=InvalidJob):
    async def process(self, job: Job, args: Numbers) -> None:
        pass


async def test_args_that_do_not_fit_are_an_invalid_job(sqlite_url: URL) -> None:
    async with Oban(sqlite_url, queues={"default": 5}, **FAST_POLLING) as oban:
        job = await oban.enqueue(Job(worker=Typed.worker_name, args={"n": "x"}))
        row = await reaches(oban, job, JobState.DISCARDED)
    assert "InvalidJob: args" in row.errors[0]["error"]


async def test_an_outcome_in_a_group_is_a_failure(sqlite_url: URL) -> None:
    class Grouped(Worker):
        async def process(self, job: Job) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.cancels())

        async def cancels(self) -> None:
            raise Cancel("why")

    async with Oban(sqlite_url, queues={"default": 5}, **FAST_POLLING) as oban:
        row = await reaches(oban, await oban.enqueue(Grouped.new()), JobState.RETRYABLE)
    assert "ExceptionGroup" in row.errors[0]["error"]


async def test_an_interrupted_job_can_still_raise_an_outcome(sqlite_url: URL) -> None:
    async with Oban(sqlite_url, queues={"default": 5}, **FAST_POLLING) as oban:
        row = await reaches(oban, await oban.enqueue(Interrupted.new()), JobState.SCHEDULED)
    assert row.meta == {"snoozed": 1}


async def test_a_discarded_job_can_be_retried(sqlite_url: URL) -> None:
    async with Oban(sqlite_url, queues={"default": 5}, **FAST_POLLING) as oban:
        job = await oban.enqueue(function.new("raise discard"))
        await reaches(oban, job, JobState.DISCARDED)
        assert await oban.retry_job(job)

        async def discarded_again() -> bool:
            row = await oban.get_job(job.id)
            return row is not None and [it["attempt"] for it in row.errors] == [1, 2]

        await eventually(discarded_again)
