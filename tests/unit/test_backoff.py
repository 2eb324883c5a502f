"""The default retry delays."""

import pytest

from oban import Job, Worker, backoff, fields


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 17), (2, 19), (3, 23), (10, 1039), (19, 524303), (20, 1048591)]
)
def test_the_delay_is_15_seconds_and_a_power_of_two(attempt: int, seconds: int) -> None:
    assert backoff.exponential(attempt) == seconds


@pytest.mark.parametrize("attempt", [21, 100, 32767, 10**9])
def test_the_delay_stops_growing_after_20_attempts(attempt: int) -> None:
    assert backoff.exponential(attempt) == backoff.exponential(20)


@pytest.mark.parametrize("attempt", [0, -1, -1000])
def test_impossible_attempts_get_the_shortest_delay(attempt: int) -> None:
    assert backoff.exponential(attempt) == 16


@pytest.mark.parametrize(
    ("attempt", "max_attempts", "as_attempt"),
    [(40, 40, 20), (20, 40, 10), (2, 40, 1), (100, 200, 10), (5, 100, 1), (1, 1000, 0), (32767, 32767, 20)],
)
def test_with_more_attempts_the_curve_is_stretched(attempt: int, max_attempts: int, as_attempt: int) -> None:
    assert backoff.exponential(attempt, max_attempts) == 15 + 2**as_attempt


@pytest.mark.parametrize("max_attempts", [1, 3, 19, 20])
def test_with_fewer_attempts_the_curve_is_the_same(max_attempts: int) -> None:
    assert backoff.exponential(max_attempts, max_attempts) == 15 + 2**max_attempts


def test_the_delay_never_shrinks_from_one_attempt_to_the_next() -> None:
    for most in (5, 20, 21, 100, 500):
        delays = [backoff.exponential(attempt, most) for attempt in range(1, most + 1)]
        assert delays == sorted(delays)


def test_jitter_adds_up_to_a_tenth() -> None:
    delays = [backoff.jittered(100) for _ in range(500)]
    assert 100 <= min(delays) < 102
    assert 108 < max(delays) <= 110
    assert all(100 <= backoff.jittered(100, share=0.5) <= 150 for _ in range(100))


def test_a_worker_without_its_own_backoff_has_the_default() -> None:
    class Plain(Worker):
        async def process(self, job: Job) -> None:
            return None

    job = Plain.new(max_attempts=40)
    job.__dict__["attempt"] = 20
    assert all(1039 <= fields.delay(Plain().backoff(job)) <= 1039 * 1.1 for _ in range(100))
    assert all(1039 <= backoff.default(20, 40) <= 1039 * 1.1 for _ in range(100))


@pytest.mark.parametrize(("failures", "most"), [(1, 0.2), (2, 0.4), (4, 1.6), (5, 3.0), (10_000, 3.0)])
def test_the_pause_after_failures_grows_up_to_some_seconds(failures: int, most: float) -> None:
    pauses = [backoff.pause(failures) for _ in range(500)]
    assert most * 0.5 <= min(pauses) < most * 0.55
    assert most * 0.95 < max(pauses) <= most
    assert max(backoff.pause(failures, 0.1) for _ in range(500)) <= 0.1
