"""The clock is aware and monotonic, and tests can replace it."""

import contextlib
import os
import threading
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

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


NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)


def test_a_movable_clock_stands_still_until_it_is_moved() -> None:
    with clock.use(clock.MovableClock(NEW_YEAR)) as moving:
        assert clock.now() == clock.now() == NEW_YEAR
        assert moving.advance(90) == NEW_YEAR + timedelta(seconds=90)
        assert moving.advance(timedelta(hours=1), days=1) == NEW_YEAR + timedelta(days=1, seconds=3690)
        assert moving.advance(minutes=-1.5) == NEW_YEAR + timedelta(days=1, hours=1)
        assert clock.now() == moving.now()
        assert moving.move_to(NEW_YEAR) == clock.now() == NEW_YEAR


def test_a_movable_clock_begins_with_the_time_of_the_machine() -> None:
    before = datetime.now(UTC)
    begins_at = clock.MovableClock().now()
    assert before <= begins_at < datetime.now(UTC) + timedelta(milliseconds=1)


def test_a_movable_clock_that_ticks_goes_on_from_where_it_was_moved_to() -> None:
    ticking = clock.MovableClock(NEW_YEAR, ticking=True)
    began = clock.monotonic()
    while (passed := ticking.now() - NEW_YEAR) < timedelta(milliseconds=5):
        assert clock.monotonic() - began < 5
    assert passed.total_seconds() <= clock.monotonic() - began + 0.001
    later = NEW_YEAR + timedelta(days=1)
    ticking.move_to(later)
    assert later <= ticking.now() < later + timedelta(seconds=5)


def test_a_movable_clock_counts_whole_milliseconds_in_utc_and_rounds_up() -> None:
    precise = datetime(2030, 1, 1, 1, 30, 0, 123_001, timezone(timedelta(hours=1, minutes=30)))
    moving = clock.MovableClock(precise)
    assert moving.now().isoformat() == "2030-01-01T00:00:00.124000+00:00"
    assert moving.advance(0.0011).microsecond == 126_000
    assert moving.move_to(NEW_YEAR - timedelta(microseconds=1)) == NEW_YEAR
    assert moving.advance(0.001).microsecond == 1_000


def test_a_movable_clock_needs_times_with_a_zone() -> None:
    with pytest.raises(ValueError, match="the time must carry a time zone; 2030-01-01T00:00:00 does not"):
        clock.MovableClock(datetime(2030, 1, 1))
    moving = clock.MovableClock(NEW_YEAR)
    with pytest.raises(ValueError, match="must carry a time zone"):
        moving.move_to(datetime(2031, 1, 1))
    assert moving.now() == NEW_YEAR


def test_durations_are_those_of_the_machine_however_the_clock_is_moved() -> None:
    before, before_boottime = clock.monotonic(), clock.boottime()
    with clock.use(clock.MovableClock(NEW_YEAR)) as moving:
        moving.advance(days=365)
        assert 0 <= clock.monotonic() - before < 60
        assert 0 <= clock.boottime() - before_boottime < 60


def test_only_a_movable_clock_moves_the_database() -> None:
    assert not clock.moved()
    with clock.use(clock.MovableClock()):
        assert clock.moved()
        with clock.use(Stopped(NEW_YEAR)):
            assert not clock.moved()
        assert clock.moved()
    assert not clock.moved()


def test_threads_that_advance_a_clock_together_move_it_by_the_sum() -> None:
    moving = clock.MovableClock(NEW_YEAR)

    def advance() -> None:
        for _ in range(500):
            moving.advance(1)

    threads = [threading.Thread(target=advance) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert moving.now() == NEW_YEAR + timedelta(seconds=2000)


class Listener:
    def __init__(self) -> None:
        self.times: list[datetime] = []

    def hear(self) -> None:
        self.times.append(clock.now())


def test_a_listener_hears_of_each_jump_of_the_clock_in_use() -> None:
    listener, other = Listener(), clock.MovableClock()
    clock.subscribe(listener.hear)
    with clock.use(clock.MovableClock(NEW_YEAR)) as moving:
        moving.advance(60)
        moving.move_to(NEW_YEAR)
        other.advance(60)
    with clock.use(Stopped(NEW_YEAR)):
        pass
    minute_later = NEW_YEAR + timedelta(minutes=1)
    assert listener.times[:-1] == [NEW_YEAR, minute_later, NEW_YEAR]
    assert listener.times[-1] > datetime(2024, 1, 1, tzinfo=UTC)


def test_a_listener_does_not_keep_its_object_alive() -> None:
    heard: list[datetime] = []
    listener = Listener()
    listener.times = heard
    clock.subscribe(listener.hear)
    del listener
    with clock.use(clock.MovableClock()):
        assert heard == []


def test_a_forked_child_keeps_the_time_but_not_the_listeners() -> None:
    listener = Listener()
    clock.subscribe(listener.hear)
    with clock.use(clock.MovableClock(NEW_YEAR)) as moving:
        listener.times.clear()
        child = os.fork()
        if child == 0:
            moving.advance(60)
            as_expected = clock.now() == NEW_YEAR + timedelta(minutes=1) and not listener.times
            os._exit(0 if as_expected else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert clock.now() == NEW_YEAR


def test_durations_go_on_when_a_library_freezes_the_time_module(monkeypatch: pytest.MonkeyPatch) -> None:
    read = time.monotonic
    with clock.use(clock.MovableClock(ticking=True)) as ticking:
        began, before, end = clock.monotonic(), ticking.now(), read() + 10
        monkeypatch.setattr(time, "monotonic", lambda: began)
        while ticking.now() == before and read() < end:
            pass
        assert before < ticking.now() < before + timedelta(minutes=1)
        assert began < clock.monotonic() < began + 60
