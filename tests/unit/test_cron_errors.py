"""What is wrong with a cron expression or a time zone, and what to write instead."""

import contextlib
import zoneinfo
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oban import time_zones
from oban.cron import Cron
from oban.errors import ConfigError


def problem(expression: object, timezone: object = "UTC") -> str:
    with pytest.raises(ConfigError) as raised:
        Cron.parse(expression, timezone)
    return str(raised.value)


@pytest.mark.parametrize(
    ("expression", "field", "advice"),
    [
        ("61 * * * *", "minute", "'61' is not between 0 and 59"),
        ("60/5 * * * *", "minute", "'60' is not between 0 and 59"),
        ("-1 * * * *", "minute", "a range has two ends"),
        ("*/0 * * * *", "minute", "the step in '*/0' is not a number from 1; write '*/2'"),
        ("*/x * * * *", "minute", "the step in '*/x' is not a number from 1"),
        ("*/² * * * *", "minute", "the step in '*/²' is not a number from 1"),
        ("٣ * * * *", "minute", "'٣' is not between 0 and 59; a minute has numbers"),
        ("1-2-3 * * * *", "minute", "'2-3' is not between 0 and 59"),
        ("5,,6 * * * *", "minute", "a list has an empty item; write '1,2' for two values"),
        ("0 24 * * *", "hour", "'24' is not between 0 and 23"),
        ("0 22-2 * * *", "hour", "the range '22-2' ends before it begins; write '22-23,0-2'"),
        ("0 0 0 * *", "day of the month", "'0' is not between 1 and 31"),
        ("0 0 ? * *", "day of the month", "'?' is not supported; write '*' for any day of the month"),
        ("0 0 1 13 *", "month", "'13' is not between 1 and 12"),
        ("0 0 1 january *", "month", "'january' is not a name; did you mean JAN?"),
        ("0 0 1 foo *", "month", "'foo' is not between 1 and 12; a month has numbers, names such as FEB"),
        ("0 0 * * 8", "day of the week", "'8' is not between 0 and 7"),
        ("0 0 * * monday", "day of the week", "'monday' is not a name; did you mean MON?"),
        ("0 0 * * fri-sun", "day of the week", "the range 'fri-sun' ends before it begins; write '5-7'"),
        ("0 0 * * sat-tue", "day of the week", "write 'sat-6,0-tue'"),
        ("9" * 500 + " * * * *", "minute", "… is not between 0 and 59"),
    ],
)
def test_the_field_that_is_wrong(expression: str, field: str, advice: str) -> None:
    message = problem(expression)
    assert f"has an invalid {field}: " in message
    assert advice in message
    assert len(message) < 500


def test_what_a_message_proposes_for_a_range_is_valid() -> None:
    for proposed in ("0 22-23,0-2 * * *", "0 0 * * 5-7", "0 0 * * sat-6,0-tue"):
        Cron.parse(proposed)


@pytest.mark.parametrize(
    ("expression", "advice"),
    [
        ("", "is empty, but an expression has five: minute, hour, day of the month, month and day"),
        ("5", "has 1 field, but"),
        ("0 3 * *", "has 4 fields, but an expression has five"),
        ("every 5 minutes", "'*/5 * * * *' for every five minutes"),
        ("* * * * * *", "There are none for seconds, years and commands: write '* * * * *'"),
        ("*/30 0 3 * * *", "seconds, years and commands: write '0 3 * * *'"),
        ("0 0 3 * * ? 2026", "has 7 fields"),
        ("0 3 * * * backup.sh", "write '0 3 * * *'"),
    ],
)
def test_a_wrong_number_of_fields(expression: str, advice: str) -> None:
    assert advice in problem(expression)


@pytest.mark.parametrize(
    ("shortcut", "advice"),
    [
        ("@dayly", "'@dayly' is not a cron shortcut; did you mean @daily?"),
        ("@REBOOTS", "did you mean @reboot?"),
        ("@every 5m", "write '*/5 * * * *' for every five minutes"),
        ("@xyz", "known are @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually, @reboot"),
        ("@", "known are @hourly"),
    ],
)
def test_an_unknown_shortcut(shortcut: str, advice: str) -> None:
    assert advice in problem(shortcut)


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 */31 * MON#2"])
def test_an_expression_that_is_never_due(expression: str) -> None:
    assert "is never due: no day of the month" in problem(expression)


@pytest.mark.parametrize("expression", [None, 5, b"0 3 * * *", ["0 3 * * *"], timedelta(hours=1)])
def test_an_expression_that_is_no_string(expression: object) -> None:
    assert "a cron expression is a string such as '0 3 * * *', not" in problem(expression)


def test_an_expression_that_is_too_long() -> None:
    assert "is longer than 1000 characters" in problem("1," * 1000 + "1 * * * *")


@given(
    st.text("0123456789*/-,?#LW @abcMONJANS\t.", max_size=25)
    | st.tuples(*[st.text("0123456789*/-,LW#?", min_size=1, max_size=6)] * 5).map(" ".join)
)
@settings(max_examples=300, deadline=None)
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert Cron.parse(text).expression == text


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("Europe/Berlim", "there is no time zone 'Europe/Berlim'; did you mean 'Europe/Berlin'?"),
        ("europe/berlin", "did you mean 'Europe/Berlin'?"),
        ("berlin", "did you mean 'Europe/Berlin'?"),
        ("new york", "did you mean 'America/New_York'?"),
        ("Nowhere", "time zones have names such as 'Europe/Berlin' or 'UTC'"),
        ("", "time zones have names"),
        ("a\0b", "time zones have names"),
        ("../etc/passwd", "time zones have names"),
        ("+02:00", "time zones have names"),
        (timezone(timedelta(hours=2)), "is no time zone with a name"),
        (None, "None is no time zone with a name"),
        (5, "5 is no time zone with a name"),
    ],
)
def test_an_unknown_time_zone(name: object, advice: str) -> None:
    assert advice in problem("0 3 * * *", name)


class Pytz(tzinfo):
    """A time zone of pytz."""

    zone = "Asia/Tokyo"

    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(hours=9)

    def tzname(self, _: datetime | None) -> str:
        return "JST"

    def dst(self, _: datetime | None) -> timedelta:
        return timedelta()


@pytest.mark.parametrize(
    ("timezone", "name"),
    [
        ("Asia/Tokyo", "Asia/Tokyo"),
        (zoneinfo.ZoneInfo("Asia/Tokyo"), "Asia/Tokyo"),
        (Pytz(), "Asia/Tokyo"),
        (UTC, "UTC"),
        (zoneinfo.ZoneInfo("UTC"), "UTC"),
    ],
)
def test_a_time_zone_has_a_name(timezone: Any, name: str) -> None:
    assert Cron.parse("0 3 * * *", timezone).timezone == name


def test_without_time_zone_data_only_utc_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> zoneinfo.ZoneInfo:
        raise zoneinfo.ZoneInfoNotFoundError(name)

    monkeypatch.setattr(time_zones, "ZoneInfo", fails)
    monkeypatch.setattr(time_zones, "available_timezones", set)
    assert "has no time zone data: install the package tzdata" in problem("0 3 * * *", "Europe/Vienna")
    assert time_zones.find("UTC") is UTC
