"""Several processes work on one database."""

from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import URL, func, select

from oban import Job, JobState, Oban
from tests.runner.node import Noted, Watchful
from tests.runner.processes import node
from tests.support.jobs import reaches, row_of
from tests.support.waiting import eventually, quiet

pytestmark = pytest.mark.either_driver

JOBS = 5000


@pytest.mark.slow
async def test_two_processes_run_each_of_5000_jobs_once(url: URL, tmp_path: Path) -> None:
    async with (
        Oban(url) as client,
        node(url, tmp_path / "first") as first,
        node(url, tmp_path / "second") as second,
    ):
        enqueued: list[int] = []
        # A third process writes while the two nodes work.
        for _ in range(10):
            jobs = await client.enqueue_many([Noted.new() for _ in range(JOBS // 10)])
            enqueued += [job.id for job in jobs]

        async def ended() -> bool:
            query = select(func.count()).where(Job.state == JobState.COMPLETED)
            async with client.engine.connect() as connection:
                return bool(await connection.scalar(query) == JOBS)

        await eventually(ended, timeout=40)
        # Their stop checks that nothing was logged, such as a lock.
        await first.stop()
        await second.stop()
        rows = await client.list_jobs()

    ran = Counter(first.ran() + second.ran())
    assert sorted(ran) == sorted(enqueued)
    assert set(ran.values()) == {1}
    assert first.ran()
    assert second.ran()
    assert {(row.state, row.attempt, len(row.errors)) for row in rows} == {(JobState.COMPLETED, 1, 0)}
    by_node = Counter(row.attempted_by[0] for row in rows)
    assert sorted(by_node.values()) == sorted([len(first.ran()), len(second.ran())])


async def test_a_job_that_another_process_enqueues_starts_at_once(url: URL, tmp_path: Path) -> None:
    async with Oban(url) as client, node(url, tmp_path / "ledger", poll_interval=300):
        await quiet()
        for _ in range(2):
            await reaches(client, await client.enqueue(Noted.new()), JobState.COMPLETED)
            await quiet()


async def test_management_calls_of_another_process_take_effect_at_once(url: URL, tmp_path: Path) -> None:
    async with Oban(url) as client, node(url, tmp_path / "ledger", poll_interval=300):
        scheduled = await client.enqueue(Noted.new(schedule_in=3600))
        elsewhere = await client.enqueue(Noted.new(queue="nobody"))
        await quiet()
        await client.update_job(scheduled, {"schedule_in": 0})
        await reaches(client, scheduled, JobState.COMPLETED)
        await quiet()
        await client.update_job(elsewhere, {"queue": "default"})
        await reaches(client, elsewhere, JobState.COMPLETED)
        await quiet()
        await client.retry_job(elsewhere)

        async def ran_twice() -> bool:
            row = await row_of(client, elsewhere)
            return (row.state, row.attempt) == (JobState.COMPLETED, 2)

        await eventually(ran_twice)


async def test_a_cancel_reaches_the_job_in_another_process_at_once(url: URL, tmp_path: Path) -> None:
    async with Oban(url) as client, node(url, tmp_path / "ledger", poll_interval=300) as other:
        job = await client.enqueue(Watchful.new())
        await other.prints("started")
        await quiet()
        assert await client.cancel_job(job)
        await other.prints("cancelled")

        async def appended() -> bool:
            return bool((await row_of(client, job)).errors)

        await eventually(appended)
        row = await row_of(client, job)
    assert row.state is JobState.CANCELLED
    assert [entry["error"] for entry in row.errors] == [f"seen by process {other.process.pid}"]
