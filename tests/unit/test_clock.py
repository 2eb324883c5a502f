"""The clock is aware and monotonic, and tests can replace it."""

import contextlib
from datetime import UTC, datetime, timedelta

from oban import Job, clock


class Stopped(clock.Clock):
    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return 42.0


def test_now_is_aware_utc() -> None:
    now = clock.now()
    assert now.utcoffset() == timedelta(0)
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=5)


def test_monotonic_never_goes_back() -> None:
    readings = [clock.monotonic() for _ in range(100)]
    assert readings == sorted(readings)


def test_another_clock_answers_inside_the_block_only() -> None:
    stopped = Stopped(datetime(2000, 1, 1, tzinfo=UTC))
    with clock.use(stopped) as used:
        assert used is stopped
        assert clock.now() == stopped.at
        assert clock.monotonic() == 42.0
    assert clock.now() != stopped.at
    assert clock.monotonic() != 42.0


def test_blocks_may_be_nested_and_end_with_an_error() -> None:
    outer, inner = (Stopped(datetime(year, 1, 1, tzinfo=UTC)) for year in (2000, 2001))
    with clock.use(outer):
        with contextlib.suppress(ValueError), clock.use(inner):
            assert clock.now() == inner.at
            raise ValueError("inside")
        assert clock.now() == outer.at
    assert clock.now().year > 2001


def test_a_new_job_takes_its_times_from_the_clock_in_use() -> None:
    with clock.use(Stopped(datetime(2000, 1, 1, tzinfo=UTC))):
        assert Job(worker="w", schedule_in=60).scheduled_at == datetime(2000, 1, 1, 0, 1, tzinfo=UTC)
        past = Job(worker="w", scheduled_at=datetime(1999, 1, 1, tzinfo=UTC))
        future = Job(worker="w", scheduled_at=datetime(2000, 1, 2, tzinfo=UTC))
    assert (past.state, future.state) == ("available", "scheduled")
