"""Cron expressions are due when Debian's cron would run them, also on days when clocks change."""

import random
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest

from oban.cron import SHORTCUTS, Cron
from tests.support.cron_oracle import Stretch

#: Zones, and days on which their clocks change, with the days before and after.
CHANGES = [
    ("America/New_York", "2025-03-08", 3),
    ("America/New_York", "2025-11-01", 3),
    ("Europe/London", "2025-03-29", 3),
    ("Europe/London", "2025-10-25", 3),
    # By half an hour.
    ("Australia/Lord_Howe", "2025-04-05", 3),
    ("Australia/Lord_Howe", "2025-10-04", 3),
    # At midnight, so that a day has no first hour, or two last ones.
    ("America/Sao_Paulo", "2018-02-17", 3),
    ("America/Sao_Paulo", "2018-11-03", 3),
    # Without 30 December 2011.
    ("Pacific/Apia", "2011-12-28", 5),
    ("UTC", "2025-03-29", 2),
]
MORE_CHANGES = [
    # Around Ramadan.
    ("Asia/Gaza", "2023-04-27", 3),
    ("Africa/Casablanca", "2025-02-22", 3),
    ("Africa/Casablanca", "2025-04-05", 3),
    # By two hours.
    ("Antarctica/Troll", "2025-03-29", 3),
    ("Antarctica/Troll", "2025-10-25", 3),
    # Without 21 August 1993.
    ("Pacific/Kwajalein", "1993-08-19", 5),
]
FIXED = [
    *("30 2 * * *", "0 2 * * *", "30 1 * * *", "0 1 * * *", "0 0 * * *", "15 0 * * *", "45 1 * * *"),
    *("59 1 * * *", "0 3 * * *", "0 12 30 12 *", "0 0 30 12 *", "30 2 * * 0", "0,30 1,2 * * *"),
    *("5 0-3 * * *", "10-20/5 1 * * *"),
]
REAL_TIME = [
    *("*/15 * * * *", "0 * * * *", "30 * * * *", "*/7 * * * *", "* 1 * * *", "*/20 2 * * *"),
    *("15 */2 * * *", "* * * * *", "30 */1 * * *"),
]


def random_expressions(count: int) -> list[str]:
    choose = random.Random(1)
    return [
        " ".join(
            (
                choose.choice(["*", "*/7", str(choose.randrange(60)), "5,35", "10-20/5"]),
                choose.choice(["*", "*/3", str(choose.randrange(4)), "0-3", "1,2"]),
                choose.choice(["*", "*", "30"]),
                "*",
                choose.choice(["*", "*", "0", "6"]),
            )
        )
        for _ in range(count)
    ]


@cache
def stretch(zone: str, date: str, days: int) -> Stretch:
    return Stretch(zone, date, days)


def wrong(place: Stretch, expressions: list[str]) -> list[str]:
    """The expressions that are due at other times than Debian's cron would run them."""
    return [
        text
        for text in expressions
        if list(Cron.parse(text, place.zone).ticks(place.start, place.end)) != place.ticks(text)
    ]


@pytest.mark.parametrize(("zone", "date", "days"), CHANGES + MORE_CHANGES)
def test_ticks_are_those_of_debians_cron(zone: str, date: str, days: int) -> None:
    assert wrong(stretch(zone, date, days), FIXED + REAL_TIME) == []


@pytest.mark.slow
@pytest.mark.parametrize(("zone", "date", "days"), CHANGES + MORE_CHANGES)
def test_ticks_of_random_expressions_are_those_of_debians_cron(zone: str, date: str, days: int) -> None:
    assert wrong(stretch(zone, date, days), random_expressions(60)) == []


@pytest.mark.parametrize("text", ["30 2 * * *", "0,30 1,2 * * *", "*/20 2 * * *"])
def test_the_next_tick_is_the_same_one_by_one(text: str) -> None:
    place = stretch("America/New_York", "2025-03-08", 3)
    cron = Cron.parse(text, place.zone)
    found, time = [], place.start - timedelta(seconds=1)
    while (tick := cron.next_after(time)) is not None and tick < place.end:
        found.append(tick)
        time = tick
    assert found == place.ticks(text)


@pytest.mark.parametrize("text", ["30 2 * * *", "*/20 * * * *", "0 0 29 2 *"])
@pytest.mark.parametrize("count", [0, 1, 3, 10_000])
def test_the_newest_ticks_are_the_last_ones_of_all(text: str, count: int) -> None:
    cron = Cron.parse(text, "America/New_York")
    start, end = datetime(2024, 2, 1, 0, 20, tzinfo=UTC), datetime(2024, 4, 1, 12, 20, 30, tzinfo=UTC)
    # The tick at the start is not one of them, the one at the end is.
    every = [tick for tick in cron.ticks(start, end + timedelta(seconds=1)) if start < tick <= end]
    assert cron.newest(start, end, count) == (every[-count:] if count else [])


def next_of(text: str, *time: int, timezone: str = "UTC") -> str:
    tick = Cron.parse(text, timezone).next_after(datetime(*time, tzinfo=UTC))  # type: ignore[misc,arg-type]
    return str(tick).removesuffix("+00:00")


def test_a_tick_is_after_the_time() -> None:
    assert next_of("0 3 * * *", 2025, 1, 1, 2, 59, 59) == "2025-01-01 03:00:00"
    assert next_of("0 3 * * *", 2025, 1, 1, 3) == "2025-01-02 03:00:00"
    assert Cron.parse("0 3 * * *").next_after(datetime(2025, 1, 1, 2, 59, 59, 999_999, tzinfo=UTC)) == (
        datetime(2025, 1, 1, 3, tzinfo=UTC)
    )


def test_ticks_begin_with_the_start_and_end_before_the_end() -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    ticks = list(Cron.parse("0 * * * *").ticks(start, start + timedelta(hours=2)))
    assert ticks == [start, start + timedelta(hours=1)]


def test_a_clock_changes_at_a_whole_second_wherever_the_search_begins() -> None:
    place = stretch("Australia/Lord_Howe", "2025-04-05", 3)
    for text in ("0 */2 * * *", "45 1 * * *"):
        ticks = Cron.parse(text, place.zone).ticks(place.start - timedelta(seconds=0.5), place.end)
        assert list(ticks) == place.ticks(text)


@pytest.mark.parametrize(
    ("text", "tick"),
    [
        ("0 0 29 2 *", "2028-02-29 00:00:00"),
        # A Sunday, 29 February.
        ("0 0 29 2 */7", "2032-02-29 00:00:00"),
        ("0 0 31 * *", "2025-03-31 00:00:00"),
        ("0 0 13 * fri", "2025-02-07 00:00:00"),
        ("0 9 1-7 * MON", "2025-02-02 09:00:00"),
        ("0 0 * jan-mar/2 *", "2025-03-01 00:00:00"),
        ("0 0 * * 7", "2025-02-02 00:00:00"),
        ("0 0 L * *", "2025-02-28 00:00:00"),
        ("0 0 * * mon#2", "2025-02-10 00:00:00"),
    ],
)
def test_dates_of_the_calendar(text: str, tick: str) -> None:
    assert next_of(text, 2025, 2, 1, 12) == tick


@pytest.mark.parametrize(
    ("shortcut", "tick"),
    [
        ("@hourly", "2025-05-06 08:00:00"),
        ("@daily", "2025-05-07 00:00:00"),
        ("@midnight", "2025-05-07 00:00:00"),
        ("@weekly", "2025-05-11 00:00:00"),
        ("@monthly", "2025-06-01 00:00:00"),
        ("@yearly", "2026-01-01 00:00:00"),
        ("@annually", "2026-01-01 00:00:00"),
    ],
)
def test_shortcuts(shortcut: str, tick: str) -> None:
    assert next_of(shortcut, 2025, 5, 6, 7, 8) == tick
    assert next_of(f" {shortcut.upper()} ", 2025, 5, 6, 7, 8) == tick
    assert shortcut in SHORTCUTS


def test_a_reboot_is_at_no_time_of_the_clock() -> None:
    cron = Cron.parse("@reboot", "Asia/Tokyo")
    now = datetime(2025, 1, 1, tzinfo=UTC)
    assert cron.is_reboot
    assert not Cron.parse("@daily").is_reboot
    assert cron.next_after(now) is None
    assert list(cron.ticks(now, now + timedelta(days=1))) == []
    assert cron.newest(now, now + timedelta(days=1), 1) == []


def test_zones_whose_offset_was_no_whole_number_of_minutes() -> None:
    # Amsterdam was 19 minutes and 32 seconds ahead, and an hour more in the summer, until 1 July 1937.
    cron = Cron.parse("0 0 * * *", "Europe/Amsterdam")
    ticks = cron.ticks(datetime(1937, 6, 30, tzinfo=UTC), datetime(1937, 7, 3, tzinfo=UTC))
    assert [str(tick) for tick in ticks] == [
        "1937-06-30 22:40:28+00:00",
        "1937-07-01 22:40:00+00:00",
        "1937-07-02 22:40:00+00:00",
    ]


@pytest.mark.parametrize("timezone", ["UTC", "Pacific/Apia", "America/New_York"])
def test_the_first_and_the_last_year_do_not_overflow(timezone: str) -> None:
    cron = Cron.parse("0 0 29 2 *", timezone)
    first = cron.next_after(datetime.min.replace(tzinfo=UTC))
    assert first is not None
    assert first.year == 4
    assert cron.next_after(datetime.max.replace(tzinfo=UTC)) is None
    assert cron.next_after(datetime(9997, 1, 1, tzinfo=UTC)) is None
    assert list(cron.ticks(datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))) == []
