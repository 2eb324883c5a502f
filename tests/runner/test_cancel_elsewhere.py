"""A cancel, and a retry or delete after it, reaches a job that runs on another node."""

from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Cancel, Job, JobState, Oban
from oban.telemetry import JobsCancelled
from tests.support.internals import runner_of
from tests.support.jobs import acknowledged, reaches, row_of
from tests.support.options import BRIEF, NO_POLLING
from tests.support.rows import insert_rows, row
from tests.support.telemetry import recording
from tests.support.waiting import eventually, quiet
from tests.support.workers import Runs

pytestmark = pytest.mark.either_driver


async def test_a_cancel_from_a_client_reaches_the_node_at_once(url: URL) -> None:
    async with (
        Oban(url, node="worker", queues={"default": 3}, **NO_POLLING) as worker,
        Oban(url, node="client") as client,
    ):
        untouched = Runs()
        other = await client.enqueue(untouched.worker.new())
        await untouched.begun(1)
        for then in ("nothing", "retry", "delete"):
            runs = Runs()
            job = await client.enqueue(runs.worker.new())
            running = await runs.begun(1)
            await quiet()
            # In one transaction, so the node never sees a cancelled row.
            async with client.engine.begin() as connection:
                assert await client.cancel_job(job, session=connection)
                if then == "retry":
                    # Moved, so this node does not fetch it again.
                    await client.update_job(job, {"queue": "nobody"}, session=connection)
                    assert await client.retry_job(job, session=connection)
                if then == "delete":
                    assert await client.delete_job(job, session=connection)
            await eventually(running.cancelled)
            runs.fail(1, ValueError("late"))
            await runs.over(1)
            await acknowledged(worker)
            row: Job | None = await client.get_job(job.id)
            if then == "delete":
                assert row is None
            else:
                expected = (JobState.AVAILABLE, 0) if then == "retry" else (JobState.CANCELLED, 1)
                assert row is not None
                assert (row.state, len(row.errors)) == expected
        assert not untouched.jobs[0].cancelled()
        untouched.finish(1)
        await acknowledged(worker)
        assert (await row_of(client, other)).state is JobState.COMPLETED


async def test_a_cancel_that_is_rolled_back_reaches_no_node(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 2}, poll_interval=300, **BRIEF) as oban:
        job = await oban.enqueue(runs.worker.new())
        running = await runs.begun(1)
        async with AsyncSession(oban.engine) as session:
            assert await oban.cancel_job(job.id, session=session)
            await session.rollback()
        await quiet()
        assert not running.cancelled()
        runs.finish(1)
        await acknowledged(oban)
        assert (await row_of(oban, job)).state is JobState.COMPLETED


async def test_a_signal_about_an_earlier_run_or_a_foreign_job_cancels_nothing(
    url: URL,
) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 2}, **NO_POLLING) as oban:
        job = await oban.enqueue(runs.worker.new())
        running = await runs.begun(1)
        garbage: list[dict[str, Any]] = [
            {"action": "pkill", "job_id": job.id, "done": True},
            {"action": "pkill", "job_id": job.id + 1},
            *({"action": "pkill", "job_id": id_} for id_ in (True, 0, -1, 2**63, 2**64)),
            {"action": "pkill", "job_id": "1"},
            {"action": "pkill"},
            {"action": 5},
            {"job_id": job.id},
            {},
        ]
        for payload in garbage:
            runner_of(oban).notifier.dispatch("signal", payload)
            runner_of(oban).notifier.dispatch("insert", payload)
            runner_of(oban).notifier.dispatch("unknown", payload)
        await quiet()
        assert not running.cancelled()
        await oban.cancel_job(job)
        await eventually(running.cancelled)
        runs.finish(1)


@pytest.mark.parametrize("ending", [Cancel("enough"), ValueError("enough"), None])
async def test_a_job_that_another_implementation_asks_to_cancel_is_cancelled(
    postgresql_url: URL, ending: Any
) -> None:
    runs = Runs()
    async with Oban(postgresql_url, queues={"default": 3}, **NO_POLLING) as oban:
        other, job = [await oban.enqueue(runs.worker.new()) for _ in range(2)]
        await runs.begun(2)
        running = {running.id: running for running in runs.jobs}
        number = 1 + [running.id for running in runs.jobs].index(job.id)
        # Other implementations only send a request; the job executes until its node receives that.
        with recording(oban, JobsCancelled) as recorder:
            runner_of(oban).notifier.receive("signal", f'{{"action": "pkill", "job_id": {job.id}}}')
            await eventually(running[job.id].cancelled)
        assert [(event.count, event.in_transaction) for event in recorder.of(JobsCancelled)] == [(1, False)]
        row = await row_of(oban, job)
        assert row.state is JobState.CANCELLED
        assert row.cancelled_at is not None
        if isinstance(ending, ValueError):
            runs.fail(number, ending)
        else:
            runs.finish(number, ending)
        await runs.over(number)
        await acknowledged(oban)
        row = await row_of(oban, job)
        assert (row.state, row.attempt) == (JobState.CANCELLED, 1)
        assert ["enough" in entry["error"] for entry in row.errors] == ([] if ending is None else [True])
        assert not running[other.id].cancelled()
        runs.finish_all()


async def test_a_request_to_cancel_can_arrive_before_the_job_begins(postgresql_url: URL) -> None:
    async with Oban(postgresql_url, queues={"default": 1}, **NO_POLLING) as oban:
        (producer,) = runner_of(oban).producers.values()
        # Claimed, as between a fetch and its answer; the second one by another node.
        owners = (producer.owner, "somebody else's")
        rows = [row("executing", attempted_by=["node", owner]) for owner in owners]
        ids = await insert_rows(oban.engine, *rows)
        for id_ in ids:
            runner_of(oban).notifier.dispatch("signal", {"action": "pkill", "job_id": id_})
        await reaches(oban, ids[0], JobState.CANCELLED)
        await quiet()
        assert (await row_of(oban, ids[1])).state is JobState.EXECUTING


async def test_a_request_to_cancel_during_an_outage_of_the_database_is_retried(
    postgresql_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    async with Oban(postgresql_url, queues={"default": 2}, **NO_POLLING) as oban:
        job = await oban.enqueue(runs.worker.new())
        running = await runs.begun(1)
        checker = runner_of(oban).cancellation
        with monkeypatch.context() as away:
            away.setattr(checker, "database", None)
            runner_of(oban).notifier.dispatch("signal", {"action": "pkill", "job_id": job.id})
            await eventually(lambda: checker.failures)
            assert not running.cancelled()
        await eventually(running.cancelled)
        assert (await row_of(oban, job)).state is JobState.CANCELLED
        runs.finish(1)
