"""Queues can be paused, resumed, scaled, started and stopped while nodes run, and after a restart."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, JobState, Oban, Worker
from oban.models import Queue
from oban.notifier.base import Notifier
from oban.runner.heartbeat_thread import HeartbeatThread
from tests.runner.node import Noted
from tests.runner.processes import node
from tests.support.jobs import reaches, row_of
from tests.support.options import BRIEF, FAST_POLLING, NO_POLLING
from tests.support.waiting import eventually, quiet
from tests.support.workers import Noop, Runs

pytestmark = pytest.mark.either_driver

#: Nothing is found by polling.
DEAF: dict[str, Any] = {**NO_POLLING, "control_interval": 300.0}
#: Everything is found by polling.
LOOKING: dict[str, Any] = {**FAST_POLLING, "control_interval": 0.05}


def shows(oban: Oban, queue: str = "default") -> tuple[int | None, bool] | None:
    """The limit of a queue and whether it is paused on this node, or None if it does not run there."""
    info = oban.check_queue(queue)
    return None if info is None else (info.limit, info.paused)


async def all_tell(client: Oban, paused: bool, queue: str = "default") -> None:
    """Wait until every node reports that a queue is paused, which is after its last fetch has ended."""

    async def all_report() -> bool:
        return {info.paused for info in await client.check_cluster(queue)} == {paused}

    await eventually(all_report)


async def is_left_alone(oban: Oban, *jobs: Job) -> None:
    """Check that a new job does not start, although there is time."""
    await quiet()
    for job in jobs:
        assert (await row_of(oban, job)).state is JobState.AVAILABLE


# -- calls on the node itself ------------------------------------------------------------------


async def test_a_call_is_in_effect_when_it_returns(url: URL) -> None:
    async with Oban(url, queues={"default": 2, "other": 3}, **DEAF) as oban:
        await oban.pause_queue("default")
        assert (shows(oban), shows(oban, "other")) == ((2, True), (3, False))
        held = await oban.enqueue(Noop.new())
        free = await oban.enqueue(Noop.new(queue="other"))
        await reaches(oban, free, JobState.COMPLETED)
        await is_left_alone(oban, held)
        await oban.resume_queue("default")
        assert shows(oban) == (2, False)
        await reaches(oban, held, JobState.COMPLETED)
        await oban.pause_all_queues()
        assert [info.paused for info in oban.check_all_queues()] == [True, True]
        both = await oban.enqueue_many([Noop.new(), Noop.new(queue="other")])
        await is_left_alone(oban, *both)
        await oban.resume_queue("other")
        await reaches(oban, both[1], JobState.COMPLETED)
        await is_left_alone(oban, both[0])
        await oban.resume_all_queues()
        await reaches(oban, both[0], JobState.COMPLETED)


async def test_running_jobs_continue_while_their_queue_is_paused(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 2}, **DEAF) as oban:
        job = await oban.enqueue(runs.worker.new())
        running = await runs.begun(1)
        await oban.pause_queue("default")
        held = await oban.enqueue(Noop.new())
        await is_left_alone(oban, held)
        assert not running.cancelled()
        info = oban.check_queue("default")
        assert info is not None
        assert (info.running, info.paused, info.node) == ((job.id,), True, oban.options.node)
        runs.finish(1)
        await reaches(oban, job, JobState.COMPLETED)
        await is_left_alone(oban, held)


async def test_pause_returns_once_a_fetch_that_is_under_way_has_ended(postgresql_url: URL) -> None:
    async with Oban(postgresql_url, queues={"default": 1}, **DEAF) as oban:
        async with oban.engine.connect() as connection:
            await connection.execute(text("LOCK TABLE oban_jobs IN EXCLUSIVE MODE"))
            # The producer has been woken, and waits for the lock.
            await signal_insert(oban)
            await eventually(lambda: waits_for_lock(oban))
            pausing = asyncio.create_task(oban.pause_queue("default"))
            await quiet()
            assert not pausing.done()
            job = await oban.enqueue(Noop.new(), session=connection)
            await connection.commit()
        await pausing
        state = (await row_of(oban, job)).state
        await quiet()
        # The job was fetched before the call returned, or not at all.
        assert state is (await row_of(oban, job)).state or state is JobState.EXECUTING
        held = await oban.enqueue(Noop.new())
        await is_left_alone(oban, held)


async def signal_insert(oban: Oban) -> None:
    async with oban.engine.begin() as connection:
        await connection.execute(text("SELECT pg_notify('public.oban_insert', '{\"queue\": \"default\"}')"))


async def waits_for_lock(oban: Oban) -> bool:
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'oban_jobs'::regclass")
    async with oban.engine.connect() as connection:
        return bool(await connection.scalar(waiting))


async def test_scaling_up_fetches_at_once_and_scaling_down_lets_jobs_finish(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 1}, **DEAF) as oban:
        jobs = await oban.enqueue_many([runs.worker.new() for _ in range(6)])
        await runs.begun(1)
        await is_left_alone(oban, jobs[1])
        await oban.scale_queue("default", 3)
        await runs.begun(3)
        await oban.scale_queue("default", 1)
        await quiet()
        assert (shows(oban), len(runs.jobs), runs.interrupted) == ((1, False), 3, [])
        runs.finish(1)
        runs.finish(2)
        await reaches(oban, jobs[1], JobState.COMPLETED)
        await is_left_alone(oban, jobs[3])
        runs.finish(3)
        await runs.begun(4)
        await is_left_alone(oban, jobs[4])
        await oban.scale_queue("default", 2)
        await runs.begun(5)
        await oban.scale_queue("default", None)
        assert shows(oban) == (1, False)
        runs.finish(4)
        runs.finish(5)
        await runs.begun(6)
        runs.finish(6)
        await reaches(oban, jobs[5], JobState.COMPLETED)


async def test_a_stopped_queue_finishes_its_jobs_and_disappears(url: URL) -> None:
    runs = Runs()
    options = {**DEAF, "control_interval": 0.05}
    async with Oban(url, queues={"default": 2, "other": 1}, **options) as oban:
        jobs = await oban.enqueue_many([runs.worker.new() for _ in range(3)])
        await runs.begun(2)
        await oban.stop_queue("default")
        runs.finish(1)
        await reaches(oban, jobs[0], JobState.COMPLETED)
        await is_left_alone(oban, jobs[2])
        info = oban.check_queue("default")
        assert info is not None
        # The queue exists until its running job has ended.
        assert (info.running, info.paused) == ((jobs[1].id,), True)
        assert [row.running for row in await oban.check_cluster("default")] != []
        assert runs.interrupted == []
        runs.finish(2)
        await reaches(oban, jobs[1], JobState.COMPLETED)
        await eventually(lambda: oban.check_queue("default") is None)

        async def gone() -> bool:
            return await oban.check_cluster("default") == []

        await eventually(gone)
        assert [info.queue for info in oban.check_all_queues()] == ["other"]
        await is_left_alone(oban, jobs[2])
        await oban.start_queue("default", 1)
        await runs.begun(3)
        runs.finish(3)
        await reaches(oban, jobs[2], JobState.COMPLETED)


async def test_a_queue_that_is_started_again_while_its_jobs_end_respects_its_limit(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 2}, **DEAF) as oban:
        await oban.enqueue_many([runs.worker.new() for _ in range(3)])
        await runs.begun(2)
        before = oban.check_queue("default")
        await oban.stop_queue("default")
        await oban.start_queue("default", 2)
        await quiet()
        after = oban.check_queue("default")
        assert before is not None
        assert after is not None
        assert (len(runs.jobs), after.uuid, after.paused) == (2, before.uuid, False)
        runs.finish(1)
        await runs.begun(3)
        runs.finish(2)
        runs.finish(3)
        await runs.over(1, 2, 3)


async def test_a_node_stops_a_queue_that_is_ending_like_any_other(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 1}, **{**DEAF, "shutdown_grace_period": 0.1}) as oban:
        job = await oban.enqueue(runs.worker.new())
        await runs.begun(1)
        await oban.stop_queue("default")
    async with Oban(url) as client:
        row = await row_of(client, job)
        assert (row.state, row.attempt, row.errors) == (JobState.AVAILABLE, 0, [])
        assert await client.check_cluster() == []


async def test_started_queues_run_next_to_configured_ones_and_can_start_paused(url: URL) -> None:
    async with Oban(url, queues={"default": 1}, **DEAF) as oban:
        jobs = await oban.enqueue_many([Noop.new(queue="extra"), Noop.new(queue="waiting")])
        await is_left_alone(oban, *jobs)
        await oban.start_queue("extra", 4)
        await oban.start_queue("waiting", paused=True)
        assert (shows(oban, "extra"), shows(oban, "waiting")) == ((4, False), (10, True))
        done = await reaches(oban, jobs[0], JobState.COMPLETED)
        # Nothing was fetched before the queue had its producer row: the job would have been an orphan.
        (row,) = await oban.check_cluster("extra")
        assert done.attempted_at is not None
        assert row.started_at <= done.attempted_at
        assert row.uuid == done.attempted_by[1]
        await is_left_alone(oban, jobs[1])
        await oban.resume_queue("waiting")
        await reaches(oban, jobs[1], JobState.COMPLETED)
        late = await oban.enqueue(Noop.new(queue="extra"))
        await reaches(oban, late, JobState.COMPLETED)


async def test_a_missed_heartbeat_delays_a_queue_and_does_not_lose_it(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = HeartbeatThread.send
    missed: list[int] = []

    async def misses(heartbeats: HeartbeatThread) -> None:
        if len(missed) < 3:
            missed.append(1)
            raise OSError("away")
        await send(heartbeats)

    async with Oban(url, queues={"default": 1}, **{**DEAF, "control_interval": 0.05}) as oban:
        monkeypatch.setattr(HeartbeatThread, "send", misses)
        # A failed heartbeat must not fail the call.
        await oban.pause_queue("default")
        with pytest.raises(OSError, match="away"):
            await oban.start_queue("extra", 4)
        job = await oban.enqueue(Noop.new(queue="extra"))
        await reaches(oban, job, JobState.COMPLETED)
        assert (len(missed), shows(oban), shows(oban, "extra")) == (3, (1, True), (4, False))


async def test_a_job_can_pause_its_own_queue(url: URL) -> None:
    class Pauses(Worker):
        async def process(self, job: Job) -> None:
            await Oban.get_instance().pause_queue(job.queue)

    async with Oban(url, queues={"default": 1}, **DEAF) as oban:
        jobs = await oban.enqueue_many([Pauses.new(), Noop.new()])
        await reaches(oban, jobs[0], JobState.COMPLETED)
        await is_left_alone(oban, jobs[1])


class Blocks(Worker):
    """Waits in a thread until the test releases all of them."""

    gate = threading.Event()
    inside = threading.Semaphore(0)

    def process(self, job: Job) -> None:
        self.inside.release()
        assert self.gate.wait(20)


async def test_threads_follow_the_limits(url: URL) -> None:
    Blocks.gate.clear()
    threads = {thread.ident for thread in threading.enumerate()}

    def ours() -> int:
        return sum(
            thread.name.startswith("oban_") and thread.ident not in threads
            for thread in threading.enumerate()
        )

    async with Oban(url, queues={"default": 2}, **DEAF) as oban:
        assert ours() == 0
        jobs = await oban.enqueue_many([Blocks.new() for _ in range(30)])
        await eventually(lambda: len(oban.check_all_queues()[0].running) == 2 and ours() == 2)
        await oban.scale_queue("default", 25)
        # All run at once, so none waits for a thread.
        await eventually(lambda: ours() == 25)
        for _ in range(25):
            assert Blocks.inside.acquire(timeout=5)
        Blocks.gate.set()
        for job in jobs:
            await reaches(oban, job, JobState.COMPLETED)
        assert ours() == 25
        await oban.scale_queue("default", 1)
        more = await oban.enqueue_many([Blocks.new() for _ in range(30)])
        for job in more:
            await reaches(oban, job, JobState.COMPLETED)
        assert ours() == 25


# -- calls on other nodes, and restarts --------------------------------------------------------


async def test_commands_of_another_client_are_applied_at_once(url: URL) -> None:
    async with (
        Oban(url, node="n1", queues={"default": 2}, **DEAF) as one,
        Oban(url, node="n2", queues={"default": 3}, **DEAF) as two,
        Oban(url, node="client") as client,
    ):
        await client.pause_queue("default")
        await all_tell(client, True)
        assert (shows(one), shows(two)) == ((2, True), (3, True))
        job = await client.enqueue(Noop.new())
        await is_left_alone(client, job)
        await client.resume_queue("default", node="n2")
        row = await reaches(client, job, JobState.COMPLETED)
        assert row.attempted_by[0] == "n2"
        await client.scale_queue("default", 7, node="n1")
        await eventually(lambda: (shows(one), shows(two)) == ((7, True), (3, False)))
        await client.start_queue("extra", 4)
        await eventually(lambda: shows(one, "extra") == shows(two, "extra") == (4, False))
        await client.stop_queue("default", node="n1")
        await eventually(lambda: shows(one) in (None, (7, True)) and shows(two) == (3, False))
        await client.pause_all_queues(node="n2")
        await eventually(lambda: [info.paused for info in two.check_all_queues()] == [True, True])
        assert shows(one, "extra") == (4, False)


async def test_commands_of_another_node_and_of_another_process_are_applied(url: URL, tmp_path: Path) -> None:
    async with (
        Oban(url, node="here", queues={"other": 1}, **DEAF) as oban,
        node(url, tmp_path / "ledger", poll_interval=300),
    ):
        await oban.pause_queue("default")
        await all_tell(oban, True)
        held = await oban.enqueue(Noted.new())
        await is_left_alone(oban, held)
        await oban.resume_queue("default")
        await reaches(oban, held, JobState.COMPLETED)
        await all_tell(oban, False)


async def test_commands_survive_a_restart_and_reach_nodes_that_were_offline(url: URL) -> None:
    async with Oban(url) as client:
        await client.pause_queue("default")
        await client.start_queue("extra", 4)
        await client.stop_queue("gone")
        await client.scale_queue("other", 6, node="n2")
    for name in ("n1", "n2"):
        queues = {"default": 2, "other": 1, "gone": 1}
        for _ in range(2):
            async with Oban(url, node=name, queues=queues, **DEAF) as oban:
                assert {info.queue: (info.limit, info.paused) for info in oban.check_all_queues()} == {
                    "default": (2, True),
                    "other": (6 if name == "n2" else 1, False),
                    "extra": (4, False),
                }
                job = await oban.enqueue(Noop.new(queue="extra"))
                await reaches(oban, job, JobState.COMPLETED)
    async with Oban(url, name="another", node="n1", queues={"default": 2}, **DEAF) as oban:
        assert [(info.queue, info.paused) for info in oban.check_all_queues()] == [("default", False)]


async def test_a_queue_that_starts_paused_runs_no_job_until_it_is_resumed(url: URL) -> None:
    queues: dict[str, Any] = {"default": {"limit": 3, "paused": True}, "other": 1}
    async with Oban(url, node="n1", queues=queues, **DEAF) as oban, Oban(url, node="client") as client:
        assert (shows(oban), shows(oban, "other")) == ((3, True), (1, False))
        assert [(info.queue, info.paused) for info in await client.check_cluster()] == [
            ("default", True),
            ("other", False),
        ]
        waiting = await client.enqueue(Noop.new())
        await reaches(client, await client.enqueue(Noop.new(queue="other")), JobState.COMPLETED)
        await client.scale_queue("default", 4)
        await client.resume_queue("default", node="n2")
        await eventually(lambda: shows(oban) == (4, True))
        await is_left_alone(client, waiting)
        await client.resume_queue("default", node="n1")
        await reaches(client, waiting, JobState.COMPLETED)


async def test_each_start_of_a_node_pauses_the_queue_again_on_that_node_alone(url: URL) -> None:
    queues: dict[str, Any] = {"default": {"limit": 3, "paused": True}}
    oban = Oban(url, node="n1", queues=queues, **DEAF)
    async with Oban(url, node="n2", queues={"default": 2}, **DEAF) as other:
        for _ in range(2):
            async with oban:
                assert (shows(oban), shows(other)) == ((3, True), (2, False))
                await other.resume_all_queues()
                await eventually(lambda: shows(oban) == (3, False))
    async with Oban(url, node="n1", queues={"default": 2}, **DEAF) as oban:
        assert shows(oban) == (2, False)


async def test_a_node_without_queues_runs_none_whatever_the_commands(url: URL) -> None:
    async with Oban(url, **DEAF) as oban:
        await oban.start_queue("extra", 4)
        job = await oban.enqueue(Noop.new(queue="extra"))
        await is_left_alone(oban, job)
        assert oban.check_all_queues() == []
    async with Oban(url, **DEAF) as oban:
        await is_left_alone(oban, job)


async def test_in_the_callers_transaction_it_takes_effect_at_the_commit(url: URL) -> None:
    async with Oban(url, queues={"default": 2}, **DEAF) as oban:
        async with AsyncSession(oban.engine) as session:
            await oban.pause_queue("default", session=session)
            assert shows(oban) == (2, False)
            await session.rollback()
            await quiet()
            assert shows(oban) == (2, False)
            await oban.pause_queue("default", session=session)
            await oban.scale_queue("default", 5, session=session)
            await quiet()
            assert shows(oban) == (2, False)
            await session.commit()
        await eventually(lambda: shows(oban) == (5, True))


async def test_without_signals_commands_are_found_by_polling(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Notifier, "dispatch", lambda *_: None)
    async with (
        Oban(url, node="n1", queues={"default": 2}, **LOOKING) as oban,
        Oban(url) as client,
    ):
        for call, seen in (
            (client.pause_queue("default"), lambda: shows(oban) == (2, True)),
            (client.scale_queue("default", 5), lambda: shows(oban) == (5, True)),
            (client.resume_all_queues(), lambda: shows(oban) == (5, False)),
            (client.start_queue("extra", 1), lambda: shows(oban, "extra") == (1, False)),
            (client.stop_queue("default"), lambda: shows(oban) is None),
        ):
            await call
            await eventually(seen)


async def test_by_default_a_second_is_enough_without_signals(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Notifier, "dispatch", lambda *_: None)
    async with Oban(url, queues={"default": 2}, **BRIEF) as oban, Oban(url) as client:
        await client.pause_queue("default")
        await eventually(lambda: shows(oban) == (2, True), timeout=2)


# -- signals of other implementations ----------------------------------------------------------


async def signal(oban: Oban, *payloads: dict[str, Any] | str) -> None:
    """Send a signal like another implementation, which does not store the command."""
    async with oban.engine.begin() as connection:
        for payload in payloads:
            text_payload = payload if isinstance(payload, str) else json.dumps(payload)
            await connection.execute(
                text("SELECT pg_notify('public.oban_signal', :payload)"), {"payload": text_payload}
            )


async def test_signals_of_other_implementations_are_applied_and_stored(postgresql_url: URL) -> None:
    options: dict[str, Any] = {"node": "n1", "queues": {"default": 2}, **DEAF, "control_interval": 0.05}
    steps: list[tuple[dict[str, Any], Callable[[Oban], bool]]] = [
        ({"action": "pause", "queue": "default", "ident": "any"}, lambda oban: shows(oban) == (2, True)),
        (
            {"action": "resume", "queue": "default", "ident": "Oban.n1"},
            lambda oban: shows(oban) == (2, False),
        ),
        ({"action": "pause", "queue": "*", "ident": "any"}, lambda oban: shows(oban) == (2, True)),
        ({"action": "resume", "queue": "*", "ident": "any"}, lambda oban: shows(oban) == (2, False)),
        (
            {"action": "scale", "queue": "default", "limit": 9, "ident": "any"},
            lambda oban: shows(oban) == (9, False),
        ),
        (
            {"action": "start", "queue": "extra", "limit": 4, "paused": True, "ident": "any"},
            lambda oban: shows(oban, "extra") == (4, True),
        ),
        ({"action": "start", "queue": "more", "limit": 4}, lambda oban: shows(oban, "more") == (4, False)),
        ({"action": "stop", "queue": "extra", "ident": "any"}, lambda oban: shows(oban, "extra") is None),
    ]
    async with Oban(postgresql_url, **options) as oban:
        for payload, seen in steps:
            await signal(oban, payload)
            await eventually(lambda: seen(oban))  # noqa: B023
            # Later polls do not undo it.
            await quiet()
            assert seen(oban)
        elsewhere = {"action": "pause", "queue": "*", "ident": "Oban.n2"}
        await signal(oban, elsewhere, {**elsewhere, "ident": "Other.n1"})
        await quiet()
        assert shows(oban) == (9, False)
        # The most recent command wins, whoever sent it.
        await signal(oban, {"action": "pause", "queue": "*", "ident": "any"})
        await eventually(lambda: shows(oban) == (9, True))
        await oban.resume_queue("default")
        await quiet()
        assert (shows(oban), shows(oban, "more")) == ((9, False), (4, True))
    async with Oban(postgresql_url, **options) as oban:
        assert (shows(oban), shows(oban, "more"), shows(oban, "extra")) == ((9, False), (4, True), None)


NO_LIMITS: list[Any] = [0, -1, 10**9, "5", 1.5, None, True, []]
GARBAGE: list[dict[str, Any] | str] = [
    "garbage",
    "[]",
    "{}",
    '{"action": "pause", "queue": "default"',
    {"action": "explode", "queue": "default"},
    {"action": None, "queue": "default"},
    {"action": ["pause"], "queue": "default"},
    {"queue": "default"},
    {"action": "pause"},
    {"action": "pause", "queue": None},
    {"action": "pause", "queue": {"a": 1}},
    {"action": "pause", "queue": "a b\u0000"},
    {"action": "pause", "queue": "x" * 300},
    {"action": "pause", "queue": "default", "ident": ["any"]},
    {"action": "pause", "queue": "default", "ident": {"any": 1}},
    {"action": "stop", "queue": "*"},
    {"action": "scale", "queue": "*", "limit": 3},
    *({"action": "scale", "queue": "default", "limit": limit} for limit in NO_LIMITS),
    {"action": "scale", "queue": "default"},
    {"action": "start", "queue": "extra", "limit": 10**9},
    {"action": "start", "queue": "extra", "limit": 5, "paused": "no"},
    {"action": "start", "queue": "a/b", "limit": 5},
    {"action": "pause", "queue": "nobody", "ident": "any"},
]


async def test_garbage_is_ignored(emptied_postgresql: URL, caplog: pytest.LogCaptureFixture) -> None:
    async with Oban(emptied_postgresql, queues={"default": 2}, **DEAF) as oban:
        await signal(oban, *GARBAGE)
        await signal(oban, {"action": "scale", "queue": "default", "limit": 3})
        await eventually(lambda: shows(oban) == (3, False))
        assert [info.queue for info in oban.check_all_queues()] == ["default"]
        async with oban.engine.connect() as connection:
            stored = select(Queue.queue).where(Queue.queue != "*")
            assert (await connection.execute(stored)).scalars().all() == ["default"]
        job = await oban.enqueue(Noop.new())
        await reaches(oban, job, JobState.COMPLETED)
    # Each kind is logged once, not each time.
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [warning.partition(":")[0] for warning in warned] == [
        "ignored garbage on channel signal (1 since the last report)",
        "ignored a payload on channel signal",
    ]
    assert "'explode' is not an action; known are pause, resume, start, stop, scale" in warned[1]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_node_survives_ten_thousand_garbage_signals(
    emptied_postgresql: URL, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    flood = text(
        "SELECT pg_notify('public.oban_signal', json_build_object('action', a, 'queue', 'q' || n)::text)"
        " FROM generate_series(1, 2000) AS n, unnest(ARRAY['pause', 'stop', 'x', '', 'scale']) AS a"
    )
    async with Oban(emptied_postgresql, queues={"default": 2}, **DEAF) as oban:
        async with oban.engine.begin() as connection:
            await connection.execute(flood)
        job = await oban.enqueue(Noop.new())
        await reaches(oban, job, JobState.COMPLETED)
        await oban.pause_queue("default")
        assert shows(oban) == (2, True)
        await oban.resume_queue("default")
        async with oban.engine.connect() as connection:
            # Commands for queues that the node does not have are not stored.
            assert await connection.scalar(select(func.count()).where(Queue.queue.like("q%"))) == 0


async def test_our_own_signals_are_not_stored_again(postgresql_url: URL) -> None:
    async with (
        Oban(postgresql_url, node="n1", queues={"default": 2}, **DEAF) as oban,
        Oban(postgresql_url, node="n2") as client,
    ):
        await client.scale_queue("default", 5)
        await eventually(lambda: shows(oban) == (5, False))
        await client.pause_all_queues()
        await eventually(lambda: shows(oban) == (5, True))
        await quiet()
        async with oban.engine.connect() as connection:
            nodes = (await connection.execute(select(Queue.node).distinct())).scalars().all()
        assert nodes == [""]


async def test_after_many_concurrent_commands_all_nodes_agree(url: URL) -> None:
    async with (
        Oban(url, node="n1", queues={"a": 2, "b": 2}, **LOOKING) as one,
        Oban(url, node="n2", queues={"a": 2, "b": 2}, **LOOKING) as two,
    ):
        for number in range(4):
            await asyncio.gather(
                *(oban.pause_all_queues() for oban in (one, two)),
                *(
                    oban.resume_queue(queue, at)
                    for oban in (one, two)
                    for queue in "ab"
                    for at in (None, "n1")
                ),
                *(oban.scale_queue("a", limit) for oban in (one, two) for limit in (1, 2, 3)),
                *(oban.resume_all_queues(node="n2") for oban in (one, two)),
            )
            await one.scale_queue("a", 4 + number)
            await one.resume_all_queues()
            wanted = {"a": (4 + number, False), "b": (2, False)}
            for queue, how in wanted.items():
                assert shows(one, queue) == how
                await eventually(lambda: shows(two, queue) == how)  # noqa: B023


# -- checking queues ---------------------------------------------------------------------------


async def test_the_node_and_the_producer_rows_report_the_same(url: URL) -> None:
    runs = Runs()
    async with (
        Oban(url, node="n1", queues={"default": 2, "other": 1}, **DEAF) as one,
        Oban(url, node="n2", queues={"default": 3}, **DEAF) as two,
    ):
        local = one.check_queue("default")
        assert local is not None
        assert (local.queue, local.node, local.running, local.updated_at) == ("default", "n1", (), None)
        assert local.started_at.utcoffset() is not None
        assert one.check_queue("nobody") is None
        await two.pause_queue("default", node="n2")
        job = await one.enqueue(runs.worker.new())
        await runs.begun(1)
        # Any change of a queue makes the node send a heartbeat.
        await one.scale_queue("other", 4)
        local = one.check_queue("default")
        assert local is not None
        assert local.running == (job.id,)
        infos = await one.check_cluster()
        assert [(info.queue, info.node, info.limit, info.paused, info.running) for info in infos] == [
            ("default", "n1", 2, False, (job.id,)),
            ("default", "n2", 3, True, ()),
            ("other", "n1", 4, False, ()),
        ]
        assert infos[0].uuid == local.uuid
        assert all(info.updated_at is not None for info in infos)
        runs.finish(1)
        await reaches(one, job, JobState.COMPLETED)
    assert one.check_all_queues() == []
