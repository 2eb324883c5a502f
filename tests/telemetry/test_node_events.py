"""The events of a running node: its start and stop, its queues, its services and its event loop."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, JobState, Oban, Periodic, Worker, telemetry
from oban.models import Producer
from oban.notifier import health
from oban.notifier.poll import DataVersionNotifier
from oban.repository import ticks
from oban.runner.services.base import Service
from oban.telemetry import (
    Event,
    HeartbeatFailed,
    HeartbeatSent,
    JobsDiscarded,
    JobsFetched,
    JobsPruned,
    JobsRescued,
    JobsStaged,
    LeaderElected,
    LeaderLost,
    LeaderResigned,
    ListenerConnected,
    ListenerDeaf,
    ListenerDisconnected,
    ListenerHears,
    LoopBlocked,
    LoopUnblocked,
    NodeDied,
    NodeStarted,
    NodeStopped,
    NodeStopping,
    OutcomesStored,
    PeriodicFailed,
    PeriodicInserted,
    ProgressStored,
    QueueAdjusted,
    QueueEvent,
    QueueStarted,
    QueueStopped,
    RescuedJob,
    ServiceFailed,
    ServiceRecovered,
)
from oban.testing import insert_periodic_jobs
from tests.support.databases import PostgreSQLFactory
from tests.support.heartbeats import ago
from tests.support.internals import forget_lead, refresher_of, replace_poll, runner_of
from tests.support.jobs import reaches
from tests.support.options import BRIEF, FAST_POLLING
from tests.support.rows import insert_rows, row
from tests.support.telemetry import Recorder, recording
from tests.support.waiting import Deadline, eventually
from tests.support.workers import Noop, Runs

TERMINATE = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND query ILIKE '%LISTEN%'"
)
#: Longer than a thread usually waits for a processor.
THRESHOLD = 0.2


@pytest.fixture
def postgresql_url(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    made = postgresql_factory.create()
    yield made
    postgresql_factory.drop(made)


async def test_a_node_tells_that_it_starts_and_stops(url: URL) -> None:
    oban = Oban(url, queues={"a": 1, "b": {"limit": 2, "paused": True}}, **BRIEF)
    life = (NodeStarted, NodeStopping, NodeStopped, LeaderElected, LeaderResigned, ListenerConnected)
    with recording(oban, *life, QueueEvent) as recorder:
        async with oban:
            await recorder.first(LeaderElected)
            await recorder.first(ListenerConnected)
    assert recorder.names(NodeStarted, NodeStopping, NodeStopped, QueueEvent) == [
        "QueueStarted",
        "QueueStarted",
        "NodeStarted",
        "NodeStopping",
        "QueueStopped",
        "QueueStopped",
        "NodeStopped",
    ]
    assert recorder.names(LeaderElected, LeaderResigned) == ["LeaderElected", "LeaderResigned"]
    (started,), (stopped,) = recorder.of(NodeStarted), recorder.of(NodeStopped)
    assert started.queues == ("a", "b")
    assert started.duration > 0
    assert (stopped.released, stopped.is_lost) == ((), False)
    queues = [(event.queue, event.limit, event.paused) for event in recorder.of(QueueStarted)]
    assert queues == [("a", 1, False), ("b", 2, True)]
    assert {event.kind for event in recorder.of(ListenerConnected)} <= {"listen", "data_version"}


async def test_a_node_that_does_not_start_sends_no_event_of_a_node(url: URL) -> None:
    def lifespan(oban: object) -> Any:
        raise RuntimeError("no model to load")

    oban = Oban(url, queues={"a": 1}, lifespan=lifespan, **BRIEF)
    with recording(oban) as recorder, pytest.raises(RuntimeError, match="no model"):
        await oban.start()
    assert recorder.events == []


async def test_a_queue_tells_when_a_command_is_in_effect(url: URL) -> None:
    async with Oban(url, queues={"a": 1}, **BRIEF) as oban:
        with recording(oban, QueueEvent) as recorder:
            await oban.scale_queue("a", 5)
            await oban.pause_queue("a")
            await oban.pause_queue("a")
            await oban.stop_queue("a")
            await oban.start_queue("a", limit=7)
            await oban.start_queue("b", limit=2)
            await oban.stop()
    assert [(type(event), event.queue, event.limit) for event in recorder.of(QueueEvent)] == [
        (QueueAdjusted, "a", 5),
        (QueueAdjusted, "a", 5),
        (QueueStopped, "a", 5),
        (QueueStarted, "a", 7),
        (QueueStarted, "b", 2),
        (QueueStopped, "a", 7),
        (QueueStopped, "b", 2),
    ]
    assert [event.paused for event in recorder.of(QueueAdjusted)] == [False, True]


async def test_turns_of_a_queue_tell_what_they_have_fetched_and_stored(url: URL) -> None:
    async with Oban(url, queues={"a": 4}, **FAST_POLLING) as oban:
        with recording(oban, JobsFetched, OutcomesStored, JobsStaged) as recorder:
            jobs = [Noop.new(queue="a") for _ in range(5)]
            await oban.enqueue_many(*jobs, Noop.new(queue="a", schedule_in=0.1))
            await eventually(lambda: sum(event.count for event in recorder.of(OutcomesStored)) == 6)
            stored = recorder.of(OutcomesStored)
            fetched = recorder.of(JobsFetched)
            (staged,) = recorder.of(JobsStaged)
    assert sum(event.count for event in fetched) == 6
    assert all(event.count <= event.demand <= 4 for event in fetched)
    assert {event.queue for event in fetched} == {event.queue for event in stored} == {"a"}
    assert min(event.duration for event in fetched) > 0
    assert min(event.duration for event in stored) > 0
    assert staged.count == 1


async def test_a_turn_that_only_stores_outcomes_does_not_tell_that_it_looked_for_jobs(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"a": 1}, **FAST_POLLING) as oban:
        await oban.enqueue(runs.worker.new(queue="a"))
        await runs.begun(1)
        await oban.pause_queue("a")
        with recording(oban, JobsFetched, OutcomesStored) as recorder:
            runs.finish(1)
            await recorder.first(OutcomesStored)
        assert recorder.names() == ["OutcomesStored"]


async def test_progress_that_was_stored(url: URL) -> None:
    class Reports(Worker):
        async def process(self, job: Job) -> None:
            job.progress(1, 2)
            await recorder.first(ProgressStored)

    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        with recording(oban, ProgressStored) as recorder:
            await oban.enqueue(Reports.new())
            assert (await recorder.first(ProgressStored)).count == 1


async def test_the_leader_tells_what_it_rescues_discards_and_prunes(url: URL) -> None:
    options: dict[str, Any] = {
        "lease": 1.0,
        "rescue_after": 0.5,
        "rescue_interval": 0.1,
        "prune_interval": 0.1,
    }
    async with Oban(url, name="other") as client:
        old = ago(days=30)
        lost = ["dead", "0b5f3a86-30e4-4c3a-9a67-1c8b7d1a2e01"]
        common = {"attempted_at": old, "attempted_by": lost, "queue": "q"}
        rescued, last, exhausted, *_ = await insert_rows(
            client.engine,
            row("executing", **common, attempt=1, max_attempts=2),
            row("executing", **common, attempt=2, max_attempts=2),
            row("available", attempt=2, max_attempts=2),
            row("completed", completed_at=old),
            row("completed", completed_at=old),
        )
        async with AsyncSession(client.engine) as session, session.begin():
            for queue in ("b", "a"):
                gone = Producer(uuid=uuid4(), name="Oban", node="gone", queue=queue, meta={"lease": 1.0})
                gone.started_at = gone.updated_at = old
                session.add(gone)
    oban = Oban(url, queues={"default": 1}, **options, **BRIEF)
    with recording(oban, JobsRescued, JobsDiscarded, JobsPruned, NodeDied) as recorder:
        async with oban:
            event = await recorder.first(JobsRescued)
            discarded = await recorder.first(JobsDiscarded)
            pruned = await recorder.first(JobsPruned)
            await recorder.first(NodeDied)
    assert event.count == 2
    assert event.jobs == (
        RescuedJob(rescued, "tests.Nobody", "q", 1, 2, "dead", JobState.AVAILABLE),
        RescuedJob(last, "tests.Nobody", "q", 2, 2, "dead", JobState.DISCARDED),
    )
    assert (discarded.count, discarded.ids) == (1, (exhausted,))
    assert (pruned.count, pruned.state) == (2, JobState.COMPLETED)
    assert [(died.name, died.queues) for died in recorder.of(NodeDied)] == [("gone", ("a", "b"))]


async def test_the_leader_tells_which_jobs_of_periodic_entries_it_has_inserted(url: URL) -> None:
    entry = Periodic("at-start", "@reboot", Noop.new(queue="never"))
    before = datetime.now(UTC)
    oban = Oban(url, queues={"default": 1}, periodic=[entry], **BRIEF)
    with recording(oban, PeriodicInserted) as recorder:
        async with oban:
            event = await recorder.first(PeriodicInserted)
            job = await oban.get_job(event.job_id)
    assert job is not None
    assert (event.entry, event.worker, event.queue) == ("at-start", job.worker, "never")
    assert event.tick is not None
    assert abs((event.tick - before).total_seconds()) < 60


async def test_the_leader_tells_which_periodic_entry_cannot_insert_its_jobs(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise LookupError("no worker\nof this name")

    monkeypatch.setattr(ticks, "fire", refuse)
    entry = Periodic("at-start", "@reboot", Noop.new(queue="never"))
    oban = Oban(url, queues={"default": 1}, periodic=[entry], **BRIEF)
    with recording(oban, PeriodicFailed, PeriodicInserted) as recorder:
        async with oban:
            event = await recorder.first(PeriodicFailed)
            monkeypatch.undo()
            await recorder.first(PeriodicInserted)
    assert (event.entry, event.failures) == ("at-start", 1)
    assert (event.error, event.error_type) == ("no worker", "builtins.LookupError")
    assert event.pause > 0


async def test_the_helper_for_tests_tells_the_same(oban: Oban) -> None:
    await oban.add_periodic(Periodic("each", "* * * * *", Noop.new()))
    async with oban.engine.begin() as connection:
        await connection.execute(text("UPDATE oban_periodic SET last_tick = '2025-01-01 00:00:00'"))
    with recording(oban, PeriodicInserted) as recorder:
        (job,) = await insert_periodic_jobs()
    (event,) = recorder.of(PeriodicInserted)
    assert (event.entry, event.job_id, event.in_transaction) == ("each", job.id, False)


async def test_heartbeats_that_were_sent_and_that_failed(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nto the host")

    oban = Oban(url, queues={"a": 1, "b": 1}, lease=1.0, heartbeat_interval=0.05, **BRIEF)
    with recording(oban, HeartbeatSent, HeartbeatFailed, ServiceFailed) as recorder:
        async with oban:
            sent = await eventually(lambda: [one for one in recorder.of(HeartbeatSent) if one.queues])
            assert set(sent[-1].queues) == {"a", "b"}
            assert set(recorder.threads) == {"oban-refresher"}
            monkeypatch.setattr(refresher_of(oban).database, "write", refuse)
            failed = await recorder.first(HeartbeatFailed)
            of_service = await recorder.first(ServiceFailed)
            monkeypatch.undo()
    assert (failed.error, failed.error_type) == ("no route", "builtins.ConnectionError")
    assert of_service.service == "refresher"


async def test_a_node_that_cannot_renew_its_lease_is_not_the_leader_any_more(url: URL) -> None:
    async with Oban(url, queues={"a": 1}, **BRIEF) as oban:
        await eventually(lambda: oban.is_leader)
        with recording(oban, LeaderElected, LeaderLost, LeaderResigned) as recorder:
            async with oban.engine.begin() as connection:
                await connection.execute(text("UPDATE oban_leaders SET node = 'another'"))
            leader = runner_of(oban).leader
            forget_lead(leader)
            leader.wake()
            await recorder.first(LeaderLost)
            await oban.stop()
    assert recorder.names() == ["LeaderLost"]


async def test_a_service_that_fails_tells_how_often_and_why(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Service) -> None:
        raise OperationalError("SELECT :secret", {"secret": "hunter22"}, ConnectionError("no route"))

    async with Oban(url, queues={"a": 1}, **FAST_POLLING) as oban:
        with recording(oban, ServiceFailed, ServiceRecovered) as recorder:
            stager = runner_of(oban).stager
            stager.max_backoff = 0.1
            monkeypatch.setattr(stager, "tick", fail.__get__(stager))
            await eventually(lambda: len(recorder.events) > 1)
            monkeypatch.undo()
            recovered = await recorder.first(ServiceRecovered)
            stager.wake()
            await reaches(oban, await oban.enqueue(Noop.new(queue="a")), JobState.COMPLETED)
    first, second = recorder.of(ServiceFailed)[:2]
    assert (first.service, first.error, first.error_type) == (
        "stager",
        "no route",
        "sqlalchemy.exc.OperationalError",
    )
    assert (first.failures, second.failures) == (1, 2)
    assert first.pause > 0
    failed = recorder.of(ServiceFailed)
    assert (recovered.service, recovered.failures) == ("stager", failed[-1].failures)
    assert recovered.duration > 0
    assert recorder.names() == ["ServiceFailed"] * len(failed) + ["ServiceRecovered"]


async def test_a_job_that_blocks_the_loop_is_named_while_it_does_and_afterwards(url: URL) -> None:
    class Blocks(Worker):
        async def process(self, job: Job) -> None:
            deadline = Deadline(10)
            while not recorder.of(LoopBlocked) and not deadline.passed():
                time.sleep(0.02)  # noqa: ASYNC251 - it blocks on purpose

    async with Oban(url, queues={"a": 1}, **BRIEF) as oban:
        watchdog = runner_of(oban).watchdog
        watchdog.threshold = THRESHOLD
        # The thread reads the threshold when it starts.
        watchdog.stop()
        watchdog.start()
        with recording(oban, LoopBlocked, LoopUnblocked) as recorder:
            job = await oban.enqueue(Blocks.new(queue="a"))
            after = await recorder.first(LoopUnblocked)
            await reaches(oban, job, JobState.COMPLETED)
    during = recorder.of(LoopBlocked)[0]
    assert during.seconds >= THRESHOLD
    assert after.seconds >= during.seconds
    assert set(recorder.threads) == {"oban-watchdog"}
    for event in (during, after):
        assert (event.job_id, event.worker) == (job.id, Blocks.worker_name)


def test_a_node_whose_event_loop_has_ended_is_lost(url: URL) -> None:
    recorder = Recorder()

    async def start() -> Oban:
        oban = Oban(url, queues={"a": 1}, **BRIEF)
        oban.telemetry.attach(recorder, NodeStarted, NodeStopping, NodeStopped)
        await oban.start()
        return oban

    oban = asyncio.run(start())
    deadline = Deadline(10)
    while not recorder.of(NodeStopped) and not deadline.passed():
        time.sleep(0.02)
    assert recorder.names() == ["NodeStarted", "NodeStopped"]
    assert recorder.of(NodeStopped)[0].is_lost
    del oban


async def test_a_listener_tells_that_it_is_disconnected_and_connected_again(postgresql_url: URL) -> None:
    oban = Oban(postgresql_url, queues={"a": 1}, **BRIEF)
    with recording(oban, ListenerConnected, ListenerDisconnected) as recorder:
        async with oban:
            async with oban.engine.connect() as connection:
                await connection.execute(TERMINATE)
            await eventually(lambda: len(recorder.events) == 3)
    assert recorder.names() == ["ListenerConnected", "ListenerDisconnected", "ListenerConnected"]
    (event,) = recorder.of(ListenerDisconnected)
    assert event.kind == "listen"
    assert event.error


async def test_a_file_that_cannot_be_polled_is_a_lost_listener(
    sqlite_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(connection: object) -> None:
        raise OSError("the disk is gone")

    url = sqlite_factory.create()
    oban = Oban(url, queues={"a": 1}, **BRIEF)
    with recording(oban, ListenerConnected, ListenerDisconnected) as recorder:
        async with oban:
            await recorder.first(ListenerConnected)
            notifier = runner_of(oban).notifier
            assert isinstance(notifier, DataVersionNotifier)
            replace_poll(monkeypatch, notifier, fail)
            await notifier.stop()
            await notifier.start()
            event = await recorder.first(ListenerDisconnected)
            monkeypatch.undo()
    sqlite_factory.drop(url)
    assert (event.kind, event.error, event.error_type) == (
        "data_version",
        "the disk is gone",
        "builtins.OSError",
    )


async def test_a_node_tells_that_notifications_do_not_arrive_and_that_they_do_again(
    postgresql_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CHECK_INTERVAL", 0.1)
    oban = Oban(postgresql_url, queues={"a": 1}, **BRIEF)
    switch = "ALTER TABLE oban_jobs {} TRIGGER USER"
    async with oban.engine.begin() as connection:
        await connection.execute(text(switch.format("DISABLE")))
    with recording(oban, ListenerDeaf, ListenerHears) as recorder:
        async with oban:
            deaf = await recorder.first(ListenerDeaf)
            async with oban.engine.begin() as connection:
                await connection.execute(text(switch.format("ENABLE")))
            await recorder.first(ListenerHears)
    assert "trigger" in deaf.problem


async def test_all_nodes_of_a_process_tell_a_global_handler(url: URL) -> None:
    events: list[Event] = []
    telemetry.attach(events.append, NodeStarted)
    try:
        for name in ("one", "two"):
            async with Oban(url, name=name, queues={"a": 1}, **BRIEF):
                pass
    finally:
        telemetry.detach(events.append)
    assert [event.instance for event in events] == ["one", "two"]
