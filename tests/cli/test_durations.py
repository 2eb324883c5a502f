"""Durations in arguments, files and the environment are written in the same way."""

import pytest

from oban.durations import parse


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("500ms", 0.5),
        ("90s", 90),
        ("1.5h", 5400),
        (" 7 D ", 604_800),
        ("1w", 604_800),
        ("1d12h", 129_600),
        ("5m5ms", 300.005),
    ],
)
def test_a_duration_is_a_number_with_a_unit_or_several(text: str, seconds: float) -> None:
    assert parse(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "h", "-5s", "1y", "1h 5", "1.s", "٣s", "1e3"])
def test_another_text_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="must be a number of seconds, or a period such as 90s"):
        parse(text)
