"""Numbers, durations and sizes in texts."""

import pytest

from oban.amounts import counted, duration, short_duration, size


def test_numbers_have_the_singular_or_the_plural() -> None:
    assert [counted(number, "job") for number in (0, 1, 1200)] == ["0 jobs", "1 job", "1,200 jobs"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0 seconds"),
        (1.9, "1 second"),
        (119.9, "119 seconds"),
        (120, "2 minutes"),
        (7200, "2 hours"),
        (172_800, "2 days"),
        (1e9, "11,574 days"),
    ],
)
def test_durations_are_in_the_largest_unit_of_which_there_are_two(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_durations_of_a_few_seconds_can_have_decimals() -> None:
    shown = ["0.0 seconds", "9.9 seconds", "10 seconds", "20 seconds"]
    assert [duration(seconds, 1) for seconds in (0.04, 9.9, 9.96, 19.99)] == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (-1, "0s"),
        (59.9, "59s"),
        (125, "2m05s"),
        (12_000, "3h20m"),
        (100_000, "1d03h"),
        (1e7, "115d"),
    ],
)
def test_short_durations_have_six_characters_at_most(seconds: float | None, shown: str) -> None:
    assert short_duration(seconds) == shown


def test_sizes_are_in_their_largest_unit() -> None:
    shown = ["512 bytes", "2 kB", "24 MB", "3.0 GB"]
    assert [size(512), size(2048), size(24 * 2**20), size(3 * 2**30)] == shown
