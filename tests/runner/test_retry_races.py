"""After a cancel and a retry while the old run continues, only the new run counts."""

from typing import Any

import pytest
from sqlalchemy import URL

from oban import Cancel, Job, JobState, Oban, Record, Snooze
from oban.repository import runs as runs_module
from tests.support.jobs import acknowledged, reaches, row_of
from tests.support.options import BRIEF, FAST_POLLING, NO_POLLING
from tests.support.waiting import eventually
from tests.support.workers import Runs

#: Every way in which an old run can end, none of which may have an effect.
OLD_ENDS: list[Any] = [
    *(None, Record("old"), Snooze(60), Cancel("old")),
    ValueError("old"),
]


def end(runs: Runs, number: int, how: Any) -> None:
    if isinstance(how, Exception):
        runs.fail(number, how)
    else:
        runs.finish(number, how)


async def restart(oban: Oban, runs: Runs) -> Job:
    """Start a job whose first run continues after a cancel and a retry, while its second run has begun."""
    job = await oban.enqueue(runs.worker.new())
    old = await runs.begun(1)
    assert await oban.cancel_job(job) is True
    assert await oban.retry_job(job) is True
    new = await runs.begun(2)
    assert (old.id, old.attempt, new.id, new.attempt) == (job.id, 1, job.id, 2)
    await eventually(old.cancelled)
    assert not new.cancelled()
    return job


async def test_an_old_run_that_ends_first_changes_nothing(url: URL) -> None:
    async with Oban(url, queues={"default": 3}, **NO_POLLING) as oban:
        for how in OLD_ENDS:
            runs = Runs()
            job = await restart(oban, runs)
            end(runs, 1, how)
            await runs.over(1)
            await acknowledged(oban)
            row = await row_of(oban, job)
            assert (row.state, row.attempt, row.errors, row.meta) == (JobState.EXECUTING, 2, [], {})
            runs.finish(2, Record("new"))
            row = await reaches(oban, job, JobState.COMPLETED)
            assert row.meta == {"recorded": True, "return": "new"}
            assert (row.attempt, row.errors, row.cancelled_at) == (2, [], None)
            assert len(runs.jobs) == 2


async def test_an_old_run_that_ends_last_changes_nothing(url: URL) -> None:
    async with Oban(url, queues={"default": 3}, **NO_POLLING) as oban:
        for how in OLD_ENDS:
            runs = Runs()
            job = await restart(oban, runs)
            runs.fail(2, ValueError("new"))
            before = await reaches(oban, job, JobState.RETRYABLE)
            end(runs, 1, how)
            await runs.over(1, 2)
            await acknowledged(oban)
            row = await row_of(oban, job)
            assert (row.state, row.attempt, row.meta) == (JobState.RETRYABLE, 2, {})
            assert row.errors == before.errors
            assert [entry["attempt"] for entry in row.errors] == [2]
            assert row.scheduled_at == before.scheduled_at


async def test_both_runs_can_end_at_the_same_moment(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 3}, **BRIEF) as oban:
        job = await restart(oban, runs)
        runs.finish(2, Record("new"))
        runs.finish(1, Record("old"))
        row = await reaches(oban, job, JobState.COMPLETED)
        await acknowledged(oban)
    assert row.meta["return"] == "new"


async def test_the_new_run_can_be_on_another_node(url: URL) -> None:
    runs = Runs()
    async with (
        Oban(url, node="first", queues={"default": 1}, **BRIEF) as first,
        Oban(url, node="second", queues={"other": 2}, **BRIEF) as second,
    ):
        job = await first.enqueue(runs.worker.new())
        old = await runs.begun(1)
        await first.cancel_job(job)
        await second.update_job(job, {"queue": "other"})
        assert await second.retry_job(job) is True
        await runs.begun(2)
        await eventually(old.cancelled)
        runs.finish(1, Record("old"))
        await acknowledged(first)
        row = await row_of(first, job)
        assert (row.state, row.attempted_by[0]) == (JobState.EXECUTING, "second")
        runs.finish(2, Record("new"))
        row = await reaches(first, job, JobState.COMPLETED)
    assert (row.meta["return"], row.errors) == ("new", [])


async def test_an_old_run_that_updates_its_own_job_is_still_the_old_run(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 3}, **BRIEF) as oban:
        job = await restart(oban, runs)
        # As a worker does to record its progress. The instance then shows the row of the second run.
        await oban.update_job(runs.jobs[0], {"meta": {"progress": 50}})
        assert runs.jobs[0].cancelled()
        runs.finish(1, Record("old"))
        await runs.over(1)
        await acknowledged(oban)
        assert (await row_of(oban, job)).state is JobState.EXECUTING
        runs.finish(2, Record("new"))
        row = await reaches(oban, job, JobState.COMPLETED)
    assert row.meta == {"progress": 50, "recorded": True, "return": "new"}


async def test_the_outcome_is_stored_whatever_a_worker_does_to_its_job(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    looks: list[object] = []
    lost = runs_module.lost_runs

    def looking(*args: Any) -> Any:
        looks.append(args)
        return lost(*args)

    monkeypatch.setattr(runs_module, "lost_runs", looking)
    async with Oban(url, queues={"default": 3}, **FAST_POLLING) as oban:
        job = await oban.enqueue(runs.worker.new())
        running = await runs.begun(1)
        running.attempt = 7
        running.id = 12345
        running.meta = {}
        begun = len(looks)
        await eventually(lambda: len(looks) >= begun + 3 or running.cancelled())
        assert not running.cancelled()
        runs.finish(1, Record("done"))
        row = await reaches(oban, job, JobState.COMPLETED)
    assert (row.attempt, row.meta["return"]) == (1, "done")


async def test_a_third_run_after_two_retries_is_the_one_that_counts(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 5}, **BRIEF) as oban:
        job = await restart(oban, runs)
        await oban.cancel_job(job)
        await oban.retry_job(job)
        assert (await runs.begun(3)).attempt == 3
        # It gives its attempt back, so the next run has the same number.
        runs.finish(3, Snooze(0))
        assert (await runs.begun(4)).attempt == 3
        for old in (1, 2):
            runs.finish(old, Record(f"old {old}"))
        await runs.over(1, 2, 3)
        await acknowledged(oban)
        assert (await row_of(oban, job)).state is JobState.EXECUTING
        runs.finish(4, Record("new"))
        row = await reaches(oban, job, JobState.COMPLETED)
    assert (row.attempt, row.meta["return"]) == (3, "new")
