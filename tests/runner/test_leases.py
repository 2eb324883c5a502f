"""Jobs of dead nodes are rescued, and outcomes that arrive after the rescue change nothing."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, JobState, Oban, clock
from oban.config import Options
from oban.models import Producer
from oban.repository import acknowledge, cluster, fetch, rescue
from oban.repository.acknowledge import Ack
from oban.runner.services.leader import Leader
from oban.runner.services.lifeline import Lifeline
from oban.runner.services.refresher import Refresher
from tests.support.faulty_rows import refuse
from tests.support.internals import (
    database_of,
    ended_producers,
    producer_of,
    producers_seen,
    refresher_of,
    runner_of,
)
from tests.support.jobs import reaches, row_of
from tests.support.options import BRIEF, FAST_POLLING
from tests.support.waiting import eventually
from tests.support.workers import Noop, Runs

pytestmark = pytest.mark.either_driver

#: Short, but a heartbeat has to be stored within a quarter of the lease, also on a busy machine.
LEASE: dict[str, Any] = {"lease": 2.0, "rescue_interval": 0.1, **FAST_POLLING}


async def orphan(
    oban: Oban, *, owner: str | None = None, attempt: int = 1, seconds: float = 3600, **overrides: Any
) -> Job:
    """A job that executes, fetched this many seconds ago, by this owner or by one without a producer row."""
    job = await oban.enqueue(Noop.new(**overrides))
    await make_orphan(oban, job, owner=owner, attempt=attempt, seconds=seconds)
    return await row_of(oban, job)


async def make_orphan(oban: Oban, job: Job, *, owner: str | None, attempt: int, seconds: float) -> None:
    ago = datetime.now(UTC) - timedelta(seconds=seconds)
    values = {
        "state": JobState.EXECUTING,
        "attempt": attempt,
        "attempted_at": ago,
        "attempted_by": ["elsewhere", owner] if owner else [],
    }
    async with oban.engine.begin() as connection:
        await connection.execute(update(Job).where(Job.id == job.id).values(values))


async def producer_row(oban: Oban, *, seconds: float = 3600, meta: Any = None) -> str:
    """Insert a producer whose last heartbeat was this many seconds ago, and return its uuid.

    It is one of this implementation, unless `meta` is that of another one.
    """
    meta = {"lease": LEASE["lease"]} if meta is None else meta
    row = Producer(uuid=uuid.uuid4(), name="Oban", node="elsewhere", queue="default", meta=meta)
    row.updated_at = row.started_at = datetime.now(UTC) - timedelta(seconds=seconds)
    async with AsyncSession(oban.engine, expire_on_commit=False) as session:
        session.add(row)
        await session.commit()
    return str(row.uuid)


async def rescue_orphans(
    oban: Oban, lease: float = 60, max_age: float = 3600, vanished: Any = ()
) -> list[int]:
    return [job.id for job in await database_of(oban).write(rescue.rescue, lease, max_age, vanished)]


async def test_a_job_of_a_dead_producer_is_available_again_and_its_attempt_counts(oban: Oban) -> None:
    job = await orphan(oban, owner=await producer_row(oban))
    assert await rescue_orphans(oban) == [job.id]
    row = await row_of(oban, job)
    assert (row.state, row.attempt, row.meta, row.errors) == (JobState.AVAILABLE, 1, {"rescued": 1}, [])
    await make_orphan(oban, job, owner=await producer_row(oban), attempt=2, seconds=61)
    assert await rescue_orphans(oban) == [job.id]
    assert (await row_of(oban, job)).meta == {"rescued": 2}


async def test_at_most_one_attempt_means_that_an_interrupted_job_is_discarded_with_the_reason(
    oban: Oban,
) -> None:
    job = await orphan(oban, owner=await producer_row(oban), max_attempts=1)
    assert await rescue_orphans(oban) == [job.id]
    row = await row_of(oban, job)
    assert (row.state, row.attempt, row.meta) == (JobState.DISCARDED, 1, {"rescued": 1})
    assert row.discarded_at is not None
    assert [(entry["attempt"], "'elsewhere' was lost" in entry["error"]) for entry in row.errors] == [
        (1, True)
    ]


async def test_a_job_of_a_living_producer_is_not_rescued_however_long_it_runs(oban: Oban) -> None:
    job = await orphan(oban, owner=await producer_row(oban, seconds=1), seconds=1e6)
    assert await rescue_orphans(oban) == []
    assert (await row_of(oban, job)).state is JobState.EXECUTING


async def test_a_job_that_was_fetched_within_the_lease_is_not_rescued_from_a_silent_producer(
    oban: Oban,
) -> None:
    job = await orphan(oban, owner=await producer_row(oban), seconds=30)
    assert await rescue_orphans(oban) == []
    assert (await row_of(oban, job)).state is JobState.EXECUTING


@pytest.mark.parametrize("owner", ["no-uuid", "7c1d3f6e-5a3b-4e43-9a52-0b6a3a5f9d11", None])
async def test_jobs_of_nodes_without_producer_rows_are_rescued_by_age_only(
    oban: Oban, owner: str | None
) -> None:
    young = await orphan(oban, owner=owner, seconds=3500)
    old = await orphan(oban, owner=owner, seconds=3700)
    assert await rescue_orphans(oban) == [old.id]
    assert (await row_of(oban, old)).state is JobState.AVAILABLE
    assert (await row_of(oban, young)).state is JobState.EXECUTING


async def test_a_producer_whose_row_was_deleted_counts_as_dead(oban: Oban) -> None:
    owner = uuid.uuid4()
    job = await orphan(oban, owner=str(owner), seconds=100)
    assert await rescue_orphans(oban) == []
    assert await rescue_orphans(oban, vanished=[owner]) == [job.id]


async def test_a_rescuer_whose_heartbeats_are_no_longer_steady_rescues_nothing(oban: Oban) -> None:
    job = await orphan(oban, owner=await producer_row(oban))
    assert await database_of(oban).write(rescue.rescue, 60, 3600, still_steady=lambda: False) == []
    assert (await row_of(oban, job)).state is JobState.EXECUTING
    assert await rescue_orphans(oban) == [job.id]


async def test_no_node_counts_as_dead_while_a_database_file_is_locked(sqlite_url: URL) -> None:
    async with (
        Oban(sqlite_url, name="client") as client,
        Oban(sqlite_url, queues={"default": 1}, **LEASE) as oban,
    ):
        thread, lifeline = runner_of(oban).heartbeat_thread, runner_of(oban).lifeline
        await eventually(lambda: oban.is_leader and thread.is_steady())
        # A healthy node that cannot send heartbeats while the file is locked.
        owner = await producer_row(client, seconds=0.6)
        job = await orphan(client, owner=owner, seconds=0.6)
        async with client.engine.connect() as connection:
            # Its lifeline waits for the lock, and has checked before that its own heartbeats are steady.
            await connection.execute(text("UPDATE oban_jobs SET queue = queue"))
            judging = asyncio.create_task(lifeline.tick())
            await eventually(lambda: not thread.may_fetch())
            await connection.rollback()
            await judging
        assert (await row_of(client, job)).state is JobState.EXECUTING


async def test_a_cancelled_job_of_a_dead_node_stays_cancelled(oban: Oban) -> None:
    job = await orphan(oban, owner=await producer_row(oban))
    assert await oban.cancel_job(job.id)
    assert await rescue_orphans(oban) == []
    assert (await row_of(oban, job)).state is JobState.CANCELLED


@pytest.mark.parametrize("outcome", ["completed", "failed", "released", "snoozed", "cancelled"])
async def test_an_owner_that_returns_after_the_rescue_changes_nothing(oban: Oban, outcome: str) -> None:
    owner = await producer_row(oban)
    job = await orphan(oban, owner=owner)
    await rescue_orphans(oban)
    late = Ack(job.id, 1, owner, outcome, error="late", delay=5)
    await database_of(oban).write(acknowledge.acknowledge, [late])
    assert (await row_of(oban, job)).state is JobState.AVAILABLE
    [again] = await database_of(oban).write(fetch.fetch, "default", 1, "here", str(uuid.uuid4()))
    assert again.attempt == 2
    await database_of(oban).write(acknowledge.acknowledge, [late, late._replace(attempt=2)])
    row = await row_of(oban, job)
    assert (row.state, row.attempt, row.errors) == (JobState.EXECUTING, 2, [])


async def test_a_rescue_passes_over_a_job_that_is_being_acknowledged(postgresql_url: URL) -> None:
    async with Oban(postgresql_url) as oban:
        owner = await producer_row(oban)
        job = await orphan(oban, owner=owner)
        done = Ack(job.id, 1, owner, "completed")
        async with oban.engine.connect() as connection:
            await database_of(oban).run(connection, acknowledge.acknowledge, [done])
            assert await rescue_orphans(oban) == []
            await connection.commit()
        assert (await row_of(oban, job)).state is JobState.COMPLETED


async def test_two_rescues_at_once_rescue_each_job_once(oban: Oban) -> None:
    owner = await producer_row(oban)
    jobs = [await orphan(oban, owner=owner) for _ in range(20)]
    found = await asyncio.gather(*(rescue_orphans(oban) for _ in range(4)))
    assert sorted(id_ for ids in found for id_ in ids) == sorted(job.id for job in jobs)
    for job in jobs:
        assert (await row_of(oban, job)).meta == {"rescued": 1}


async def test_a_row_that_refuses_the_rescue_does_not_block_other_rescues(fresh_url: URL) -> None:
    url = fresh_url
    async with Oban(url, name="client") as client:
        owner = await producer_row(client)
        refused, other = [await orphan(client, owner=owner) for _ in range(2)]
        await refuse(client.engine, refused.id)
        async with Oban(url, queues={"other": 1}, **LEASE):
            await reaches(client, other, JobState.AVAILABLE)
        assert (await row_of(client, refused)).state is JobState.EXECUTING


async def test_a_running_node_rescues_and_runs_the_jobs_of_a_dead_node_and_logs_that(
    url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    async with Oban(url, name="client") as client:
        job = await orphan(client, owner=await producer_row(client))
        last = await orphan(client, owner=await producer_row(client), max_attempts=1)
        async with Oban(url, queues={"default": 1}, **LEASE):
            row = await reaches(client, job, JobState.COMPLETED)
            await reaches(client, last, JobState.DISCARDED)
            await eventually(lambda: sum("job_id" in record.__dict__ for record in caplog.records) == 2)
        assert (row.attempt, row.meta) == (2, {"rescued": 1})
    logged = {record.__dict__["job_id"]: record for record in caplog.records if "job_id" in record.__dict__}
    assert logged.keys() == {job.id, last.id}
    record = logged[job.id]
    expected = f"job {job.id} ({job.worker}) was rescued, attempt 1 of 20: its node elsewhere is dead"
    assert (record.levelname, record.getMessage()) == ("WARNING", expected)
    record = logged[last.id]
    expected = f"job {last.id} ({job.worker}) failed, attempt 1 of 1, discarded: its node elsewhere is dead"
    assert (record.levelname, record.getMessage()) == ("ERROR", expected)
    assert [record.__dict__[it] for it in ("queue", "attempt", "state")] == ["default", 1, "discarded"]


async def test_a_job_that_runs_longer_than_the_lease_is_not_run_twice(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 5}, **LEASE) as oban, Oban(url, queues={"default": 5}, **LEASE):
        job = await oban.enqueue(runs.worker.new())
        await runs.begun(1)
        before = (await heartbeats(oban))[0]

        async def beaten() -> bool:
            return bool((await heartbeats(oban))[0] > before)

        # Heartbeats for two leases, by the clock of the database.
        for _ in range(8):
            await eventually(beaten)
            before = (await heartbeats(oban))[0]
        assert len(runs.jobs) == 1
        runs.finish_all()
        row = await reaches(oban, job, JobState.COMPLETED)
        assert (row.attempt, row.meta) == (1, {})


async def heartbeats(oban: Oban) -> list[Any]:
    async with oban.engine.connect() as connection:
        rows = await connection.execute(text("SELECT updated_at FROM oban_producers ORDER BY 1 DESC"))
        return list(rows.scalars())


async def test_producer_rows_that_vanish_come_back_with_the_next_heartbeat(url: URL) -> None:
    runs = Runs()
    async with Oban(url, queues={"default": 5}, **LEASE) as oban:
        job = await oban.enqueue(runs.worker.new())
        await runs.begun(1)
        async with oban.engine.begin() as connection:
            await connection.execute(text("DELETE FROM oban_producers"))
        await eventually(lambda: heartbeats(oban))
        runs.finish_all()
        assert (await reaches(oban, job, JobState.COMPLETED)).attempt == 1


async def test_a_node_that_stops_leaves_no_producer_and_no_leader(url: URL) -> None:
    async with Oban(url, name="client") as client:
        async with Oban(url, queues={"default": 1, "other": 1}, **BRIEF) as oban:
            await eventually(lambda: oban.is_leader)
            assert len(await heartbeats(oban)) == 2
        assert await heartbeats(client) == []
        async with client.engine.connect() as connection:
            assert (await connection.execute(text("SELECT * FROM oban_leaders"))).all() == []


async def test_a_node_without_heartbeats_fetches_nothing(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Oban(url, queues={"default": 1}, **LEASE) as oban:
        refresher = refresher_of(oban)

        async def broken(*_: Any, **__: Any) -> None:
            raise ConnectionError("no route")

        monkeypatch.setattr(refresher.database, "write", broken)
        await eventually(lambda: not refresher.may_fetch())
        job = await oban.enqueue(Noop.new())
        producer_of(oban).wake()
        await eventually(lambda: refresher.failures > 2)
        assert (await row_of(oban, job)).state is JobState.AVAILABLE
        monkeypatch.undo()
        await reaches(oban, job, JobState.COMPLETED)


async def test_an_available_job_with_no_attempt_left_is_discarded_with_the_reason(url: URL) -> None:
    async with Oban(url, name="client") as client:
        spent = await client.enqueue(Noop.new(max_attempts=3))
        async with client.engine.begin() as connection:
            await connection.execute(update(Job).where(Job.id == spent.id).values(attempt=3))
        async with Oban(url, queues={"default": 1}, **LEASE):
            row = await reaches(client, spent, JobState.DISCARDED)
        assert row.discarded_at is not None
        assert [entry["attempt"] for entry in row.errors] == [3]
        assert "no attempt left" in row.errors[0]["error"]


class Monotonic(clock.Clock):
    """A monotonic clock that the test sets."""

    seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


async def test_heartbeats_are_steady_after_a_while_without_a_gap(
    oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    with clock.use(Monotonic()) as now:
        assert isinstance(now, Monotonic)
        heart = Refresher(database_of(oban), Options(lease=4), list, lambda: now.seconds)
        assert not heart.is_steady()
        steady = []
        for _ in range(6):
            await heart.tick()
            steady.append(heart.is_steady())
            now.seconds += 1
        assert steady == [False] * 3 + [True] * 3

        async def broken(*_: Any, **__: Any) -> None:
            raise ConnectionError("no route")

        monkeypatch.setattr(database_of(oban), "write", broken)
        for _ in range(3):
            with pytest.raises(ConnectionError):
                await heart.tick()
            now.seconds += 1
        assert not heart.is_steady()
        monkeypatch.undo()
        steady.clear()
        for _ in range(6):
            await heart.tick()
            steady.append(heart.is_steady())
            now.seconds += 1
        assert steady == [False] * 3 + [True] * 3


@pytest.mark.parametrize(("gap", "steady"), [(2.0, True), (2.1, False)])
async def test_heartbeats_are_not_steady_after_a_gap_in_which_other_nodes_could_seem_dead(
    oban: Oban, gap: float, steady: bool
) -> None:
    with clock.use(Monotonic()) as now:
        assert isinstance(now, Monotonic)
        heart = Refresher(database_of(oban), Options(lease=4), list, lambda: now.seconds)
        for pause in (1, 1, 1, 1, gap):
            await heart.tick()
            now.seconds += pause
        await heart.tick()
        # For its own producers it still is alive.
        assert (heart.may_fetch(), heart.is_steady()) == (True, steady)


async def test_after_an_outage_no_node_counts_as_dead_before_it_could_send_a_heartbeat(
    url: URL,
) -> None:
    async with Oban(url, name="client") as client:
        # The row of a healthy node after an outage of the database, before its next heartbeat.
        owner = await producer_row(client)
        job = await orphan(client, owner=owner)
        since = clock.monotonic()
        async with Oban(url, queues={"default": 1}, **LEASE):
            await reaches(client, job, JobState.COMPLETED)
        assert clock.monotonic() - since >= LEASE["lease"] * 0.75


@pytest.mark.parametrize("meta", [{"lease": 600}, {"lease": 600.5}])
async def test_a_producer_is_alive_for_as_long_as_its_own_lease(oban: Oban, meta: Any) -> None:
    healthy = await orphan(oban, owner=await producer_row(oban, seconds=500, meta=meta))
    dead = await orphan(oban, owner=await producer_row(oban, seconds=700, meta=meta))
    idle = await producer_row(oban, seconds=500, meta=meta)
    assert await rescue_orphans(oban) == [dead.id]
    assert (await row_of(oban, healthy)).state is JobState.EXECUTING
    forgotten = await database_of(oban).write(rescue.delete_stale_producers, 60)
    assert forgotten
    assert uuid.UUID(idle) not in {producer.uuid for producer in forgotten}


@pytest.mark.parametrize("lease", ["600", -1, 1, None, True, [600], {"a": 1}, "x"])
async def test_an_invalid_or_shorter_lease_is_ignored(oban: Oban, lease: Any) -> None:
    dead = await orphan(oban, owner=await producer_row(oban, seconds=61, meta={"lease": lease}))
    healthy = await orphan(oban, owner=await producer_row(oban, seconds=50, meta={"lease": lease}))
    spoilt = await orphan(oban, owner=await producer_row(oban, seconds=61, meta=[1]))
    assert await rescue_orphans(oban) == [dead.id, spoilt.id]
    assert (await row_of(oban, healthy)).state is JobState.EXECUTING


@pytest.mark.parametrize("meta", [{}, {"local_limit": 5, "paused": False}, [], {"lease": None}])
async def test_a_producer_of_another_implementation_is_alive_for_a_minute_however_short_our_lease(
    oban: Oban, meta: Any
) -> None:
    dead = await orphan(oban, owner=await producer_row(oban, seconds=61, meta=meta), seconds=61)
    await orphan(oban, owner=await producer_row(oban, seconds=50, meta=meta), seconds=50)
    assert await rescue_orphans(oban, lease=2) == [dead.id]


async def test_a_running_node_publishes_its_lease(url: URL) -> None:
    async with (
        Oban(url, queues={"default": 1}, lease=7, **FAST_POLLING) as oban,
        oban.engine.connect() as own,
    ):
        assert [meta["lease"] for meta in await own.scalars(select(Producer.meta))] == [7]


class Stepped:
    """A database clock that the test moves forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        real = cluster.database_time
        monkeypatch.setattr(
            cluster, "database_time", lambda session: real(session) + timedelta(seconds=self.seconds)
        )


@pytest.mark.parametrize("leads", [True, False])
async def test_after_the_database_clock_jumps_forward_every_node_has_a_lease_for_its_next_heartbeat(
    oban: Oban, monkeypatch: pytest.MonkeyPatch, leads: bool
) -> None:
    database_clock = Stepped(monkeypatch)
    with clock.use(Monotonic()) as now:
        assert isinstance(now, Monotonic)
        leader = Leader(database_of(oban), Options(lease=1000))
        lifeline = Lifeline(database_of(oban), Options(rescue_after=1e8), leader, lambda: True)
        healthy = await orphan(oban, owner=await producer_row(oban, seconds=10))
        if leads:
            await leader.tick()
        # A node that is not the leader yet also watches the clock.
        await lifeline.tick()
        database_clock.seconds = 3600
        await leader.tick()
        for _ in range(4):
            await lifeline.tick()
            assert (await row_of(oban, healthy)).state is JobState.EXECUTING
            assert await heartbeats(oban)
            now.seconds += 15
            database_clock.seconds += 15
        await lifeline.tick()
        assert (await row_of(oban, healthy)).state is JobState.AVAILABLE


async def test_a_longer_lease_is_judged_after_heartbeats_were_possible_for_that_long(
    oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    database_clock = Stepped(monkeypatch)
    with clock.use(Monotonic()) as now:
        assert isinstance(now, Monotonic)
        leader = Leader(database_of(oban), Options(lease=1000))
        await leader.tick()
        lifeline = Lifeline(database_of(oban), Options(lease=20, rescue_after=1e8), leader, lambda: True)
        job = await orphan(oban, owner=await producer_row(oban, seconds=100, meta={"lease": 60}))
        for _ in range(2):
            await lifeline.tick()
            assert (await row_of(oban, job)).state is JobState.EXECUTING
            now.seconds += 30
            database_clock.seconds += 30
        await lifeline.tick()
        assert (await row_of(oban, job)).state is JobState.AVAILABLE


async def test_a_refresher_without_producers_still_notices_an_outage(
    oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    heart = Refresher(database_of(oban), Options(lease=4), list, clock.monotonic)
    await heart.tick()
    monkeypatch.setattr("sqlalchemy.engine.Connection.execute", broken)
    with pytest.raises(ConnectionError):
        await heart.tick()


async def test_a_refresher_forgets_producers_that_have_ended(oban: Oban) -> None:
    beats = [cluster.Heartbeat(uuid.uuid4(), "Oban", "node", "default", {}) for _ in range(2)]
    heart = Refresher(database_of(oban), Options(lease=4), lambda: beats[:], clock.monotonic)
    await heart.tick()
    first, second = beats
    # Its heartbeat is still among those that would be sent.
    await heart.delete_producers([first.uuid])
    await heart.tick()
    assert await database_of(oban).read(cluster.producer_uuids) == {second.uuid}
    beats.clear()
    await heart.delete_producers([second.uuid])
    assert (await database_of(oban).read(cluster.producer_uuids), ended_producers(heart)) == (set(), set())


async def test_a_leader_forgets_producers_that_are_gone(oban: Oban) -> None:
    with clock.use(Monotonic()) as now:
        assert isinstance(now, Monotonic)
        leader = Leader(database_of(oban), Options(lease=1000))
        await leader.tick()
        lifeline = Lifeline(database_of(oban), Options(rescue_after=1e8), leader, lambda: True)
        owner = uuid.UUID(await producer_row(oban, seconds=0))
        job = await orphan(oban, owner=str(owner))
        await lifeline.tick()
        await database_of(oban).write(cluster.delete_producers, [owner])
        now.seconds += 61
        await lifeline.tick()
        assert (await row_of(oban, job)).state is JobState.AVAILABLE
        assert owner in producers_seen(lifeline)
        now.seconds += 61
        await lifeline.tick()
        assert not producers_seen(lifeline)


DISCARD_REFUSED = {
    "postgresql": "ALTER TABLE oban_jobs ADD CONSTRAINT app CHECK (state <> 'discarded' OR id <> {id})",
    "sqlite": "CREATE TRIGGER app BEFORE UPDATE ON oban_jobs WHEN new.state = 'discarded' AND old.id = {id}"
    " BEGIN SELECT RAISE(ABORT, 'refused'); END",
}


async def test_an_exhausted_job_that_refuses_to_be_discarded_does_not_block_others(fresh_url: URL) -> None:
    async with Oban(fresh_url, name="client") as client:
        jobs = [await client.enqueue(Noop.new(max_attempts=3)) for _ in range(4)]
        async with client.engine.begin() as connection:
            await connection.execute(update(Job).values(attempt=3))
            refusal = DISCARD_REFUSED[connection.dialect.name].format(id=jobs[1].id)
            await connection.exec_driver_sql(refusal)
        async with Oban(fresh_url, queues={"other": 1}, **LEASE):
            for job in (jobs[0], jobs[2], jobs[3]):
                await reaches(client, job, JobState.DISCARDED)
        assert (await row_of(client, jobs[1])).state is JobState.AVAILABLE
