"""`travel` lets jobs live at another time, for a block or as the decorator of a test."""

import asyncio
import re
import threading
import unittest
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from oban import clock
from oban.errors import ConfigError
from oban.testing import travel

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def is_now(time: datetime) -> bool:
    return abs(time - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("to", "units", "expected"),
    [
        (NEW_YEAR, {}, NEW_YEAR),
        (datetime(2030, 1, 1, 2, tzinfo=timezone(2 * timedelta(hours=1))), {}, NEW_YEAR),
        (DAY, {}, NEW_YEAR + DAY),
        (-DAY, {}, NEW_YEAR - DAY),
        (None, {"days": 1, "hours": -1.5}, NEW_YEAR + timedelta(hours=22.5)),
        (None, {}, NEW_YEAR),
    ],
)
def test_the_time_is_absolute_or_from_now(to: Any, units: dict[str, Any], expected: datetime) -> None:
    with travel(to=NEW_YEAR):
        with travel(to, **units) as moving:
            assert clock.now() == moving.now() == expected
        assert clock.now() == NEW_YEAR
    assert is_now(clock.now())


def test_from_the_machines_time_without_another_block() -> None:
    with travel():
        assert is_now(clock.now())
        assert clock.now() == clock.now()
    with travel(days=1):
        assert is_now(clock.now() - DAY)


def test_the_clock_can_be_moved_on() -> None:
    with travel(NEW_YEAR) as moving:
        moving.advance(hours=1)
        assert clock.now() == NEW_YEAR + timedelta(hours=1)
        moving.move_to(NEW_YEAR + DAY)
        with travel(days=1) as inner:
            inner.advance(days=1)
            assert clock.now() == NEW_YEAR + 3 * DAY
        assert clock.now() == NEW_YEAR + DAY


def test_a_ticking_clock_goes_on() -> None:
    with travel(NEW_YEAR, ticking=True):
        before = clock.now()
        while (now := clock.now()) == before:
            pass
        assert NEW_YEAR <= before < now < NEW_YEAR + timedelta(minutes=1)


def test_an_error_in_the_block_is_raised_and_the_clock_is_as_before() -> None:
    with pytest.raises(KeyError), travel(NEW_YEAR):
        raise KeyError
    assert is_now(clock.now())


def test_one_object_can_be_used_again_and_within_itself() -> None:
    tomorrow = travel(days=1)
    with travel(NEW_YEAR):
        with tomorrow, tomorrow as moving:
            assert moving.now() == NEW_YEAR + 2 * DAY
        with tomorrow:
            assert clock.now() == NEW_YEAR + DAY
        assert clock.now() == NEW_YEAR


def test_all_threads_are_there() -> None:
    times: list[datetime] = []
    with travel(NEW_YEAR):
        thread = threading.Thread(target=lambda: times.append(clock.now()))
        thread.start()
        thread.join()
    assert times == [NEW_YEAR]


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a date": (date(2030, 1, 1), {}, "2030-01-01 is a whole day: write datetime(2030, 1, 1, tzinfo=UTC)"),
    "no time zone": (datetime(2030, 1, 1, 2), {}, "has none: write datetime(2030, 1, 1, 2, tzinfo=UTC)"),
    "a text": ("2030-01-01", {}, "a datetime with a time zone or a timedelta, not '2030-01-01'"),
    "a number": (60, {}, "not 60; units such as days=1 are also possible"),
    "both": (NEW_YEAR, {"days": 1}, "a time or units such as days=…, not both"),
    "an unknown unit": (None, {"day": 1}, "no unit day; did you mean days?"),
    "a unit that is no unit": (None, {"until": 1}, "no unit until; known are days, hours"),
    "a unit that is no number": (None, {"days": "1"}, "days must be a number, not '1'"),
    "not a number": (None, {"days": float("nan")}, "a timedelta cannot tell that many days"),
    "too many units": (None, {"weeks": 1e12}, "a timedelta cannot tell that many weeks"),
    "too far": (timedelta.max, {}, "a datetime cannot tell the time"),
    "before the first year in UTC": (
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))),
        {},
        "a datetime in UTC cannot tell the time 0001-01-01T00:00:00+02:00",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_time_is_a_clear_error(case: str) -> None:
    to, units, message = WRONG[case]
    with pytest.raises(ConfigError, match=re.escape(message)), travel(to, **units):
        pass
    assert is_now(clock.now())


@travel(NEW_YEAR)
def test_it_decorates_a_test() -> None:
    assert clock.now() == NEW_YEAR


@travel(NEW_YEAR)
async def test_it_decorates_an_async_test() -> None:
    await asyncio.sleep(0)
    assert clock.now() == NEW_YEAR


@pytest.mark.parametrize("days", [1, 2])
@travel(NEW_YEAR)
def test_a_decorated_test_has_its_parameters_and_fixtures(days: int, tmp_path: Any) -> None:
    with travel(days=days):
        assert clock.now() == NEW_YEAR + days * DAY
    assert tmp_path.exists()


class TestMethods:
    @travel(NEW_YEAR)
    async def test_it_decorates_a_method(self) -> None:
        assert clock.now() == NEW_YEAR


class TestUnittest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        self.moving = self.enterContext(travel(NEW_YEAR))

    async def test_it_is_a_context_of_a_test_case(self) -> None:
        assert clock.now() == NEW_YEAR
        assert self.moving.advance(days=1) == NEW_YEAR + DAY

    @travel(days=2)
    async def test_it_decorates_a_method(self) -> None:
        assert clock.now() == NEW_YEAR + 2 * DAY


async def test_calls_of_a_decorated_function_are_apart() -> None:
    seen: list[datetime] = []

    @travel(days=1)
    async def tomorrow(depth: int) -> int:
        """Say when it is."""
        seen.append(clock.now())
        if depth:
            await tomorrow(depth - 1)
        return depth

    with travel(NEW_YEAR):
        assert [await tomorrow(1), await tomorrow(0)] == [1, 0]
        assert seen == [NEW_YEAR + DAY, NEW_YEAR + 2 * DAY, NEW_YEAR + DAY]
        assert clock.now() == NEW_YEAR
    assert (tomorrow.__name__, tomorrow.__doc__) == ("tomorrow", "Say when it is.")


def test_what_would_run_after_the_call_cannot_be_decorated() -> None:
    def steps() -> Any:
        yield

    async def async_steps() -> Any:
        yield

    for wrong in (steps, async_steps, TestMethods, 7):
        with pytest.raises(ConfigError, match=r"a coroutine function, not .*: use `with travel\(…\)` in it"):
            travel(NEW_YEAR)(wrong)  # type: ignore[type-var]
