"""Which ticks insert jobs after nobody has looked for a while."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oban.catch_up import due_ticks
from oban.cron import Cron
from oban.periodic import MAX_CATCH_UP, CatchUp

EVERY_TEN = Cron.parse("*/10 * * * *")
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


def due(now: datetime, policy: CatchUp, *, last_tick: datetime = NOON, window: float = 3600.0) -> list[str]:
    return [f"{tick:%H:%M}" for tick in due_ticks(EVERY_TEN, last_tick, now, policy, window)]


def at(hour: int, minute: int = 0, second: int = 0) -> datetime:
    return NOON.replace(hour=hour, minute=minute, second=second)


@pytest.mark.parametrize(
    ("policy", "ticks"),
    [
        ("skip", []),
        ("latest", ["12:40"]),
        (1, ["12:40"]),
        (2, ["12:30", "12:40"]),
        (10, ["12:10", "12:20", "12:30", "12:40"]),
        ("all", ["12:10", "12:20", "12:30", "12:40"]),
    ],
)
def test_each_policy_after_an_outage(policy: CatchUp, ticks: list[str]) -> None:
    assert due(at(12, 45), policy) == ticks


@pytest.mark.parametrize("policy", ["skip", "latest", 3, "all"])
def test_a_tick_is_due_at_its_time_with_every_policy(policy: CatchUp) -> None:
    assert due(at(12, 9, 59), policy) == []
    assert due(at(12, 10), policy) == ["12:10"]
    assert due(at(12, 10, 59), policy) == ["12:10"]
    assert due(at(12, 10, 59), policy, last_tick=at(12, 10)) == []


def test_skip_makes_up_for_a_tick_of_the_last_minute() -> None:
    assert due(at(12, 11), "skip") == ["12:10"]
    assert due(at(12, 11, 1), "skip") == []
    # Whatever the window is.
    assert due(at(12, 10, 30), "skip", window=1) == ["12:10"]
    assert due(at(12, 15), "skip", window=1e9) == []


def test_the_window_ends_what_is_made_up_for() -> None:
    assert due(at(15, 5), "all") == ["14:10", "14:20", "14:30", "14:40", "14:50", "15:00"]
    assert due(at(15), "all", window=600) == ["14:50", "15:00"]
    assert due(at(15, 5), "latest", window=60) == []
    assert due(at(15, 5), 3, window=10_000) == ["14:40", "14:50", "15:00"]


def test_the_last_tick_is_the_floor_when_the_clock_is_set_back() -> None:
    for policy in ("skip", "latest", "all"):
        assert due(at(11, 30), policy) == []
        assert due(at(12, 10), policy, last_tick=at(15)) == []


def test_an_entry_that_begins_between_two_ticks_waits_for_the_next_one() -> None:
    assert due(at(12, 9), "all", last_tick=at(12, 3)) == []
    assert due(at(12, 10), "all", last_tick=at(12, 3)) == ["12:10"]


def test_all_is_bounded() -> None:
    cron = Cron.parse("* * * * *")
    ticks = due_ticks(cron, NOON - timedelta(days=400), NOON, "all", 1e12)
    assert len(ticks) == MAX_CATCH_UP
    assert ticks[-1] == NOON
    assert ticks == due_ticks(cron, NOON - timedelta(days=400), NOON, 10**9, 1e300)


POLICIES = st.sampled_from(["skip", "latest", "all"]) | st.integers(1, 50)
EXPRESSIONS = st.sampled_from(
    ["* * * * *", "*/10 * * * *", "30 2 * * *", "0 */2 * * *", "15 1,2,3 * * 0", "@hourly"]
)
ZONES = st.sampled_from(["UTC", "America/New_York", "Australia/Lord_Howe"])
#: Around the end of daylight saving time in New York, and that in Australia.
TIMES = st.datetimes(datetime(2025, 3, 8), datetime(2025, 4, 7)).map(lambda time: time.replace(tzinfo=UTC))


@given(EXPRESSIONS, ZONES, TIMES, TIMES, POLICIES, st.floats(1, 2e5))
@settings(max_examples=200, deadline=None)
def test_ticks_are_new_ordered_within_the_window_and_the_newest(
    text: str, zone: str, last_tick: datetime, now: datetime, policy: CatchUp, window: float
) -> None:
    cron = Cron.parse(text, zone)
    ticks = due_ticks(cron, last_tick, now, policy, window)
    seconds = 60.0 if policy == "skip" else window
    every = [
        tick
        for tick in cron.ticks(max(last_tick, now - timedelta(seconds=seconds)), now + timedelta(seconds=1))
        if last_tick < tick <= now
    ]
    most = 1 if policy in ("skip", "latest") else MAX_CATCH_UP if policy == "all" else policy
    assert isinstance(most, int)
    assert ticks == every[-most:]


@given(EXPRESSIONS, ZONES, st.lists(TIMES, max_size=20), TIMES)
@settings(max_examples=100, deadline=None)
def test_no_clock_makes_a_tick_due_twice(
    text: str, zone: str, clocks: list[datetime], last_tick: datetime
) -> None:
    cron = Cron.parse(text, zone)
    fired: list[datetime] = []
    for now in clocks:
        ticks = due_ticks(cron, last_tick, now, "all", 86_400)
        fired += ticks
        last_tick = max([last_tick, *ticks])
    assert len(set(fired)) == len(fired)
    assert fired == sorted(fired)
