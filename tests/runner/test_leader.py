"""Each instance has one leader, by a lease in the database that the leader trusts for a shorter time."""

import asyncio
import contextlib
import uuid
from typing import Any

import pytest
from sqlalchemy import URL, event, text
from sqlalchemy.ext.asyncio import create_async_engine

from oban import Job, JobState, Oban, clock
from oban.config import Options
from oban.database.aio import Database
from oban.repository import cluster
from oban.repository.cluster import Heartbeat
from oban.runner.services import leader as leader_module
from oban.runner.services.leader import Leader
from tests.support.internals import database_of, looks_soon, runner_of
from tests.support.jobs import reaches, row_of
from tests.support.options import BRIEF
from tests.support.transactions import uncommitted
from tests.support.waiting import eventually, quiet, within
from tests.support.workers import Noop

pytestmark = pytest.mark.either_driver


class Monotonic(clock.Clock):
    """A monotonic clock that the test sets."""

    seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


def leader(oban: Oban, identity: str, *, lease: float = 60.0, name: str = "Oban") -> Leader:
    return Leader(database_of(oban), Options(name=name, node=identity, lease=lease))


async def expire(oban: Oban) -> None:
    """Let every lease expire now, by the database's clock."""
    async with oban.engine.begin() as connection:
        await connection.execute(text("UPDATE oban_leaders SET expires_at = '2001-01-01 00:00:00'"))


async def test_of_several_nodes_one_leads_and_stays_the_leader(oban: Oban) -> None:
    leaders = [leader(oban, f"node-{number}") for number in range(5)]
    await asyncio.gather(*(one.tick() for one in leaders))
    [first] = [one for one in leaders if one.leads]
    for one in leaders:
        await one.tick()
    assert [one for one in leaders if one.leads] == [first]


async def test_one_of_several_nodes_with_the_same_name_leads(url: URL) -> None:
    many = {"queues": {"default": 1}, "node": "same", "name": "Same", **BRIEF}
    async with contextlib.AsyncExitStack() as stack:
        obans = [await stack.enter_async_context(Oban(url, **many)) for _ in range(3)]
        await eventually(lambda: any(oban.is_leader for oban in obans))
        for oban in obans:
            await runner_of(oban).leader.tick()
        assert sum(oban.is_leader for oban in obans) == 1


async def test_each_instance_name_has_its_own_leader(oban: Oban) -> None:
    one, other = leader(oban, "a", name="One"), leader(oban, "b", name="Other")
    await one.tick()
    await other.tick()
    assert (one.leads, other.leads) == (True, True)


async def test_a_follower_takes_over_when_the_lease_has_ended_and_the_old_leader_learns_it(
    oban: Oban,
) -> None:
    old, new = leader(oban, "old"), leader(oban, "new")
    await old.tick()
    await new.tick()
    assert (old.leads, new.leads) == (True, False)
    await expire(oban)
    await new.tick()
    await old.tick()
    assert (old.leads, new.leads) == (False, True)


async def test_a_leader_that_was_frozen_knows_by_its_own_clock_that_its_lease_can_have_ended(
    oban: Oban,
) -> None:
    with clock.use(Monotonic()) as now:
        assert isinstance(now, Monotonic)
        one = leader(oban, "frozen", lease=60)
        await one.tick()
        now.seconds += 53
        assert one.leads
        now.seconds += 6
        assert not one.leads


async def test_the_lead_is_given_up_when_the_election_fails(
    oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = leader(oban, "node")
    await one.tick()

    async def fails(*_: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(database_of(oban), "write", fails)
    with pytest.raises(ConnectionError):
        await one.tick()
    assert not one.leads
    monkeypatch.undo()
    await one.tick()
    assert one.leads


async def test_a_leader_that_stops_lets_another_node_lead_at_once(oban: Oban) -> None:
    old, new = leader(oban, "old"), leader(oban, "new")
    await old.tick()
    await old.resign()
    assert not old.leads
    await new.tick()
    assert new.leads


#: Without the announcement, another node would lead after a quarter of the lease.
LEADING: dict[str, Any] = {"queues": {"default": 1}, "lease": 120, **BRIEF}


async def test_another_node_leads_as_soon_as_the_leader_stops(url: URL) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(Oban(url, node="first", **LEADING))
        await eventually(lambda: first.is_leader)
        others = [await stack.enter_async_context(Oban(url, node=f"n{n}", **LEADING)) for n in range(3)]
        another = await stack.enter_async_context(Oban(url, node="x", name="Another", **LEADING))
        await eventually(lambda: another.is_leader)
        await first.stop()
        assert not first.is_leader
        await eventually(lambda: any(oban.is_leader for oban in others), 5)
        await quiet()
        assert sum(oban.is_leader for oban in others) == 1


async def test_without_notifications_another_node_looks_every_control_interval(url: URL) -> None:
    polling: dict[str, Any] = {**LEADING, "notifier": "poll", "control_interval": 0.05}
    async with Oban(url, node="first", **polling) as first:
        await eventually(lambda: first.is_leader)
        async with Oban(url, node="second", **polling) as second:
            await first.stop()
            await eventually(lambda: second.is_leader, 5)


async def test_changes_of_the_data_cause_few_looks_and_no_election(
    sqlite_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_module, "LOOK_PAUSE", 0.3)
    calls: list[str] = []
    for name in ("elect", "lease_of_another"):
        monkeypatch.setattr(cluster, name, counted(calls, getattr(cluster, name)))
    async with Oban(sqlite_url, node="first", **LEADING) as first:
        await eventually(lambda: first.is_leader)
        async with Oban(sqlite_url, node="second", **LEADING), Oban(sqlite_url) as client:
            await eventually(lambda: calls.count("lease_of_another") >= 2)
            calls.clear()
            since = clock.monotonic()
            for _ in range(30):
                await client.enqueue(Noop.new())
                await asyncio.sleep(0.02)
            await eventually(lambda: "lease_of_another" in calls)
            assert "elect" not in calls
            assert len(calls) <= 2 + (clock.monotonic() - since) / 0.3


def counted(calls: list[str], function: Any) -> Any:
    def call(*args: Any) -> Any:
        calls.append(function.__name__)
        return function(*args)

    return call


async def test_a_node_that_has_resigned_leaves_the_lease_to_others(oban: Oban) -> None:
    one = leader(oban, "one")
    await one.tick()
    await one.resign()
    for payload in (
        {"action": "resign", "name": "Oban", "node": one.identity},
        {"action": "resign", "name": "Another", "node": "x"},
        {"action": "resign"},
        {"action": "resign", "name": ["Oban"], "node": None},
    ):
        one.on_signal(payload)
    assert not looks_soon(one)
    one.on_signal({"action": "resign", "name": "Oban", "node": "x"})
    assert looks_soon(one)
    await one.resign()


async def test_a_resignation_that_was_interrupted_is_repeated(
    oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = leader(oban, "old"), leader(oban, "new")
    await old.tick()

    async def interrupted(*_: Any) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(database_of(oban), "write", interrupted)
    with pytest.raises(asyncio.CancelledError):
        await old.resign()
    monkeypatch.undo()
    assert not old.leads
    await old.resign()
    await new.tick()
    assert new.leads


async def test_a_node_without_leadership_never_leads(oban: Oban, caplog: pytest.LogCaptureFixture) -> None:
    with clock.use(Monotonic()) as now:
        assert isinstance(now, Monotonic)
        one = Leader(database_of(oban), Options(leadership=False, lease=60))
        other = leader(oban, "other")
        for seconds, warnings in ((0, 0), (59, 0), (2, 1), (61, 1), (61, 1)):
            now.seconds += seconds
            await one.tick()
            assert not one.leads
            assert caplog.text.count("no node of the instance Oban leads") == warnings
        await other.tick()
        await one.tick()
        one.on_signal({"action": "resign", "name": "Oban", "node": "x"})
        assert not looks_soon(one)
        await other.resign()
        for seconds, warnings in ((59, 1), (2, 2)):
            now.seconds += seconds
            await one.tick()
            assert caplog.text.count("no node of the instance Oban leads") == warnings
        await one.resign()


async def test_without_leadership_a_node_runs_jobs_but_neither_rescues_nor_prunes(url: URL) -> None:
    options: dict[str, Any] = {**LEADING, "prune_interval": 0.05, "retention": {"completed": 0}}
    services = {"oban-lifeline", "oban-pruner"}
    async with Oban(url, leadership=False, **options) as oban:
        job = await oban.enqueue(Noop.new())
        await reaches(oban, job, JobState.COMPLETED)
        await quiet()
        assert not oban.is_leader
        assert not services & {task.get_name() for task in asyncio.all_tasks()}
        assert (await row_of(oban, job)).state is JobState.COMPLETED
        async with oban.engine.connect() as connection:
            assert await connection.scalar(text("SELECT count(*) FROM oban_leaders")) == 0
        async with Oban(url, **options) as other:
            assert services <= {task.get_name() for task in asyncio.all_tasks()}
            await eventually(lambda: other.is_leader)
            await eventually_gone(other, job)


async def eventually_gone(oban: Oban, job: Job) -> None:
    async def is_gone() -> bool:
        return await oban.get_job(job.id) is None

    await eventually(is_gone)


async def test_resigning_late_does_not_take_the_lead_from_another_node(oban: Oban) -> None:
    old, new = leader(oban, "old"), leader(oban, "new")
    await old.tick()
    await expire(oban)
    await new.tick()
    await old.resign()
    await database_of(oban).write(cluster.resign, "Oban", "old")
    await new.tick()
    await leader(oban, "third").tick()
    assert new.leads


async def test_a_follower_tries_again_when_the_lease_of_the_leader_ends(oban: Oban) -> None:
    first, second = leader(oban, "first", lease=1.0), leader(oban, "second", lease=60.0)
    await first.tick()
    pause = await second.tick()
    assert pause is not None
    assert 0 < pause <= 1.2
    assert await first.tick() is None


async def test_a_node_that_freezes_before_its_commit_does_not_stop_elections_or_heartbeats(
    url: URL,
) -> None:
    beats = [Heartbeat(uuid.uuid4(), "Oban", "node", f"queue{number}", {}) for number in range(3)]
    async with Oban(url) as frozen, Oban(url) as other:
        # The first connection finds out that statements can run in autocommit.
        await frozen.list_jobs()
        async with (
            uncommitted(frozen, cluster.elect, "Oban", "frozen", 60.0),
            uncommitted(frozen, cluster.heartbeat, beats),
        ):
            held = await within(database_of(other).write(cluster.elect, "Oban", "other", 60.0), 5)
            await within(database_of(other).write(cluster.heartbeat, beats), 5)
            assert held is not None
        async with uncommitted(frozen, cluster.resign, "Oban", "frozen"):
            held = await within(database_of(other).write(cluster.elect, "Oban", "other", 60.0), 5)
            assert held is None


async def test_the_server_ends_the_statement_of_a_runner_that_is_cut_off(postgresql_url: URL) -> None:
    async with Oban(postgresql_url, statement_timeout=7) as oban:
        own = database_of(oban).with_own_pool(1, 7.0)
        pooled = Database(oban.engine, pooled=True).with_own_pool(1, 7.0)
        strict = Database(oban.engine)
        for database, expected in ((own, "8s"), (pooled, "0"), (strict, "0")):
            for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
                async with database.engine.connect() as connection:
                    assert await connection.scalar(text(f"SHOW {name}")) == expected
        await own.dispose()
        await pooled.dispose()


async def test_a_shorter_statement_timeout_of_the_application_stays(postgresql_url: URL) -> None:
    engine = create_async_engine(postgresql_url)

    @event.listens_for(engine.sync_engine, "connect")
    def limit(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("SET statement_timeout = '3s'")
        cursor.close()
        connection.commit()

    own = Database(engine).with_own_pool(1, 7.0)
    async with own.engine.connect() as connection:
        assert await connection.scalar(text("SHOW statement_timeout")) == "3s"
        assert await connection.scalar(text("SHOW idle_in_transaction_session_timeout")) == "8s"
    await own.dispose()
    await engine.dispose()
