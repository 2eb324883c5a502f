"""`job.progress` checks its arguments, and `Progress` reads back what was stored."""

import math
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from oban import InvalidJob, Job, Progress
from oban.progress import MAX_MESSAGE, check

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Integer:
    """An integer of another library."""

    def __index__(self) -> int:
        return 7


@pytest.mark.parametrize(
    ("value", "checked"),
    [(0, 0), (3, 3), (2.5, 2.5), (Integer(), 7), (Fraction(1, 2), 0.5), (2**63 - 1, 2**63 - 1), (-0.0, 0.0)],
)
def test_numbers_are_taken(value: Any, checked: float) -> None:
    assert check(value, value, None) == (checked, checked, None)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "must be a number, not None"),
        (True, "must be a number, not True"),
        ("3", "must be a number, not '3'"),
        (Decimal(3), r"must be a number, not Decimal\('3'\)"),
        (math.nan, "must be finite, not nan"),
        (math.inf, "must be finite, not inf"),
        (-1, "must not be negative or more than 2"),
        (-0.5, "must not be negative or more than 2"),
        (2**63, "must not be negative or more than 2"),
    ],
)
def test_other_values_are_refused(value: Any, problem: str) -> None:
    with pytest.raises(InvalidJob, match=f"progress: done {problem}"):
        check(value, None, None)
    if value is not None:
        with pytest.raises(InvalidJob, match=f"progress: total {problem}"):
            check(1, value, None)


@pytest.mark.parametrize(
    ("message", "stored"),
    [
        ("reading", "reading"),
        ("", None),
        ("  \n", None),
        ("a\x00b", "a\ufffdb"),
        ("a\ud800b", "a?b"),
        ("x" * 600, "x" * (MAX_MESSAGE - 1) + "…"),
        ("\x01" * 500, "\x01" * 500),
        ("🎉" * 500, "🎉" * 500),
    ],
)
def test_messages_can_be_stored(message: str, stored: str | None) -> None:
    assert check(1, 2, message)[2] == stored


def test_a_message_is_a_string() -> None:
    with pytest.raises(InvalidJob, match="progress: message must be a string, not 5"):
        check(1, 2, 5)


def progress(**values: Any) -> Progress:
    defaults = {"done": 3, "total": 10, "message": "reading", "attempt": 2, "at": NOW}
    return Progress(**{**defaults, **values})


@pytest.mark.parametrize(
    ("done", "total", "fraction"), [(3, 10, 0.3), (12, 10, 1.0), (3, None, None), (0, 0, None), (0, 5, 0.0)]
)
def test_the_fraction_is_between_0_and_1(done: float, total: float | None, fraction: float | None) -> None:
    assert progress(done=done, total=total).fraction == fraction


@pytest.mark.parametrize("values", [{}, {"total": None, "message": None}, {"done": 2.5, "total": 0}])
def test_what_is_stored_is_read_back(values: dict[str, Any]) -> None:
    made = progress(**values)
    assert Progress.parse(made.as_dict()) == made


@pytest.mark.parametrize(
    "stored",
    [
        None,
        5,
        "half",
        [],
        {},
        {"done": 1},
        {**progress().as_dict(), "done": "3"},
        {**progress().as_dict(), "done": None},
        {**progress().as_dict(), "total": -1},
        {**progress().as_dict(), "message": 5},
        {**progress().as_dict(), "at": "yesterday"},
        {**progress().as_dict(), "attempt": "1"},
    ],
)
def test_what_others_have_stored_in_the_key_is_no_progress(stored: object) -> None:
    assert Progress.parse(stored) is None
    job = Job(worker="a", meta={"progress": stored})
    assert job.last_progress is None
    assert job.current_progress is None


def test_a_time_without_a_zone_is_utc() -> None:
    parsed = Progress.parse({**progress().as_dict(), "at": "2026-01-31T12:00:00"})
    assert parsed is not None
    assert parsed.at == NOW


def test_a_job_without_a_run_checks_and_reports_nothing() -> None:
    job = Job(worker="a")
    job.progress(3, 10, "reading")
    assert job.last_progress is None
    assert job.meta == {}
    with pytest.raises(InvalidJob, match="must not be negative"):
        job.progress(-1)
