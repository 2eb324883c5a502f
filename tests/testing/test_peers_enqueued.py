"""What the tests of oban-py, of Oban for Elixir and of River say about asserting that jobs are enqueued."""

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oban import Job, Worker, testing
from oban.errors import ConfigError
from tests.testing.applications import Application, with_clients

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def at_new_year() -> Iterator[None]:
    with testing.travel(NEW_YEAR):
        yield


class Ping(Worker, queue="alpha"):
    """A worker."""

    async def process(self, job: Job) -> None:
        """Nothing."""


class Pong(Worker, queue="gamma", max_attempts=5):
    """Another one."""

    async def process(self, job: Job) -> None:
        """Nothing."""


#: Filters that match a job, or none, of those of `enqueue`.
MATCHING: list[dict[str, Any]] = [
    {"worker": Ping},
    {"worker": Ping, "queue": "alpha"},
    {"worker": Ping, "queue": "alpha", "args": {"id": 1}},
    {"worker": Pong},
    {"worker": Pong, "args": {}},
    {"worker": Pong.worker_name, "queue": "gamma", "args": {"message": "hello"}},
    {"args": {"id": 1}},
    {"args": {"id": 2, "xd": 2}},
    {"max_attempts": 5},
    {"priority": 2, "tags": ["urgent"]},
    {"meta": {"by": "ada"}},
    {"state": "scheduled"},
    {"state": "completed", "args": {"id": 3}},
    {"scheduled_at": NEW_YEAR + MINUTE},
    {"scheduled_at": NEW_YEAR + MINUTE + timedelta(seconds=0.9)},
    {"scheduled_at": (NEW_YEAR + MINUTE + timedelta(seconds=9), 10)},
    {"scheduled_in": 60},
    {"scheduled_in": MINUTE},
    {"schedule_in": MINUTE},
]
NOT_MATCHING: list[dict[str, Any]] = [
    {"worker": "Pongo"},
    {"worker": Ping, "args": {"id": 2}},
    # These have ended.
    {"worker": Pong, "args": {"id": 3}},
    {"worker": Pong, "args": {"id": 4}},
    {"worker": Ping, "queue": "gamma"},
    {"worker": Pong, "args": {"message": "helo"}},
    {"args": {"id": 1, "xd": 1}},
    {"max_attempts": 4},
    {"priority": 2, "tags": ["urgent", "late"]},
    {"meta": {"by": "bob"}},
    {"state": "cancelled"},
    {"scheduled_at": NEW_YEAR + MINUTE + timedelta(seconds=1.1)},
    {"scheduled_at": (NEW_YEAR + MINUTE + timedelta(seconds=9), 8)},
    {"scheduled_in": 62},
]


async def enqueue(app: Application) -> None:
    jobs = [
        Ping.new({"id": 1}),
        Pong.new({"id": 2, "xd": 2}),
        Pong.new({"id": 3}, queue="ended"),
        Pong.new({"id": 4}, queue="cancelled"),
        Pong.new({"message": "hello"}),
        Ping.new(priority=2, tags=["urgent"], meta={"by": "ada"}),
        Ping.new(schedule_in=MINUTE),
    ]
    await app.oban.enqueue_many(jobs)
    await app.testing.drain_queue("ended")
    await app.oban.delete_job(jobs[3])


@with_clients
async def test_assertions_with_every_filter(app: Application) -> None:
    await enqueue(app)
    for filters in MATCHING:
        found = await app.testing.assert_enqueued(**filters)
        assert found.id == (await app.testing.all_enqueued(**filters))[0].id
        with pytest.raises(AssertionError):
            await app.testing.refute_enqueued(**filters)


@with_clients
async def test_refutations_with_every_filter(app: Application) -> None:
    await enqueue(app)
    for filters in NOT_MATCHING:
        await app.testing.refute_enqueued(**filters)
        assert await app.testing.all_enqueued(**filters) == []
        with pytest.raises(AssertionError):
            await app.testing.assert_enqueued(**filters)


@with_clients
async def test_all_that_are_enqueued_are_found_the_newest_first(app: Application) -> None:
    await app.oban.enqueue_many([Ping.new({"id": 1}), Pong.new({"id": 2}), Ping.new({"id": 3})])
    everything = await app.testing.all_enqueued()
    assert [job.args["id"] for job in everything] == [3, 2, 1]
    assert [job.args["id"] for job in await app.testing.all_enqueued(worker=Ping)] == [3, 1]
    # River has a helper for several jobs in order: here, the list can be compared.
    assert [job.worker for job in reversed(everything)] == [
        Ping.worker_name,
        Pong.worker_name,
        Ping.worker_name,
    ]


@with_clients
async def test_a_failure_shows_what_was_wanted_and_what_is_there(app: Application) -> None:
    await app.oban.enqueue(Ping.new({"dest": "some_node"}))
    with pytest.raises(AssertionError) as raised:
        await app.testing.assert_enqueued(worker=Ping, args={"dest": "other_node"})
    message = str(raised.value)
    for part in (Ping.worker_name, "other_node", "some_node"):
        assert part in message
    with pytest.raises(AssertionError, match=re.escape(Ping.worker_name)):
        await app.testing.refute_enqueued(worker=Ping)


@with_clients
async def test_an_unknown_filter_is_an_error_and_no_job_that_does_not_match(app: Application) -> None:
    # With the peers, a filter that is misspelled matches nothing, so that a refutation passes.
    for helper in (app.testing.all_enqueued, app.testing.assert_enqueued, app.testing.refute_enqueued):
        with pytest.raises(ConfigError, match="did you mean worker"):
            await helper(workr=Ping)


@with_clients
async def test_a_job_that_is_enqueued_soon_is_waited_for(app: Application) -> None:
    await app.oban.enqueue(Ping.new({"id": 1}))
    await app.testing.assert_enqueued(worker=Ping, timeout=30)
    if app.is_async:

        async def later() -> None:
            await asyncio.sleep(0.02)
            await app.oban.enqueue(Pong.new({"id": 2}))

        task = asyncio.ensure_future(later())
        found = await app.testing.assert_enqueued(worker=Pong, timeout=30)
        await task
    else:
        # The client can be used in another thread.
        client: Any = app.client
        timer = threading.Timer(0.02, client.enqueue, [Pong.new({"id": 2})])
        timer.start()
        found = await app.testing.assert_enqueued(worker=Pong, timeout=30)
        timer.join()
    assert found.args == {"id": 2}


@with_clients
async def test_a_timeout_passes_while_no_job_matches(app: Application) -> None:
    # The moved clock stands still.
    began = time.monotonic()
    await app.testing.refute_enqueued(worker=Ping, timeout=0.02)
    with pytest.raises(AssertionError, match=r"has looked for 0\.02 seconds"):
        await app.testing.assert_enqueued(worker=Ping, timeout=timedelta(milliseconds=20))
    assert time.monotonic() - began >= 0.04


@with_clients
async def test_a_job_that_was_rolled_back_is_not_enqueued(app: Application) -> None:
    async with app.session() as session:
        await app.oban.enqueue(Ping.new(), session=session.own)
        await app.testing.assert_enqueued(worker=Ping, session=session.own)
        await session.awaited.rollback()
        await app.testing.refute_enqueued(worker=Ping, session=session.own)
    await app.testing.refute_enqueued(worker=Ping)


@with_clients(name="Batch")
async def test_the_instance_can_be_named(app: Application) -> None:
    await app.oban.enqueue(Ping.new())
    found: Any = testing.all_enqueued(oban="Batch")
    assert [job.worker for job in (await found if app.is_async else found)] == [Ping.worker_name]
