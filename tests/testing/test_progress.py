"""Jobs that a test runs report progress and log lines as on a node."""

import logging
from typing import Any

import pytest

from oban import Job, JobState, Oban, SyncOban, Worker
from oban.testing import drain_queue, mode, process_job
from tests.support.reporting_workers import InProcess, InThread, OnLoop, WithSession, WithSessionInThread

ARGS: dict[str, Any] = {"progress": [[1], [3, 10, "reading"]], "lines": ["first", "second"]}


def assert_reported(job: Job | None) -> None:
    assert job is not None
    assert job.state == JobState.COMPLETED
    assert job.last_progress is not None
    assert (job.last_progress.done, job.last_progress.total, job.last_progress.message) == (3, 10, "reading")
    assert job.meta["own"] == 1


@pytest.mark.parametrize("kind", [OnLoop, InThread, InProcess, WithSession, WithSessionInThread])
async def test_a_drain_stores_progress(oban: Oban, kind: type[Worker]) -> None:
    job = await oban.enqueue(kind.new(ARGS, meta={"own": 1}))
    counts = await drain_queue("default", oban)
    assert counts["completed"] == 1
    assert_reported(await oban.get_job(job.id))


@pytest.mark.parametrize("kind", [OnLoop, InThread])
def test_a_drain_of_a_sync_client_stores_progress(sync_oban: SyncOban, kind: type[Worker]) -> None:
    job = sync_oban.enqueue(kind.new(ARGS, meta={"own": 1}))
    drain_queue("default", sync_oban)
    assert_reported(sync_oban.get_job(job.id))


async def test_jobs_that_run_at_once_store_progress(oban: Oban) -> None:
    with mode("inline"):
        job = await oban.enqueue(OnLoop.new(ARGS, meta={"own": 1}))
    assert_reported(await oban.get_job(job.id))


@pytest.mark.parametrize("kind", [OnLoop, InThread])
async def test_process_job_takes_reports(kind: type[Worker]) -> None:
    assert await process_job(kind.new(ARGS)) is None


async def test_process_job_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="oban.job")
    await process_job(OnLoop.new(ARGS))
    assert [record.getMessage() for record in caplog.records] == ["first", "second"]
    assert {record.__dict__["attempt"] for record in caplog.records} == {1}


async def test_a_job_shows_its_own_progress() -> None:
    class Looks(Worker, name="tests.testing.Looks"):
        async def process(self, job: Job) -> None:
            assert job.current_progress is None
            job.progress(5)
            assert job.current_progress is not None
            assert job.current_progress == job.last_progress
            assert job.current_progress.done == 5

    await process_job(Looks.new())


async def test_a_worker_that_a_test_calls_itself_reports_nothing() -> None:
    job = OnLoop.new(ARGS)
    assert await OnLoop().process(job) is None
    assert job.last_progress is None
