"""Texts, numbers and durations as pages show them."""

from datetime import timedelta

import pytest

from oban.web import code, texts


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (-3, "0 ms"),
        (0.35, "350 ms"),
        (1.24, "1.2 s"),
        (59.97, "59s"),
        (125, "2m05s"),
        (timedelta(hours=3, minutes=20), "3h20m"),
    ],
)
def test_a_duration_is_short(value: float | timedelta | None, shown: str) -> None:
    assert texts.duration(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (2.5, "2.5"), (950, "950"), (12_500, "12.5k"), (999_999, "1.0M"), (3_200_000, "3.2M")],
)
def test_a_compact_number_is_short(value: float, shown: str) -> None:
    assert texts.compact(value) == shown


@pytest.mark.parametrize("value", ["plain", "two\nlines\tand a tab", "مرحبا بك", "e\u0301 👩\u200d💻"])
def test_a_text_that_can_be_seen_stays_as_it_is(value: str) -> None:
    assert texts.visible(value) == value


def test_a_text_that_turns_what_follows_it_is_shown_by_its_code() -> None:
    assert texts.visible("a\u202eb\x00\ud800") == "a[U+202E]b[U+0000][U+D800]"


@pytest.mark.parametrize("value", [b"\xffbytes", 12, None, ["list"]])
def test_a_value_of_another_type_is_shown_as_text(value: object) -> None:
    assert texts.visible(value)


def test_a_traceback_keeps_its_text() -> None:
    text = 'Traceback (most recent call last):\n  File "a.py", line 2, in f\n    raise E("x")\nE: <b>\n'
    fragments = list(code.traceback(text))
    assert "".join(part.text for part in fragments) == text
    assert {"comment", "error"} <= {part.kind for part in fragments}


def test_the_end_of_a_long_traceback_is_kept() -> None:
    assert "".join(part.text for part in code.traceback("x\n" * 100_000 + "E: last")).endswith("E: last\n")
