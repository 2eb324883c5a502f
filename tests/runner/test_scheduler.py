"""The leader fires periodic entries when they are due, by the database's clock, each tick once."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, text

from oban import JobState, Oban, Periodic, clock
from oban.clock import MovableClock
from oban.config import Options
from oban.errors import ConfigError
from oban.repository import ticks
from oban.runner.services import scheduler as scheduler_module
from oban.runner.services.leader import Leader
from oban.runner.services.scheduler import Scheduler
from tests.support.internals import believe_time, database_of, forget_lead, next_tick_of
from tests.support.options import BRIEF
from tests.support.periodic import START, Leads, change, entry, fired_ticks, load, tick_rows
from tests.support.schema import sync_engine
from tests.support.statements import recorded
from tests.support.waiting import eventually, quiet
from tests.support.workers import Noop

pytestmark = pytest.mark.either_driver

MINUTE = timedelta(minutes=1)


def scheduler(oban: Oban, *entries: Periodic, leads: bool = True, **options: Any) -> Scheduler:
    chosen = Options(**options)
    leader = Leads(database_of(oban), chosen)
    leader.leading = leads
    leader.term = 1
    return Scheduler(database_of(oban), chosen, leader, lambda: entries)


@pytest.fixture
async def oban(sqlite_url: URL) -> AsyncIterator[Oban]:
    """A client on one database, for what the scheduler decides. Its statements are tested in the suite."""
    async with Oban(sqlite_url) as client:
        yield client


@pytest.fixture
def now(oban: Oban) -> Any:
    """A clock that the test moves, the database's included."""
    with clock.use(MovableClock(START)) as moving:
        yield moving


async def count(oban: Oban, name: str = "a") -> int:
    fired = await fired_ticks(oban)
    assert set(fired.values()) <= {1}
    return sum(of == name for of, _ in fired)


async def test_the_leader_declares_and_fires_the_entries_of_its_code(oban: Oban, now: MovableClock) -> None:
    one = scheduler(oban, entry("a"))
    pause = await one.tick()
    assert await count(oban) == 0
    assert pause is not None
    assert 0 < pause <= 15
    for expected in (1, 2):
        now.advance(MINUTE)
        await one.tick()
        assert await count(oban) == expected


async def test_a_node_that_does_not_lead_declares_and_does_not_fire(oban: Oban, now: MovableClock) -> None:
    one = scheduler(oban, entry("a"), leads=False)
    await one.tick()
    now.advance(MINUTE)
    await one.tick()
    assert [found.name for found in await load(oban)] == ["a"]
    assert await count(oban) == 0


async def test_a_leader_that_lost_its_lease_stops_firing(oban: Oban, now: MovableClock) -> None:
    one = scheduler(oban, entry("a"))
    await one.tick()
    now.advance(MINUTE)
    assert isinstance(one.leader, Leads)
    one.leader.leading = False
    await one.tick()
    assert await count(oban) == 0


async def test_nothing_that_is_due_means_no_statement(oban: Oban, now: MovableClock) -> None:
    one = scheduler(oban, entry("a"), entry("yearly", "@yearly"))
    await one.tick()
    with recorded(oban.engine) as statements:
        for _ in range(5):
            now.advance(10)
            await one.tick()
    assert statements == []


async def test_a_leader_does_not_sleep_past_the_next_tick(oban: Oban) -> None:
    # Without a clock that the test moves: the database's own.
    one = scheduler(oban, entry("a"), entry("later", "0 0 29 2 *"))
    before = await database_of(oban).read(ticks.read_clock_and_entries, "Oban")
    pause = await one.tick()
    after = await database_of(oban).read(ticks.read_clock_and_entries, "Oban")
    assert pause is not None
    left = [60 - (read.second + read.microsecond / 1e6) for read, _ in (before, after)]
    assert pause <= min(15, left[0] + 0.1) or left[1] > left[0]


async def test_a_clock_that_was_set_back_fires_no_tick_again_and_goes_on_after_the_last_one(
    oban: Oban, now: MovableClock
) -> None:
    one = scheduler(oban, entry("a", catch_up="all"))
    await one.tick()
    for seconds, expected in (
        (60, 1),
        (-90, 1),
        (60, 1),
        (60, 1),
        (30, 2),
        (600, 12),
        (-3600, 12),
        (3660, 13),
    ):
        now.advance(seconds)
        await one.tick()
        assert await count(oban) == expected


async def test_a_leader_that_believes_a_wrong_time_fires_nothing_early(
    oban: Oban, now: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = scheduler(oban, entry("a"))
    await one.tick()
    believe_time(monkeypatch, one, START + 10 * MINUTE)
    await one.tick()
    assert await count(oban) == 0


@pytest.mark.parametrize(("catch_up", "expected"), [("skip", 1), ("latest", 1), (3, 3), ("all", 9)])
async def test_a_new_leader_follows_the_policy_of_each_entry(
    oban: Oban, now: MovableClock, catch_up: Any, expected: int
) -> None:
    await scheduler(oban, entry("a", catch_up=catch_up)).tick()
    now.advance(minutes=9, seconds=30)
    await scheduler(oban, entry("a", catch_up=catch_up)).tick()
    assert await count(oban) == expected


async def test_an_entry_that_is_added_begins_now(oban: Oban, now: MovableClock) -> None:
    one = scheduler(oban)
    await one.tick()
    now.advance(seconds=30)
    await oban.add_periodic(entry("a", catch_up="all"))
    one.on_signal({"action": "periodic", "name": "Oban"})
    await one.tick()
    assert await count(oban) == 0
    now.advance(seconds=30)
    await one.tick()
    assert await count(oban) == 1


async def test_signals_of_other_instances_and_other_actions_are_ignored(
    oban: Oban, now: MovableClock
) -> None:
    one = scheduler(oban)
    await one.tick()
    await oban.add_periodic(entry("a"))
    now.advance(MINUTE)
    for payload in ({"action": "periodic", "name": "Another"}, {"action": "resign", "name": "Oban"}, {}):
        one.on_signal(payload)
    await one.tick()
    assert await count(oban) == 0
    one.on_poll((1, "now"))
    await one.tick()
    assert await count(oban) == 1


async def test_a_paused_entry_fires_again_from_when_it_is_resumed(oban: Oban, now: MovableClock) -> None:
    one = scheduler(oban, entry("a", catch_up="all"))
    await one.tick()
    await oban.pause_periodic("a")
    now.advance(minutes=5)
    # Even if the leader has not heard of it yet.
    await one.tick()
    assert await count(oban) == 0
    await oban.resume_periodic("a")
    one.reload()
    await one.tick()
    assert await count(oban) == 0
    now.advance(MINUTE)
    await one.tick()
    assert await count(oban) == 1


async def test_an_update_applies_to_the_tick_that_follows(oban: Oban, now: MovableClock) -> None:
    one = scheduler(oban, entry("a"))
    await one.tick()
    await oban.update_periodic("a", expression="0 * * * *")
    now.advance(MINUTE)
    # Even if the leader has not heard of it yet.
    await one.tick()
    assert await count(oban) == 0
    now.advance(minutes=59)
    await one.tick()
    assert await count(oban) == 1


async def test_entries_that_no_live_node_declares_are_not_fired_and_deleted_after_a_day(
    oban: Oban, now: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "CLEAN_AFTER", 0.0)
    await scheduler(oban, entry("a"), entry("b"), entry("c")).tick()
    await change(oban, "b", seen_at=datetime.now(UTC) - MINUTE)
    await change(oban, "c", seen_at=datetime.now(UTC) - timedelta(days=1))
    now.advance(MINUTE)
    await scheduler(oban).tick()
    assert [await count(oban, name) for name in "abc"] == [1, 0, 0]
    assert [found.name for found in await load(oban)] == ["a", "b"]


async def test_old_ticks_are_pruned(oban: Oban, now: MovableClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "CLEAN_AFTER", 0.0)
    one = scheduler(oban, entry("a"))
    await one.tick()
    now.advance(MINUTE)
    await one.tick()
    assert len(await tick_rows(oban)) == 1
    now.advance(days=7)
    await scheduler(oban, entry("a")).tick()
    assert [tick for _, tick, _ in await tick_rows(oban)] == [now.now()]


async def test_entries_that_cannot_fire_do_not_stop_others_and_try_again(
    oban: Oban, now: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    one = scheduler(oban, entry("a", catch_up="all"), entry("bad", catch_up="all"))
    await one.tick()
    await change(oban, "bad", override={"worker": ""})
    now.advance(MINUTE)
    for _ in range(3):
        await one.tick()
    assert [await count(oban, name) for name in ("a", "bad")] == [1, 0]
    assert (
        caplog.text.count("the periodic entry bad cannot insert its jobs, and tries again: InvalidJob") == 1
    )
    now.advance(MINUTE)
    pause = await one.tick()
    assert pause is not None
    assert pause < 10
    assert [await count(oban, name) for name in ("a", "bad")] == [2, 0]
    await change(oban, "bad", override=None)
    one.reload()
    await one.tick()
    assert [await count(oban, name) for name in ("a", "bad")] == [2, 2]


async def test_an_entry_whose_jobs_the_database_refuses_does_not_stop_others(
    oban: Oban, now: MovableClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = scheduler(oban, *(entry(name, catch_up="all") for name in "abcd"))
    await one.tick()
    now.advance(MINUTE)
    fire_all = ticks.fire

    def refuses(tx: Any, instance: str, names: Sequence[str], *args: Any, **options: Any) -> Any:
        fired = fire_all(tx, instance, names, *args, **options)
        if "b" in names:
            tx.execute(text("INSERT INTO oban_ticks (name) VALUES (NULL)"))
        return fired

    monkeypatch.setattr(ticks, "fire", refuses)
    await one.tick()
    assert [await count(oban, name) for name in "abcd"] == [1, 0, 1, 1]
    assert "the periodic entry b cannot insert its jobs" in caplog.text
    monkeypatch.undo()
    now.advance(MINUTE)
    one.reload()
    await one.tick()
    assert [await count(oban, name) for name in "abcd"] == [2, 2, 2, 2]


async def test_an_outage_is_no_failure_of_an_entry(
    oban: Oban, now: MovableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = scheduler(oban, entry("a"))
    await one.tick()
    now.advance(MINUTE)

    def fails(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(ticks, "fire", fails)
    with pytest.raises(ConnectionError):
        await one.tick()
    monkeypatch.undo()
    await one.tick()
    assert await count(oban) == 1


async def test_code_that_declares_a_name_twice_does_not_stop_the_leader(
    oban: Oban, now: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    await scheduler(oban, entry("a")).tick()

    def fails() -> Sequence[Periodic]:
        raise ConfigError("two entries are named a")

    leader = Leads(database_of(oban), Options())
    one = Scheduler(database_of(oban), Options(), leader, fails)
    now.advance(MINUTE)
    await one.tick()
    assert await count(oban) == 1
    assert "the periodic entries of the code cannot be declared: two entries are named a" in caplog.text


async def test_an_entry_of_the_code_that_was_added_by_a_call_is_named_in_a_warning(
    oban: Oban, now: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    await oban.add_periodic(entry("a", "0 0 1 1 *"))
    one = scheduler(oban, entry("a"), heartbeat_interval=0.001)
    for _ in range(3):
        await one.tick()
        await asyncio.sleep(0.002)
    assert caplog.text.count("the periodic entry a of the code is not in use") == 1


async def reboots(oban: Oban) -> int:
    """How often an entry has fired after a reboot."""
    return len(await tick_rows(oban))


class TestReboot:
    """An entry `@reboot` fires when a leader is elected and none was for longer than the lease."""

    @staticmethod
    async def elect(oban: Oban, *, lease: float = 60.0) -> tuple[Leader, Scheduler]:
        options = Options(lease=lease)
        leader = Leader(database_of(oban), options)
        one = Scheduler(database_of(oban), options, leader, lambda: [entry("boot", "@reboot")])
        await one.tick()
        await leader.tick()
        assert leader.leads
        await one.tick()
        return leader, one

    @staticmethod
    async def age(oban: Oban, seconds: float) -> None:
        """Let the lease of the leader have ended so many seconds ago."""
        async with oban.engine.begin() as connection:
            at = (datetime.now(UTC) - timedelta(seconds=seconds)).replace(tzinfo=None).isoformat(" ")
            await connection.execute(text(f"UPDATE oban_leaders SET expires_at = '{at}'"))

    async def test_it_fires_for_the_first_leader_at_the_time_of_its_election(self, oban: Oban) -> None:
        leader, one = await self.elect(oban)
        await one.tick()
        elected_at = await database_of(oban).read(ticks.elected_at, "Oban", leader.identity)
        assert [(name, tick) for name, tick, _ in await tick_rows(oban)] == [("boot", elected_at)]
        assert await reboots(oban) == 1

    async def test_each_database_tells_when_there_was_a_leader(self, url: URL) -> None:
        async with Oban(url) as oban:
            leader, one = await self.elect(oban)
            assert await reboots(oban) == 1
            await one.stop()
            await leader.resign()
            await self.elect(oban)
            assert await reboots(oban) == 1
            await change(oban, "boot", last_tick=datetime.now(UTC) - timedelta(hours=1))
            await self.age(oban, 70)
            await self.elect(oban)
            assert await reboots(oban) == 2

    async def test_a_leader_that_takes_over_does_not_fire_it(self, oban: Oban) -> None:
        await self.elect(oban)
        await self.age(oban, 30)
        await self.elect(oban)
        assert await reboots(oban) == 1

    async def test_it_fires_again_after_more_than_a_lease_without_a_leader(self, oban: Oban) -> None:
        await self.elect(oban)
        # So long ago that the first tick is more than a lease away, too.
        await change(oban, "boot", last_tick=datetime.now(UTC) - timedelta(hours=1))
        await self.age(oban, 70)
        await self.elect(oban)
        assert await reboots(oban) == 2

    async def test_a_leader_that_resigned_leaves_word(self, oban: Oban) -> None:
        leader, one = await self.elect(oban)
        await change(oban, "boot", last_tick=datetime.now(UTC) - timedelta(hours=1))
        await one.stop()
        await leader.resign()
        leader, one = await self.elect(oban)
        assert await reboots(oban) == 1
        await one.stop()
        await leader.resign()
        await change(oban, "boot", last_tick=datetime.now(UTC) - timedelta(seconds=70))
        await self.elect(oban)
        assert await reboots(oban) == 2

    async def test_an_entry_that_is_added_later_waits_for_the_next_reboot(self, oban: Oban) -> None:
        _, one = await self.elect(oban)
        await oban.add_periodic(entry("late", "@reboot"))
        one.reload()
        await one.tick()
        assert await reboots(oban) == 1

    async def test_a_leader_that_is_elected_again_after_an_outage_does_not_fire_it(self, oban: Oban) -> None:
        leader, one = await self.elect(oban)
        await change(oban, "boot", last_tick=datetime.now(UTC) - timedelta(hours=1))
        await self.age(oban, 1000)
        forget_lead(leader)
        await leader.tick()
        await one.tick()
        assert (leader.term, await reboots(oban)) == (2, 1)


async def simulate(url: URL, minutes: int, seed: int, start: datetime = START) -> None:
    """Two leaders at once, a new one every ten minutes, and a clock that steps by 90 seconds."""
    chance = random.Random(seed)
    zones = ("UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Africa/Casablanca")
    entries = [entry(f"e{n}", catch_up="all", timezone=zone) for n, zone in enumerate(zones)]
    async with Oban(url) as oban, Oban(url, name="second") as second:
        with clock.use(MovableClock(start)) as now:
            leaders = [scheduler(client, *entries, lease=1e6) for client in (oban, second)]
            await leaders[0].tick()
            await leaders[1].tick()
            for minute in range(1, minutes + 1):
                step = chance.choice([0, 0, 0, 90, -90]) if 2 < minute < minutes - 2 else 0
                now.move_to(start + minute * MINUTE + timedelta(seconds=step))
                if minute % 10 == 0:
                    leaders[minute // 10 % 2] = scheduler(oban, *entries, lease=1e6)
                # Mostly both at once, but each also alone.
                leading = leaders if chance.random() < 0.6 else [chance.choice(leaders)]
                await asyncio.gather(*(leader.tick() for leader in leading))
            await asyncio.gather(*(leader.tick() for leader in leaders))
            fired = await fired_ticks(oban)
            assert set(fired.values()) == {1}
            expected = [f"{start + minute * MINUTE:%Y-%m-%dT%H:%M:%SZ}" for minute in range(1, minutes + 1)]
            for one in entries:
                assert sorted(tick for name, tick in fired if name == one.name) == expected
            rows = await tick_rows(oban)
            assert len(rows) == len({job_id for _, _, job_id in rows}) == 5 * minutes


@pytest.mark.parametrize("seed", [1])
async def test_two_leaders_and_a_clock_that_steps_fire_each_tick_once(url: URL, seed: int) -> None:
    # Around the change to summer time in New York.
    await simulate(url, 30, seed, START + timedelta(hours=6, minutes=45))


@pytest.mark.slow
# The ticks of a whole day are computed in the same way for each database.
@pytest.mark.parametrize(("driver", "hours"), [("sqlite", 24), ("asyncpg", 8)])
async def test_hours_of_two_leaders_and_a_clock_that_steps_fire_each_tick_once(
    request: pytest.FixtureRequest, driver: str, hours: int
) -> None:
    fixture = "sqlite_url" if driver == "sqlite" else "emptied_postgresql"
    url: URL = request.getfixturevalue(fixture)
    if driver == "asyncpg":
        url = url.set(drivername="postgresql+asyncpg")
    else:
        # As a node does when it starts, which takes the disk a third of the time.
        with sync_engine(url).connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    await simulate(url, hours * 60, 7)


async def test_a_started_node_fires_entries_and_hears_of_changes(url: URL) -> None:
    with clock.use(MovableClock(START)) as now:
        async with Oban(url, queues={"default": 1}, **BRIEF) as oban, Oban(url, name="Oban") as client:
            await eventually(lambda: oban.is_leader)
            await client.add_periodic(entry("a"))

            await eventually(lambda: next_tick_of(oban))
            for expected in (1, 2):
                now.advance(MINUTE)

                async def has_fired(expected: int = expected) -> bool:
                    return await count(oban) == expected

                await eventually(has_fired)
            await client.pause_periodic("a")
            now.advance(MINUTE)
            await quiet()
            assert await count(oban) == 2


async def test_a_node_that_only_polls_finds_changes_with_the_poll(url: URL) -> None:
    options: dict[str, Any] = {"notifier": "poll", "control_interval": 0.05, "poll_interval": 0.05, **BRIEF}
    with clock.use(MovableClock(START)) as now:
        async with Oban(url, queues={"default": 1}, **options) as oban, Oban(url, name="Oban") as client:
            await eventually(lambda: oban.is_leader)
            await client.add_periodic(entry("a", catch_up="all"))

            await eventually(lambda: next_tick_of(oban))
            now.advance(MINUTE)

            async def has_fired() -> bool:
                return await count(oban) == 1

            await eventually(has_fired)


async def test_a_node_fires_the_entries_of_its_option_and_runs_their_jobs(url: URL) -> None:
    with clock.use(MovableClock(START)) as now:
        periodic = [Periodic("a", "* * * * *", Noop.new())]
        async with Oban(url, queues={"default": 1}, periodic=periodic, **BRIEF) as oban:
            await eventually(lambda: oban.is_leader and next_tick_of(oban))
            now.advance(MINUTE)

            async def has_run() -> bool:
                jobs = await oban.list_jobs()
                return [job.state for job in jobs] == [JobState.COMPLETED]

            await eventually(has_run)
