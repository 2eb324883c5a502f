"""Each tick of a periodic entry inserts one job, whoever fires it, and no stored row stops the others."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, insert, text

from oban import Job, Oban, Periodic, clock
from oban.clock import MovableClock
from oban.models import PeriodicEntry, Tick
from oban.repository import ticks
from tests.support.internals import database_of
from tests.support.periodic import (
    START,
    change,
    declare,
    empty_periodic,
    entry,
    fire,
    fired_ticks,
    load,
    tick_rows,
)
from tests.support.rows import lasting_url

MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module", params=["sqlite", "asyncpg"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each. Those of the scheduler use each driver."""
    yield from lasting_url(request)


@pytest.fixture(autouse=True)
async def now(oban: Oban) -> Any:
    """A clock that the test moves, the database's included."""
    await empty_periodic(oban)
    with clock.use(MovableClock(START)) as moving:
        yield moving


def times(count: int, first: int = 1) -> list[str]:
    """The ticks of so many minutes, as jobs tell them."""
    return [f"2025-03-09T00:{minute:02}:00Z" for minute in range(first, first + count)]


async def ticks_of(oban: Oban, name: str) -> list[str]:
    fired = await fired_ticks(oban)
    assert set(fired.values()) <= {1}
    return sorted(tick for of, tick in fired if of == name)


async def test_a_tick_inserts_a_job_of_the_entry(oban: Oban, now: MovableClock) -> None:
    options: dict[str, Any] = {
        "args": {"kind": "daily"},
        "tags": ["a"],
        "meta": {"own": 1},
        "queue": "reports",
    }
    await declare(oban, entry("nightly", "30 2 * * *", timezone="America/New_York", **options))
    assert (await fire(oban)).ticks == []
    now.advance(hours=6, minutes=59, seconds=59)
    assert (await fire(oban)).ticks == []
    now.advance(1)
    ((name, tick, job_id),) = (await fire(oban)).ticks
    # At 2:30 on this day, clocks have been set forward.
    assert (name, tick) == ("nightly", START + timedelta(hours=7))
    job = await oban.get_job(job_id)
    assert job is not None
    assert (job.worker, job.args, job.queue, job.tags) == ("app.Worker", {"kind": "daily"}, "reports", ["a"])
    assert job.meta == {
        "own": 1,
        "cron": True,
        "cron_name": "nightly",
        "cron_expr": "30 2 * * *",
        "cron_tz": "America/New_York",
        "cron_tick": "2025-03-09T07:00:00Z",
    }
    assert (job.state, job.scheduled_at, job.max_attempts) == ("available", now.now(), 20)
    assert await tick_rows(oban) == [("nightly", tick, job_id)]
    assert (await load(oban))[0].last_tick == tick
    assert (await fire(oban)).ticks == []


async def test_the_instances_max_attempts_apply(oban: Oban, now: MovableClock) -> None:
    await declare(oban, entry("a"))
    now.advance(MINUTE)
    (fired,) = (await fire(oban, max_attempts=3)).ticks
    job = await oban.get_job(fired.job_id)
    assert job is not None
    assert job.max_attempts == 3


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [("skip", times(1, 7)), ("latest", times(1, 7)), (3, times(3, 5)), ("all", times(7))],
)
async def test_a_node_that_was_down_over_several_ticks_follows_the_policy(
    oban: Oban, now: MovableClock, catch_up: Any, expected: list[str]
) -> None:
    await declare(oban, entry("a", catch_up=catch_up))
    now.advance(minutes=7, seconds=20)
    await fire(oban)
    assert await ticks_of(oban, "a") == expected
    # Those that were left out stay so.
    now.advance(MINUTE)
    await fire(oban)
    assert await ticks_of(oban, "a") == [*expected, *times(1, 8)]


async def test_skip_makes_nothing_up_after_more_than_a_minute(oban: Oban, now: MovableClock) -> None:
    await declare(oban, *(entry(policy, "0 * * * *", catch_up=policy) for policy in ("skip", "latest")))
    now.advance(hours=1, minutes=1, seconds=1)
    await fire(oban)
    assert list(await fired_ticks(oban)) == [("latest", "2025-03-09T01:00:00Z")]


async def test_a_clock_that_is_set_back_fires_no_tick_again(oban: Oban, now: MovableClock) -> None:
    await declare(oban, entry("a", catch_up="all"))
    for seconds in (60, -90, 30, 60, -600, 540, 180):
        now.advance(seconds)
        await fire(oban)
    assert await ticks_of(oban, "a") == times(3)


async def test_many_ticks_and_entries_fire_in_one_transaction(oban: Oban, now: MovableClock) -> None:
    await declare(oban, *(entry(f"e{n:02}", catch_up="all", window=1e6) for n in range(12)))
    now.advance(minutes=200)
    assert len((await fire(oban)).ticks) == 2400
    fired = await fired_ticks(oban)
    assert len(fired) == 2400
    rows = await tick_rows(oban)
    assert len({job_id for _, _, job_id in rows}) == 2400
    # Older ticks have smaller ids.
    assert sorted(rows, key=lambda row: row[2] or 0) == sorted(rows, key=lambda row: (row[1], row[0]))


async def test_leaders_that_fire_at_once_insert_each_job_once(
    oban: Oban, url: URL, now: MovableClock
) -> None:
    await declare(oban, *(entry(f"e{n}", catch_up="all") for n in range(5)))
    async with Oban(url, name="other") as other:
        for _ in range(5):
            now.advance(minutes=2)
            names = [f"e{n}" for n in range(5)]
            await asyncio.gather(
                fire(oban, *names), fire(other, *names[::-1]), fire(oban, *names[2:]), fire(other, "e3", "e1")
            )
    fired = await fired_ticks(oban)
    assert len(fired) == 50
    assert set(fired.values()) == {1}


async def test_a_paused_entry_does_not_fire(oban: Oban, now: MovableClock) -> None:
    await declare(oban, entry("a"), entry("b"))
    await change(oban, "a", paused=True)
    now.advance(MINUTE)
    await fire(oban)
    assert list(await fired_ticks(oban)) == [("b", times(1)[0])]
    assert (await load(oban))[0].last_tick == START


async def test_an_override_applies(oban: Oban, now: MovableClock) -> None:
    await declare(oban, entry("a", args={"x": 1}))
    await change(oban, "a", override={"expression": "*/5 * * * *", "args": {"x": 2}})
    now.advance(minutes=5, seconds=30)
    (fired,) = (await fire(oban)).ticks
    job = await oban.get_job(fired.job_id)
    assert job is not None
    assert (job.args, job.meta["cron_expr"]) == ({"x": 2}, "*/5 * * * *")
    now.advance(MINUTE)
    assert (await fire(oban)).ticks == []


async def test_an_entry_that_no_node_declares_does_not_fire(oban: Oban, now: MovableClock) -> None:
    await declare(oban, entry("code"), entry("runtime"), lease=60)
    await change(oban, "runtime", source="runtime")
    now.advance(MINUTE)
    assert [tick.entry for tick in (await fire(oban, lease=60)).ticks] == ["code", "runtime"]
    # By the database's own clock, which no test moves.
    for name in ("code", "runtime"):
        await change(oban, name, seen_at=datetime.now(UTC) - MINUTE)
    now.advance(MINUTE)
    assert [tick.entry for tick in (await fire(oban, lease=60)).ticks] == ["runtime"]
    # A node declares it again: what it missed is made up for.
    await declare(oban, entry("code"), lease=60)
    assert [tick.entry for tick in (await fire(oban)).ticks] == ["code"]


async def test_only_the_named_entries_of_the_instance_fire(oban: Oban, now: MovableClock) -> None:
    await declare(oban, entry("a"), entry("b"))
    now.advance(MINUTE)
    assert [tick.entry for tick in (await fire(oban, "b", "unknown")).ticks] == ["b"]
    fired = await database_of(oban).write(ticks.fire, "Another", ["a", "b"], 60.0)
    assert (fired.entries, fired.ticks) == ([], [])


BAD: dict[str, dict[str, Any]] = {
    "no-worker": {"expression": "* * * * *"},
    "bad-worker": {"expression": "* * * * *", "worker": ""},
    "bad-args": {"expression": "* * * * *", "worker": "w", "args": [1]},
    "bad-queue": {"expression": "* * * * *", "worker": "w", "queue": 5},
    "bad-meta": {"expression": "* * * * *", "worker": "w", "meta": "x"},
    "no-expression": {"worker": "w"},
    "bad-expression": {"expression": "61 * * * *", "worker": "w"},
    "bad-timezone": {"expression": "* * * * *", "timezone": "Nowhere", "worker": "w"},
    "bad-policy": {"expression": "* * * * *", "catch_up": "never", "worker": "w"},
    "bad-window": {"expression": "* * * * *", "window": -1, "worker": "w"},
}


async def test_entries_that_make_no_valid_job_do_not_stop_others(oban: Oban, now: MovableClock) -> None:
    await declare(oban, entry("good", catch_up="all"))
    common = {"name": "Oban", "source": "runtime", "paused": False}
    common |= dict.fromkeys(("declared_at", "seen_at", "last_tick", "updated_at"), START)
    rows = [{**common, "entry": name, "declared": declared} for name, declared in BAD.items()]
    rows.append({**common, "entry": "no-object", "declared": [1]})
    async with oban.engine.begin() as connection:
        await connection.execute(insert(PeriodicEntry), rows)
    now.advance(MINUTE)
    fired = await fire(oban)
    assert [tick.entry for tick in fired.ticks] == ["good"]
    assert {name for name, _ in fired.failures} == {*BAD, "no-object"}
    # None of their ticks counts as fired: once they are mended, it is made up for.
    await change(oban, "bad-queue", declared={"expression": "* * * * *", "worker": "w", "queue": "q"})
    now.advance(MINUTE)
    fired = await fire(oban)
    assert [tick.entry for tick in fired.ticks] == ["bad-queue", "good"]


async def test_nothing_is_fired_if_the_insert_fails(oban: Oban, now: MovableClock) -> None:
    await declare(oban, entry("a", args={"x": 1}), entry("b"))
    now.advance(MINUTE)
    # Something else about the table refuses one of the two jobs.
    async with oban.engine.begin() as connection:
        await connection.execute(text("CREATE UNIQUE INDEX only_one ON oban_jobs (worker)"))
    try:
        with pytest.raises(Exception, match=r"(?i)unique"):
            await fire(oban)
        assert (await fired_ticks(oban), await tick_rows(oban)) == ({}, [])
        assert {one.last_tick for one in await load(oban)} == {START}
    finally:
        async with oban.engine.begin() as connection:
            await connection.execute(text("DROP INDEX only_one"))
    assert len((await fire(oban)).ticks) == 2


async def test_a_reboot_fires_once_for_each_election(oban: Oban, now: MovableClock) -> None:
    await declare(oban, entry("boot", "@reboot"), entry("a"))
    assert (await fire(oban)).ticks == []
    for _ in range(2):
        fired = (await fire(oban, lease=60, reboot=START + MINUTE)).ticks
    assert fired == []
    now.advance(hours=1)
    (second,) = (await fire(oban, "boot", lease=60, reboot=now.now())).ticks
    assert (second.entry, second.tick) == ("boot", now.now())
    # Neither an election before the last one nor one within a lease after it counts.
    for reboot in (START + 2 * MINUTE, now.now() + MINUTE):
        assert (await fire(oban, "boot", lease=60, reboot=reboot)).ticks == []
    assert len(await ticks_of(oban, "boot")) == 2


async def test_an_entry_that_has_never_fired_begins_when_it_is_told_to(oban: Oban, now: MovableClock) -> None:
    await declare(oban, entry("a", catch_up="all"), entry("b"), entry("boot", "@reboot"))
    await change(oban, "a", last_tick=None)
    now.advance(minutes=5)
    assert [tick.entry for tick in (await fire(oban)).ticks] == ["b"]
    await database_of(oban).write(ticks.begin_entries, "Oban")
    now.advance(MINUTE)
    await fire(oban)
    assert await ticks_of(oban, "a") == times(1, 6)
    assert (await load(oban))[2].last_tick is None


async def test_old_ticks_are_pruned_unless_they_are_needed(oban: Oban, now: MovableClock) -> None:
    await declare(oban, entry("a"), entry("behind", "0 0 1 1 *"), entry("never"))
    await change(oban, "never", last_tick=None)
    week = timedelta(days=7)
    rows = [
        {"name": "Oban", "entry": name, "tick": START - week + age * MINUTE, "inserted_at": START}
        for name in ("a", "behind", "never", "deleted")
        for age in (-1, 0, 1)
    ]
    async with oban.engine.begin() as connection:
        await connection.execute(insert(Tick), rows)
    await change(oban, "behind", last_tick=START - week - MINUTE)
    prune = database_of(oban).write
    assert [await prune(ticks.prune_ticks, 3), await prune(ticks.prune_ticks, 3)] == [3, 1]
    assert await prune(ticks.prune_ticks, 3) == 0
    left = [(name, tick - START + week) for name, tick, _ in await tick_rows(oban)]
    assert left == [
        ("a", MINUTE),
        ("behind", -1 * MINUTE),
        ("behind", 0 * MINUTE),
        ("behind", MINUTE),
        ("deleted", MINUTE),
        *(("never", age * MINUTE) for age in (-1, 0, 1)),
    ]
    # Nor does a clock that is set back by a week fire them again.
    now.advance(-week)
    assert (await fire(oban, "a")).ticks == []


async def test_a_unique_job_that_is_there_counts_as_the_job_of_the_tick(
    oban: Oban, now: MovableClock
) -> None:
    job = Job(worker="app.Worker", unique={"period": None, "states": ["available"]})
    await declare(oban, Periodic("once", "* * * * *", job, catch_up="all"), entry("a", catch_up="all"))
    stored = await oban.enqueue(Job(worker="app.Worker", unique={"period": None, "states": ["available"]}))
    now.advance(minutes=3)
    fired = await fire(oban)
    assert [(tick.entry, tick.job_id) for tick in fired.ticks if tick.entry == "once"] == [
        ("once", stored.id)
    ] * 3
    assert await ticks_of(oban, "a") == times(3)
    assert [job_id for name, _, job_id in await tick_rows(oban) if name == "once"] == [stored.id] * 3
    # When the job is no longer in the way, the next tick inserts one; its duplicates get that.
    await oban.cancel_job(stored.id)
    now.advance(minutes=2)
    (first, second) = (tick.job_id for tick in (await fire(oban, "once")).ticks)
    assert first == second != stored.id
