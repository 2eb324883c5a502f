"""Slots that jobs with a session leave free are filled together while the queue holds more jobs than fit."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, Oban, Worker
from oban.repository import fetch
from oban.runner.execution.fetch_delay import MAX_DELAY, FetchDelay
from tests.support.internals import producer_of
from tests.support.options import NO_POLLING
from tests.support.waiting import eventually
from tests.support.workers import Runs

LIMIT = 4


class Waiting:
    """A worker with a session, whose jobs end when the test says so."""

    def __init__(self, oban: Oban) -> None:
        self.begun: list[tuple[int, asyncio.Event]] = []
        self._runs = producer_of(oban).runs
        waiting = self

        class Waits(Worker):
            async def process(self, job: Job, session: AsyncSession) -> None:
                ending = asyncio.Event()
                waiting.begun.append((job.id, ending))
                await ending.wait()

        self.worker = Waits

    async def have_begun(self, number: int) -> None:
        await eventually(lambda: len(self.begun) == number)

    async def end(self, *numbers: int) -> None:
        """End the jobs that were the first, second and so on to begin, one after the other."""
        for number in numbers:
            job_id, ending = self.begun[number - 1]
            ending.set()
            # It leaves its slot before the next one ends.
            await eventually(lambda gone=job_id: all(run.key[0] != gone for run in self._runs))  # type: ignore[misc]


@pytest.fixture
def demands(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs each fetch asks for that finds some."""
    asked: list[int] = []
    original = fetch.acknowledge_and_fetch

    def recorded(tx: Any, acks: Any, queue: str, demand: int, *args: Any) -> Any:
        if jobs := original(tx, acks, queue, demand, *args):
            asked.append(demand)
        return jobs

    monkeypatch.setattr(fetch, "acknowledge_and_fetch", recorded)
    return asked


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let slots wait until half of them are free, however long that takes."""
    monkeypatch.setattr(FetchDelay, "seconds", 3600.0)


@pytest.fixture
async def oban(sqlite_url: URL) -> AsyncIterator[Oban]:
    async with Oban(sqlite_url, queues={"default": LIMIT}, **NO_POLLING) as oban:
        yield oban


async def test_one_fetch_fills_half_of_the_slots(oban: Oban, demands: list[int], endless: None) -> None:
    waiting = Waiting(oban)
    await oban.enqueue_many([waiting.worker.new() for _ in range(10)])
    await waiting.have_begun(4)
    for first in (1, 3, 5):
        await waiting.end(first, first + 1)
        await waiting.have_begun(first + 5)
    assert demands == [4, 2, 2, 2]


async def test_a_wake_up_does_not_fill_a_slot_that_waits_for_more(
    oban: Oban, demands: list[int], endless: None
) -> None:
    waiting = Waiting(oban)
    await oban.enqueue_many([waiting.worker.new() for _ in range(6)])
    await waiting.have_begun(4)
    await waiting.end(1)
    await producer_of(oban).tick()
    assert demands == [4]
    await waiting.end(2)
    await waiting.have_begun(6)
    assert demands == [4, 2]


async def test_a_slot_does_not_wait_for_jobs_that_go_on(oban: Oban) -> None:
    waiting = Waiting(oban)
    await oban.enqueue_many([waiting.worker.new() for _ in range(8)])
    await waiting.have_begun(4)
    # The first three never end.
    for number in (4, 5, 6, 7):
        await waiting.end(number)
        await waiting.have_begun(number + 1)


async def test_an_idle_queue_fills_a_slot_at_once(oban: Oban, endless: None) -> None:
    waiting = Waiting(oban)
    await oban.enqueue_many([waiting.worker.new() for _ in range(3)])
    await waiting.have_begun(3)
    await waiting.end(1)
    await oban.enqueue_many([waiting.worker.new() for _ in range(2)])
    await waiting.have_begun(5)


async def test_slots_of_jobs_without_a_session_are_filled_with_their_outcomes(
    oban: Oban, endless: None
) -> None:
    runs = Runs()
    await oban.enqueue_many([runs.worker.new() for _ in range(6)])
    await runs.begun(4)
    runs.finish(1)
    await runs.begun(5)


def test_a_slot_waits_as_long_as_a_turn_takes_and_no_more_than_the_limit() -> None:
    delay = FetchDelay(lambda: None)
    delay.turn_duration = MAX_DELAY / 2
    assert delay.seconds == MAX_DELAY / 2
    delay.turn_duration = 60.0
    assert delay.seconds == MAX_DELAY
