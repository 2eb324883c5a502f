"""A node without work polls for all of its queues in one statement, and misses nothing that changes."""

import re
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import URL, text, update

from oban import JobState, Oban
from oban.models import Queue
from oban.repository import fetch, poll, queue_settings, stage
from oban.repository.poll import PollResult
from tests.support.internals import database_of, runner_of
from tests.support.jobs import reaches
from tests.support.options import BRIEF, NO_POLLING
from tests.support.waiting import eventually, quiet
from tests.support.workers import Noop

#: The name of an instance that has none.
NAME = "Oban"
QUEUES = {"one": 1, "two": 2, "three": 3}
#: The services have intervals longer than any test, and no notification wakes them.
RARE: dict[str, Any] = {
    **NO_POLLING,
    "notifier": "poll",
    "control_interval": 300.0,
    "prune_interval": 60.0,
    "lease": 240.0,
}


class Calls:
    """Counts the repository functions that a node's services call."""

    def __init__(self, oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts: Counter[Any] = Counter()
        #: The queues that fetched.
        self.fetched: set[str] = set()
        database = runner_of(oban).database
        for name in ("read", "write"):
            monkeypatch.setattr(database, name, self._counted(getattr(database, name)))

    def _counted(self, call: Any) -> Any:
        def counted(function: Any, *args: Any, **kwargs: Any) -> Any:
            self.counts[function] += 1
            if function is fetch.acknowledge_and_fetch:
                self.fetched.add(args[1])
            return call(function, *args, **kwargs)

        return counted

    async def repeat(self, function: Any, times: int = 20) -> None:
        """Wait until a function was called so often after the services have started, and count from there."""
        for _ in range(2):
            self.counts.clear()
            await eventually(lambda: self.counts[function] >= times)


async def poll_now(oban: Oban, *queues: str) -> PollResult:
    return await database_of(oban).read(poll.poll, NAME, queues)


async def test_one_statement_polls_for_all_queues_due_jobs_and_settings(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    polling = {**RARE, **dict.fromkeys(("poll_interval", "stage_interval", "control_interval"), 0.02)}
    async with Oban(url, queues=QUEUES, **polling) as oban:
        calls = Calls(oban, monkeypatch)
        await calls.repeat(poll.poll)
        assert set(calls.counts) == {poll.poll}


async def test_each_part_is_polled_at_its_own_interval(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Oban(url, queues=QUEUES, **RARE | {"stage_interval": 0.02}) as oban:
        calls = Calls(oban, monkeypatch)
        await calls.repeat(stage.seconds_until_due)
        assert set(calls.counts) == {stage.seconds_until_due}


async def test_only_the_queues_that_have_jobs_fetch_after_a_poll(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        Oban(url, name="client") as client,
        Oban(url, queues=QUEUES, **RARE | {"poll_interval": 0.05}) as oban,
    ):
        calls = Calls(oban, monkeypatch)
        # Each queue fetches once when it starts.
        await eventually(lambda: calls.counts[poll.poll] >= 10)
        calls.fetched.clear()
        await reaches(client, await client.enqueue(Noop.new(queue="two")), JobState.COMPLETED)
        assert calls.fetched == {"two"}


async def test_each_queue_looks_for_jobs_itself_while_polls_fail(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        Oban(url, name="client") as client,
        Oban(url, queues=QUEUES, **RARE | {"poll_interval": 0.05}) as oban,
    ):
        read, failed = runner_of(oban).database.read, []

        async def fails(function: Any, *args: Any, **kwargs: Any) -> Any:
            if function is poll.poll:
                failed.append(args)
                raise OSError("no poll")
            return await read(function, *args, **kwargs)

        monkeypatch.setattr(runner_of(oban).database, "read", fails)
        await eventually(lambda: failed)
        await reaches(client, await client.enqueue(Noop.new(queue="two")), JobState.COMPLETED)


async def test_polls_go_on_at_their_interval_while_staging_fails(
    url: URL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        Oban(url, name="client") as client,
        Oban(url, queues=QUEUES, **RARE | {"poll_interval": 0.05}) as oban,
    ):
        calls = Calls(oban, monkeypatch)
        write, read = runner_of(oban).database.write, calls.counts

        async def fails(function: Any, *args: Any, **kwargs: Any) -> Any:
            if function is stage.stage:
                raise OSError("no staging")
            return await write(function, *args, **kwargs)

        monkeypatch.setattr(runner_of(oban).database, "write", fails)
        await client.enqueue(Noop.new(schedule_in=0.01))
        await eventually(lambda: "stager failed" in caplog.text)
        # As after an hour of failures.
        runner_of(oban).stager.failures = 1000
        read.clear()
        await eventually(lambda: read[poll.poll] >= 10)
        # None of the ticks has only asked when the next job is due.
        assert read[stage.seconds_until_due] <= 1
        pauses = re.findall(r"stager failed, trying again in ([\d.]+) s: OSError: no staging", caplog.text)
        assert max(map(float, pauses)) <= 0.1
        await reaches(client, await client.enqueue(Noop.new(queue="two")), JobState.COMPLETED)


async def test_a_poll_finds_queues_with_jobs_that_can_be_fetched(url: URL) -> None:
    async with Oban(url) as oban:
        assert await poll_now(oban, "ready", "running", "later", "spent", "empty") == PollResult(
            None, (0, None), ()
        )
        await oban.enqueue_many([Noop.new(queue="ready") for _ in range(3)])
        await oban.enqueue(Noop.new(queue="not-asked-for"))
        await oban.enqueue(Noop.new(queue="running"))
        await database_of(oban).write(fetch.fetch, "running", 1, "node", "owner")
        await oban.enqueue(Noop.new(queue="later", schedule_in=100))
        spent = await oban.enqueue(Noop.new(queue="spent"))
        async with oban.engine.begin() as connection:
            await connection.execute(
                text("UPDATE oban_jobs SET attempt = max_attempts WHERE id = :id"), {"id": spent.id}
            )
        # The second time, the compiled statement is used again.
        for _ in range(2):
            found = await poll_now(oban, "ready", "running", "later", "spent", "empty")
            assert found.queues == ("ready",)
            assert found.due_in is not None
            assert 90 < found.due_in <= 100
        assert (await poll_now(oban)).queues == ()


async def test_a_poll_shows_each_command_for_queues_of_its_instance(url: URL) -> None:
    async with Oban(url) as oban, Oban(url, name="other") as other:
        seen = [(await poll_now(oban)).settings]
        commands = (
            oban.pause_queue("default"),
            oban.pause_queue("default"),
            oban.resume_queue("default", node="n1"),
            oban.resume_all_queues(),
            oban.scale_queue("default", 3),
            oban.scale_queue("default", None),
        )
        for command in commands:
            await command
            await quiet()
            seen.append((await poll_now(oban)).settings)
            assert (await poll_now(oban)).settings == seen[-1]
        assert len(set(seen)) == len(seen)
        await other.pause_queue("default")
        assert (await poll_now(oban)).settings == seen[-1]


async def test_settings_that_somebody_changes_by_hand_apply_within_a_heartbeat_interval(url: URL) -> None:
    async with Oban(url, queues={"default": 2}, notifier="poll", heartbeat_interval=0.5, **BRIEF) as oban:
        async with Oban(url, name=NAME, notifier="poll") as client:
            await client.scale_queue("default", 5)
        await eventually(lambda: limit_of(oban) == 5)
        async with oban.engine.begin() as connection:
            await connection.execute(update(Queue).where(Queue.limit == 5).values(limit=7))
        await eventually(lambda: limit_of(oban) == 7)


def limit_of(oban: Oban) -> int | None:
    info = oban.check_queue("default")
    return None if info is None else info.limit


async def test_a_node_does_not_read_settings_that_have_not_changed(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    polling = {**RARE, "control_interval": 0.02}
    async with Oban(url, queues={"default": 2}, **polling) as oban:
        calls = Calls(oban, monkeypatch)
        await calls.repeat(poll.poll)
        assert calls.counts[queue_settings.load_states] == 0
        async with Oban(url, name=NAME, notifier="poll") as client:
            await client.pause_queue("default")
        await eventually(lambda: calls.counts[queue_settings.load_states])
        await eventually(lambda: (info := oban.check_queue("default")) is not None and info.paused)
