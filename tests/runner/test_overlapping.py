"""Two turns of a producer overlap while its queue has more jobs than free slots."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import URL, func, select

from oban import Job, JobState, Oban, Worker
from oban.repository import fetch
from oban.runner.execution.producer import OVERLAPPED_LIMIT
from tests.support.faulty_rows import Unreadable
from tests.support.internals import is_running, producer_of, runner_of
from tests.support.options import NO_POLLING
from tests.support.waiting import eventually

LIMIT = 2 * OVERLAPPED_LIMIT


class Turns:
    """Counts the turns of a runner that overlap, and can delay turns or lose their answers."""

    def __init__(self, oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
        self.under_way = self.most = 0
        #: The jobs that each turn asked for, and the most slots that were taken or asked for at once.
        self.demands: list[int] = []
        self.asked = self.places = 0
        #: From this turn on, turns wait after their commit until `may_end` is set.
        self.held_from = 1_000_000
        self.may_end = asyncio.Event()
        #: The turns whose answer is lost after the commit, and the jobs in those answers.
        self.losing: set[int] = set()
        self.lost: list[int] = []
        self.producer = producer_of(oban)
        self._write = runner_of(oban).database.write
        monkeypatch.setattr(runner_of(oban).database, "write", self)

    async def __call__(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        if function is not fetch.acknowledge_and_fetch:
            return await self._write(function, *args, **kwargs)
        demand = args[2]
        self.demands.append(demand)
        number = len(self.demands)
        self.asked += demand
        self.places = max(self.places, self.asked + len(self.producer.runs))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            result = await self._write(function, *args, **kwargs)
            if number >= self.held_from:
                await self.may_end.wait()
            if number in self.losing:
                self.lost += [job.id for job in result]
                raise ConnectionError("after the commit")
            return result
        finally:
            self.under_way -= 1
            self.asked -= demand


class Counted:
    """A worker that records the ids of its jobs."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        counted = self

        class Count(Worker):
            async def process(self, job: Job) -> None:
                # Jobs end at different moments, some of them in the same pass of the loop.
                for _ in range(job.id % 5):
                    await asyncio.sleep(0)
                counted.ran.append(job.id)

        self.worker = Count


def at_once(url: URL) -> int:
    """How many turns can overlap: SQLite has one writer."""
    return 1 if url.drivername.startswith("sqlite") else 2


async def enqueued(oban: Oban, counted: Counted, number: int) -> list[int]:
    return [job.id for job in await oban.enqueue_many([counted.worker.new() for _ in range(number)])]


async def in_state(oban: Oban, state: JobState) -> list[Job]:
    return await oban.list_jobs(select(Job).where(Job.state == state).order_by(Job.id))


async def all_ended(oban: Oban, number: int) -> None:
    """Wait until that many jobs have ended, as long as their number grows."""
    ended = select(func.count()).where(Job.state.in_([JobState.COMPLETED, JobState.DISCARDED]))
    seen = [0]

    async def done() -> bool:
        async with oban.engine.connect() as connection:
            seen[0] = (await connection.execute(ended)).scalar_one()
        return seen[0] == number

    await eventually(done, progress=lambda: seen[0])


async def test_two_turns_overlap_while_jobs_wait_and_no_more_run_than_the_limit(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted()
    async with Oban(url, queues={"default": LIMIT}, **NO_POLLING) as oban:
        turns = Turns(oban, monkeypatch)
        ids = await enqueued(oban, counted, 10 * LIMIT)
        await all_ended(oban, len(ids))
        assert turns.most == at_once(url)
        assert turns.places <= LIMIT
        assert sorted(counted.ran) == ids
        assert {job.attempt for job in await in_state(oban, JobState.COMPLETED)} == {1}


async def test_a_small_limit_has_one_turn_at_a_time(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted()
    async with Oban(url, queues={"default": OVERLAPPED_LIMIT - 1}, **NO_POLLING) as oban:
        turns = Turns(oban, monkeypatch)
        ids = await enqueued(oban, counted, 10 * OVERLAPPED_LIMIT)
        await all_ended(oban, len(ids))
        assert turns.most == 1


async def test_lost_answers_of_overlapping_turns_lose_no_job_and_repeat_none(
    url: URL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    counted = Counted()
    async with Oban(url, queues={"default": LIMIT}, **NO_POLLING) as oban:
        turns = Turns(oban, monkeypatch)
        turns.losing = {2, 3, 6, 8, 9}
        ids = await enqueued(oban, counted, 10 * LIMIT)
        await all_ended(oban, len(ids))
        assert turns.lost
        reported = [record for record in caplog.records if "after the commit" in record.getMessage()]
        assert len(reported) >= 2
        assert turns.places <= LIMIT
        assert sorted(counted.ran) == ids
        assert {job.attempt for job in await in_state(oban, JobState.COMPLETED)} == {1}


async def test_the_failure_of_an_overlapping_turn_is_reported(
    url: URL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    counted = Counted()
    async with Oban(url, queues={"default": LIMIT}, **NO_POLLING) as oban:
        turns = Turns(oban, monkeypatch)
        # The first turn finds out that jobs are waiting; the second one overlaps with the third.
        turns.losing = {2}
        ids = await enqueued(oban, counted, 4 * LIMIT)
        await all_ended(oban, len(ids))
        reported = [record for record in caplog.records if "after the commit" in record.getMessage()]
        assert len(reported) == 1
        assert sorted(counted.ran) == ids


async def test_unreadable_rows_stop_no_other_job_of_overlapping_turns(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted()
    unreadable = Unreadable(monkeypatch)
    bad = unreadable.ids = set(range(LIMIT + 3, 6 * LIMIT, 2 * LIMIT))
    async with Oban(url, name="client") as client, Oban(url, queues={"default": LIMIT}, **NO_POLLING) as oban:
        ids = await enqueued(oban, counted, 6 * LIMIT)
        await all_ended(client, len(ids))
        assert sorted(counted.ran) == [id_ for id_ in ids if id_ not in bad]
        assert [job.id for job in await in_state(client, JobState.DISCARDED)] == sorted(bad)


async def test_a_stop_waits_for_overlapping_turns_and_puts_their_jobs_back(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted()
    async with Oban(url, name="client") as client:
        oban = Oban(url, queues={"default": LIMIT}, **NO_POLLING)
        await oban.start()
        turns = Turns(oban, monkeypatch)
        turns.held_from = 4
        ids = await enqueued(oban, counted, 10 * LIMIT)
        await eventually(lambda: len(turns.demands) >= 4 and turns.under_way == at_once(url))
        assert await in_state(client, JobState.EXECUTING)
        stopping = asyncio.create_task(oban.stop())
        await eventually(lambda: not is_running(oban) or not _fetching(oban))
        turns.may_end.set()
        await stopping
        waiting = await in_state(client, JobState.AVAILABLE)
        completed = await in_state(client, JobState.COMPLETED)
        assert sorted(counted.ran) == [job.id for job in completed]
        assert sorted(job.id for job in waiting + completed) == ids
        assert {job.attempt for job in waiting} == {0}


def _fetching(oban: Oban) -> bool:
    return any(producer.fetching for producer in runner_of(oban).producers.values())


async def test_a_pause_waits_for_overlapping_turns_and_nothing_is_fetched_after_it(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted()
    async with Oban(url, queues={"default": LIMIT}, **NO_POLLING) as oban:
        turns = Turns(oban, monkeypatch)
        turns.held_from = 4
        await enqueued(oban, counted, 10 * LIMIT)
        await eventually(lambda: len(turns.demands) >= 4 and turns.under_way == at_once(url))
        producer = turns.producer
        pausing = asyncio.create_task(oban.pause_queue("default"))
        await eventually(lambda: producer.paused)
        before = len(turns.demands)
        assert not pausing.done()
        assert not producer.idle
        turns.may_end.set()
        await pausing
        claimed = len(counted.ran) + len(producer.runs)
        await eventually(lambda: producer.idle)
        assert len(counted.ran) == claimed
        assert set(turns.demands[before:]) <= {0}
