"""A cancel, and what follows on it, reaches a job that runs on another node."""

from typing import Any

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, JobState, Oban
from tests.runner.support import BRIEF, NO_POLLING, Runs, acknowledged, quiet, row_of
from tests.waiting import eventually


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
            # One transaction, so that no cancelled row is ever to be seen by the node.
            async with client.engine.begin() as connection:
                assert await client.cancel_job(job, session=connection)
                if then == "retry":
                    # Not to be fetched again by this node.
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


async def test_a_cancel_that_is_rolled_back_reaches_nobody(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 2}, poll_interval=30, **BRIEF) as oban:
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


async def test_a_signal_about_an_earlier_run_or_a_foreign_job_stops_nobody(
    url: URL,
) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 2}, **NO_POLLING) as oban:
        job = await oban.enqueue(runs.worker.new())
        running = await runs.begun(1)
        assert oban._runner is not None
        garbage: list[dict[str, Any]] = [
            {"action": "pkill", "job_id": job.id},
            {"action": "pkill", "job_id": job.id + 1},
            {"action": "pkill", "job_id": "1"},
            {"action": "pkill"},
            {"action": 5},
            {"job_id": job.id},
            {},
        ]
        for payload in garbage:
            oban._runner.notifier.dispatch("signal", payload)
            oban._runner.notifier.dispatch("insert", payload)
            oban._runner.notifier.dispatch("unknown", payload)
        await quiet()
        assert not running.cancelled()
        await oban.cancel_job(job)
        await eventually(running.cancelled)
        runs.finish(1)
