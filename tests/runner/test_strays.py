"""Jobs that a fetch has claimed but the producer does not have: lost answers, and rows it cannot read."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import URL

from oban import JobState, Oban
from oban.repository import acknowledge, fetch, runs
from oban.repository.acknowledge import Ack
from tests.support.faulty_rows import Unreadable
from tests.support.internals import database_of, look_for_strays, producer_of, runner_of
from tests.support.jobs import reaches, row_of
from tests.support.options import BRIEF, NO_POLLING
from tests.support.waiting import eventually
from tests.support.workers import Noop, Runs


class LostAnswers:
    """Loses the answers to the next fetches that claim jobs, after their commit."""

    def __init__(self, oban: Oban, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
        self.left = times
        self.claimed: list[int] = []
        self._write = runner_of(oban).database.write
        monkeypatch.setattr(runner_of(oban).database, "write", self)

    async def __call__(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        result = await self._write(function, *args, **kwargs)
        if function is fetch.acknowledge_and_fetch and result and self.left:
            self.left -= 1
            self.claimed += [job.id for job in result]
            raise ConnectionError("after the commit")
        return result


async def test_jobs_of_a_fetch_with_a_lost_answer_run_at_once_and_once(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 5}, **NO_POLLING) as oban:
        lost = LostAnswers(oban, monkeypatch)
        jobs = await oban.enqueue_many([runs.worker.new() for _ in range(3)])
        await runs.begun(3)
        assert lost.claimed == [job.id for job in jobs]
        runs.finish_all()
        for job in jobs:
            row = await reaches(oban, job, JobState.COMPLETED)
            assert (row.attempt, row.errors) == (1, [])
        assert sorted(job.id for job in runs.jobs) == [job.id for job in jobs]


async def test_a_claim_that_appears_late_is_found_by_a_periodic_check(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 5}, lease=2.0, **BRIEF) as oban:
        producer = producer_of(oban)
        # As if the server had executed the statement of a broken connection after all.
        job = await oban.enqueue(runs.worker.new(queue="elsewhere"))
        await database_of(oban).write(fetch.fetch, "elsewhere", 1, "node", producer.owner)
        await runs.begun(1)
        runs.finish_all()
        assert (await reaches(oban, job, JobState.COMPLETED)).attempt == 1


async def test_a_stop_puts_back_jobs_that_were_claimed_and_never_arrived(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The worker does not end on its own, in case the node runs the job just before it stops.
    runs = Runs()
    async with Oban(url, name="client") as client:
        oban = Oban(url, queues={"default": 5}, **{**NO_POLLING, "shutdown_grace_period": 0})
        await oban.start()
        lost = LostAnswers(oban, monkeypatch, times=1000)
        job = await client.enqueue(runs.worker.new())
        await oban.enqueue(Noop.new())
        await eventually(lambda: lost.claimed)
        await oban.stop()
        row = await row_of(client, job)
        assert (row.state, row.attempt, row.errors) == (JobState.AVAILABLE, 0, [])


async def test_a_row_that_cannot_be_read_is_discarded_with_the_reason_and_stops_no_other(
    url: URL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unreadable = Unreadable(monkeypatch)
    async with Oban(url, name="client") as client:
        jobs = await client.enqueue_many([Noop.new(priority=number % 3) for number in range(30)])
        unreadable.ids = {job.id for job in jobs[::7]}
        async with Oban(url, queues={"default": 3}, **NO_POLLING):
            for job in jobs:
                bad = job.id in unreadable.ids
                row = await reaches(client, job, JobState.DISCARDED if bad else JobState.COMPLETED)
                assert row.attempt == 1
                assert [entry["error"] for entry in row.errors] == (
                    ["the row cannot be read: OverflowError: date value out of range"] if bad else []
                )
    logged = [record for record in caplog.records if record.name == "oban.executor"]
    assert {(it.__dict__["job_id"], it.__dict__["state"]) for it in logged} == {
        (id_, "discarded") for id_ in unreadable.ids
    }
    assert len(logged) == len(unreadable.ids)
    assert all(it.levelname == "ERROR" and it.exc_info for it in logged)


async def test_rows_that_cannot_be_read_do_not_lose_the_outcomes_stored_with_their_fetch(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    unreadable = Unreadable(monkeypatch)
    async with Oban(url, queues={"default": 2}, **NO_POLLING) as oban:
        first = await oban.enqueue_many([runs.worker.new() for _ in range(2)])
        await runs.begun(2)
        bad, good = await oban.enqueue_many([Noop.new() for _ in range(2)])
        unreadable.ids = {bad.id}
        runs.finish(1)
        runs.fail(2, ValueError("no"))
        await reaches(oban, good, JobState.COMPLETED)
        await reaches(oban, bad, JobState.DISCARDED)
        assert (await row_of(oban, first[0])).state is JobState.COMPLETED
        assert (await row_of(oban, first[1])).state is JobState.RETRYABLE


async def test_no_more_jobs_run_than_the_limit_when_answers_are_lost(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 3}, poll_interval=0.05, **BRIEF) as oban:
        LostAnswers(oban, monkeypatch, times=5)
        jobs = await oban.enqueue_many([runs.worker.new() for _ in range(9)])
        for begun in (3, 6, 9):
            await runs.begun(begun)
            await asyncio.sleep(0)
            assert len(runs.jobs) == begun
            runs.finish_all()
        for job in jobs:
            assert (await reaches(oban, job, JobState.COMPLETED)).attempt == 1


async def test_a_stray_that_was_taken_over_meanwhile_is_left_to_its_new_owner(oban: Oban) -> None:
    job = await oban.enqueue(Noop.new())
    await database_of(oban).write(fetch.fetch, "default", 1, "here", "me")
    run = (job.id, 1, "me")
    assert await database_of(oban).read(runs.unknown_runs, "me", ()) == [run]
    assert await database_of(oban).read(runs.load_run, run) is not None
    await database_of(oban).write(acknowledge.acknowledge, [Ack(*run, "rescued", rescued=1)])
    assert await database_of(oban).read(runs.load_run, run) is None
    await database_of(oban).write(fetch.fetch, "default", 1, "there", "other")
    assert await database_of(oban).read(runs.load_run, run) is None
    await oban.cancel_job(job.id)
    assert await database_of(oban).read(runs.load_run, (job.id, 2, "other")) is None


async def test_a_stray_that_is_found_while_the_node_stops_goes_back(url: URL) -> None:
    runs = Runs()
    async with Oban(url, name="client") as client:
        oban = Oban(url, queues={"default": 5}, **NO_POLLING | {"shutdown_grace_period": 20})
        await oban.start()
        producer = producer_of(oban)
        busy = await client.enqueue(runs.worker.new())
        await runs.begun(1)
        stopping = asyncio.create_task(oban.stop())
        await eventually(lambda: not producer.fetching)
        # As if the server had executed the statement of a broken connection after all.
        stray = await client.enqueue(runs.worker.new(queue="elsewhere"))
        await database_of(client).write(fetch.fetch, "elsewhere", 1, "node", producer.owner)
        look_for_strays(producer)
        await reaches(client, stray, JobState.AVAILABLE)
        runs.finish(1)
        await stopping
        assert len(runs.jobs) == 1
        assert (await row_of(client, stray)).attempt == 0
        assert (await row_of(client, busy)).state is JobState.COMPLETED
