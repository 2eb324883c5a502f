"""The last lines of `job.log` are stored with the attempt, however it ends and whatever worker it has."""

import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, delete

from oban import Job, JobState, Oban, Worker
from oban.models import Attempt, Producer
from oban.repository import rescue
from oban.runner.execution.run import Run
from tests.support.internals import database_of, producer_of, runner_of
from tests.support.jobs import reaches, row_of
from tests.support.options import FAST_POLLING
from tests.support.reporting_workers import (
    KINDS,
    InProcess,
    InThread,
    OnLoop,
    SlowInProcess,
    WithSessionInThread,
)
from tests.support.waiting import eventually

pytestmark = pytest.mark.execution

REPORTS: dict[str, Any] = {"progress": [[1], [3, 10, "reading"]], "lines": ["first", "second\nline"]}


@pytest.fixture
async def oban(url: URL) -> AsyncIterator[Oban]:
    options: dict[str, Any] = {**FAST_POLLING, "progress_interval": 0.02}
    async with Oban(url, queues={"default": 10}, node="here", **options) as running:
        yield running


@pytest.fixture
async def sqlite_oban(sqlite_url: URL) -> AsyncIterator[Oban]:
    async with Oban(sqlite_url, queues={"default": 10}, node="here", **FAST_POLLING) as running:
        yield running


async def have_reported(oban: Oban, count: int) -> None:
    """Wait until so many runs have logged all of their lines."""

    def have_lines() -> bool:
        logs = [run.ack("failed").log for run in runner_of(oban).queues.runs()]
        return ["second" in (log or "") for log in logs] == [True] * count

    await eventually(have_lines)


async def attempt_with_log(oban: Oban, job: Job) -> Attempt:
    """Wait until a job has one attempt with a log, and return that."""

    async def look() -> Attempt | None:
        attempts = await oban.list_attempts(job)
        assert len(attempts) <= 1
        return attempts[0] if attempts and attempts[0].log else None

    found: Attempt = await eventually(look)
    return found


def assert_reported(attempt: Attempt, outcome: str) -> None:
    assert attempt.outcome == outcome
    assert attempt.progress is not None
    assert (attempt.progress["done"], attempt.progress["total"], attempt.progress["attempt"]) == (3, 10, 1)
    assert attempt.log is not None
    lines = [(line["level"], line["text"]) for line in attempt.log]
    assert lines[:2] == [("INFO", "first"), ("INFO", "second\nline")]
    assert attempt.log[0].keys() == {"at", "level", "text"}


async def test_each_ending_keeps_the_lines(sqlite_oban: Oban) -> None:
    ends = {None: "completed", "fail": "failed", "snooze": "snoozed"}
    for end, outcome in ends.items():
        # One after another, so that the child process is used again.
        jobs = await sqlite_oban.enqueue_many([kind.new({**REPORTS, "end": end}) for kind in KINDS])
        for job in jobs:
            assert_reported(await attempt_with_log(sqlite_oban, job), outcome)


async def test_each_database_stores_the_lines(oban: Oban) -> None:
    ends = {None: "completed", "fail": "failed", "cancel": "cancelled", "record": "completed"}
    jobs = await oban.enqueue_many([OnLoop.new({**REPORTS, "end": end}) for end in ends])
    for job, outcome in zip(jobs, ends.values(), strict=True):
        assert_reported(await attempt_with_log(oban, job), outcome)


async def test_jobs_that_are_cancelled_while_they_run_keep_the_lines(
    sqlite_oban: Oban, tmp_path: Path
) -> None:
    jobs = await sqlite_oban.enqueue_many(
        [kind.new({**REPORTS, "gate": str(tmp_path / "gate")}) for kind in KINDS]
    )
    await have_reported(sqlite_oban, len(jobs))
    await sqlite_oban.cancel_many_jobs(jobs)
    for job in jobs:
        assert_reported(await attempt_with_log(sqlite_oban, job), "cancelled")


async def rescue_from(oban: Oban, job: Job) -> None:
    """Rescue a job from a node, which knows nothing of that and runs no other job."""
    await oban.pause_queue("default")
    await eventually(lambda: producer_of(oban).paused)
    async with oban.engine.begin() as connection:
        await connection.execute(delete(Producer))
    rescued = await database_of(oban).write(rescue.rescue, 0.0, 0.0)
    assert [each.id for each in rescued] == [job.id]


async def test_a_rescued_job_keeps_its_progress_and_the_lines_of_a_node_that_comes_back(
    oban: Oban, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job = await oban.enqueue(OnLoop.new({**REPORTS, "gate": str(gate), "end": "fail"}))
    await have_reported(oban, 1)

    async def has_progress() -> bool:
        return (await row_of(oban, job)).last_progress is not None

    await eventually(has_progress)
    await rescue_from(oban, job)
    (attempt,) = await oban.list_attempts(job)
    assert (attempt.outcome, attempt.log) == ("rescued", None)
    assert attempt.progress is not None
    assert attempt.progress["done"] == 3
    gate.touch()
    attempt = await attempt_with_log(oban, job)
    assert_reported(attempt, "rescued")
    assert attempt.error is None


async def test_a_rescued_attempt_does_not_get_the_progress_of_one_before_it(
    oban: Oban, tmp_path: Path
) -> None:
    job = await oban.enqueue(OnLoop.new({**REPORTS, "end": "snooze"}))
    await reaches(oban, job, JobState.SCHEDULED)
    await oban.update_job(job, {"args": {"gate": str(tmp_path / "gate")}})
    await oban.retry_job(job)
    await reaches(oban, job, JobState.EXECUTING)
    await rescue_from(oban, job)
    _, attempt = await oban.list_attempts(job)
    assert (attempt.outcome, attempt.attempt, attempt.progress) == ("rescued", 1, None)


async def test_jobs_that_are_put_back_keep_the_lines(sqlite_url: URL, tmp_path: Path) -> None:
    options: dict[str, Any] = {**FAST_POLLING, "shutdown_grace_period": 0}
    # That one can see that it should stop, and store its outcome, before it is put back.
    kinds = [kind for kind in KINDS if kind is not WithSessionInThread]
    async with Oban(sqlite_url, name="client") as client:
        async with Oban(sqlite_url, queues={"default": 10}, **options) as oban:
            jobs = await client.enqueue_many(
                [kind.new({**REPORTS, "gate": str(tmp_path / "gate")}) for kind in kinds]
            )
            await have_reported(oban, len(jobs))
        for job in jobs:
            assert_reported(await attempt_with_log(client, job), "released")


async def test_a_job_that_exceeds_its_timeout_keeps_the_lines(sqlite_url: URL, tmp_path: Path) -> None:
    async with Oban(sqlite_url, queues={"default": 3}, **FAST_POLLING, timeout=0.05) as oban:
        args = {**REPORTS, "gate": str(tmp_path / "gate")}
        jobs = await oban.enqueue_many([OnLoop.new(args), InThread.new(args), SlowInProcess.new(args)])
        for job in jobs:
            attempt = await attempt_with_log(oban, job)
            assert_reported(attempt, "failed")
            assert "timed out" in (attempt.error or "")


async def test_a_child_process_that_dies_keeps_the_lines(sqlite_oban: Oban) -> None:
    job = await sqlite_oban.enqueue(InProcess.new({**REPORTS, "end": "die"}))
    attempt = await attempt_with_log(sqlite_oban, job)
    assert_reported(attempt, "failed")
    assert "SIGKILL" in (attempt.error or "")


@pytest.mark.parametrize(
    ("options", "kinds"),
    [({"log_lines": 0}, [OnLoop, InProcess]), ({"history": False}, [OnLoop, InThread])],
    ids=["log_lines", "history"],
)
async def test_lines_can_be_turned_off(
    sqlite_url: URL, options: dict[str, Any], kinds: list[type[Worker]]
) -> None:
    async with Oban(sqlite_url, queues={"default": 2}, **FAST_POLLING, **options) as oban:
        jobs = await oban.enqueue_many([kind.new(REPORTS) for kind in kinds])
        for job in jobs:
            row = await reaches(oban, job, JobState.COMPLETED)
            assert row.last_progress is not None
            assert [attempt.log for attempt in await oban.list_attempts(job)] in ([None], [])


async def test_lines_of_workers_are_log_records(sqlite_oban: Oban, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="oban.job")
    jobs = await sqlite_oban.enqueue_many([OnLoop.new(REPORTS), InThread.new(REPORTS)])
    for job in jobs:
        await reaches(sqlite_oban, job, JobState.COMPLETED)
        records = [record for record in caplog.records if record.__dict__.get("job_id") == job.id]
        assert [record.getMessage() for record in records if record.name == "oban.job"] == REPORTS["lines"]


class Forks(Worker, executor="process"):
    """Reports from a forked child of a child process, which has the connection to the node as well.

    It reports so much that a node which took a message for each would do nothing else.
    """

    def process(self, job: Job) -> None:
        for step in range(5_000):
            job.progress(step, 5_000)
        for step in range(1_000):
            job.log.info("line %s", step)
        pid = os.fork()
        if pid == 0:
            for _ in range(100):
                job.log.info("child")
                job.progress(99)
            os._exit(0)
        os.waitpid(pid, 0)
        job.log.info("parent")


async def test_a_child_process_sends_few_messages_and_nothing_of_its_own_children(
    sqlite_oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[int] = []
    receive = Run.receive

    def counting(self: Run, progress: object, lines: list[dict[str, Any]]) -> None:
        received.append(len(lines))
        receive(self, progress, lines)

    monkeypatch.setattr(Run, "receive", counting)
    job = await sqlite_oban.enqueue(Forks.new())
    attempt = await attempt_with_log(sqlite_oban, job)
    assert attempt.outcome == "completed"
    assert attempt.log is not None
    assert [line["text"] for line in attempt.log] == [
        *(f"line {step}" for step in range(901, 1000)),
        "parent",
    ]
    assert attempt.progress is not None
    assert attempt.progress["done"] == 4_999
    assert len(received) < 200
