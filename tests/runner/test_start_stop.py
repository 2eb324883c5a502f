"""Everything that runs in the background can be started and stopped at any time, by concurrent tasks."""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Collection
from contextvars import Context

import pytest
from sqlalchemy import URL

from oban import JobState, Oban
from oban.repository.queue_settings import QueueState
from oban.runner.execution.producer import Producer
from tests.support.internals import runner_of, services_of, start_refresher, stop_refresher
from tests.support.jobs import reaches
from tests.support.options import BRIEF
from tests.support.waiting import eventually
from tests.support.workers import Noop

TASKS = 10


async def stress(
    start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]], times: int = 50
) -> None:
    """Start and stop something this many times from each of 10 tasks at once."""

    async def cycles(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(times):
            await start()
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            await stop()

    await asyncio.gather(*(cycles(seed) for seed in range(TASKS)))
    await stop()


async def test_no_queue_starts_after_its_node_has_begun_to_stop(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        # Only the controller applies the states of queues, one call after the other.
        await runner_of(oban).controller.stop()
        queues, start, started = runner_of(oban).queues, Producer.start, []

        async def starts(producer: Producer, context: Context | None = None) -> None:
            started.append(producer.queue)
            queues.retire()
            await start(producer, context)

        monkeypatch.setattr(Producer, "start", starts)
        await queues.apply(dict.fromkeys(("default", "new", "other"), QueueState(1, False)))
        assert started == ["new"]
    # The loop of a queue that started after that ends by itself.
    await eventually(lambda: not loops())


def loops() -> list[str]:
    """The names of the current background tasks, without those of single statements."""
    return sorted(name for task in asyncio.all_tasks() if (name := task.get_name()).startswith("oban-"))


def background_threads(without: Collection[threading.Thread]) -> list[str]:
    return sorted(
        one.name for one in threading.enumerate() if one.name.startswith("oban-") and one not in without
    )


@pytest.mark.slow
@pytest.mark.parametrize("url", ["sqlite", "asyncpg"], indirect=True)
async def test_every_service_can_be_started_and_stopped_500_times_by_10_tasks(url: URL) -> None:
    async with Oban(url, queues={"default": 2}, **BRIEF) as oban:
        before = loops()
        for service in services_of(oban):
            await stress(service.start, service.stop)
            assert f"oban-{service.name}" not in loops()
            await service.start()
        assert loops() == before
        # The services work as before.
        await reaches(oban, await oban.enqueue(Noop.new(schedule_in=0.1)), JobState.COMPLETED)


async def test_background_threads_can_be_started_and_stopped_500_times_by_10_tasks(url: URL) -> None:
    # The node of another test can still be ending.
    foreign = set(threading.enumerate())
    async with Oban(url, queues={"default": 2}, **BRIEF) as oban:
        heartbeats, watchdog = runner_of(oban).heartbeat_thread, runner_of(oban).watchdog
        before = background_threads(foreign)

        async def start() -> None:
            watchdog.start()
            await start_refresher(heartbeats)

        async def stop() -> None:
            watchdog.stop()
            await stop_refresher(heartbeats)

        await stress(start, stop)
        assert "oban-watchdog" not in background_threads(foreign)
        await start()
        assert background_threads(foreign) == before
        assert heartbeats.may_fetch()
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)


@pytest.mark.parametrize("times", [10, pytest.param(50, marks=pytest.mark.slow)])
async def test_a_notifier_can_be_started_and_stopped_by_10_tasks(url: URL, times: int) -> None:
    async with Oban(url, queues={"default": 2}, poll_interval=300, **BRIEF) as oban:
        notifier = runner_of(oban).notifier
        before = loops()
        await stress(notifier.start, notifier.stop, times)
        own = {"oban-listen", "oban-listen-health", "oban-data-version"}
        assert loops() == [name for name in before if name not in own] != before
        await notifier.start()
        assert loops() == before
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)


async def test_an_instance_can_be_started_and_stopped_by_10_tasks(url: URL) -> None:
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    oban = Oban(url, queues={"default": 2}, **BRIEF)

    async def cycles(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(5):
            await oban.start()
            await asyncio.sleep(chance.uniform(0, 0.02))
            await oban.stop()

    await asyncio.gather(*(cycles(seed) for seed in range(TASKS)))
    await oban.stop()
    await eventually(lambda: asyncio.all_tasks() == tasks)
    await eventually(lambda: set(threading.enumerate()) == threads)
    async with oban:
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)


def test_an_instance_can_be_started_again_on_another_event_loop(url: URL) -> None:
    oban = Oban(url, queues={"default": 2}, **BRIEF)

    async def run_jobs() -> None:
        async with oban:
            # Enough at once that some wait for the lock of writers on SQLite.
            jobs = await asyncio.gather(*(oban.enqueue(Noop.new()) for _ in range(10)))
            for job in jobs:
                await reaches(oban, job, JobState.COMPLETED)

    asyncio.run(run_jobs())
    asyncio.run(run_jobs())
