"""The conclusions of the comparison with other queues follow from its figures. No test measures speed."""

from typing import Any

from benchmarks import promises


def rates(scenario: str, variant: str = "", **rates: list[float]) -> list[dict[str, Any]]:
    return [
        {"scenario": scenario, "variant": variant, "adapter": who, "round": number, "jobs_per_s": rate}
        for who, measured in rates.items()
        for number, rate in enumerate(measured)
    ]


def late(scenario: str, key: str, **late: tuple[float, float]) -> list[dict[str, Any]]:
    return [
        {"scenario": scenario, "variant": f"of {who}", "adapter": who, "round": 0, "missing": 0}
        | {key: {"p50": p50, "p99": p99}}
        for who, (p50, p99) in late.items()
    ]


def lines(runs: list[dict[str, Any]]) -> list[str]:
    return promises.table(runs).splitlines()[2:]


def test_each_promise_is_judged_by_the_medians_of_all_rounds() -> None:
    runs = rates(
        "drain", "c50", ours=[60, 70, 1], raw=[100, 100, 900], pgqueuer=[50.0] * 3, chancy=[55.0] * 3
    )
    assert lines(runs) == [
        "| drain c50 | 3 | 60 | 100 | chancy 55 | - |"
        " at least 0.65 x raw: 0.60, NOT MET; at least 1.5 x pgqueuer: 1.20, NOT MET |"
    ]
    faster = lines([*runs, *rates("drain", "c50", ours=[80, 80, 80])])
    assert "at least 0.65 x raw: 0.75, met; at least 1.5 x pgqueuer: 1.50, met" in faster[0]


def test_raw_loops_are_not_counted_as_peers() -> None:
    runs = rates("enqueue_bulk", ours=[50], raw=[100], raw_copy=[200], pgqueuer=[40], oban=[4])
    assert lines(runs) == [
        "| enqueue_bulk | 1 | 50 | 100 | pgqueuer 40 | 4 |"
        " at least 0.5 x raw: 0.50, met; at least 1 x best peer: 1.25, met |"
    ]


def test_where_times_are_measured_less_is_better() -> None:
    runs = late("latency", "from_after_ms", ours=(1.5, 2.0), raw=(1.0, 1.1), saq=(1.0, 2.5), oban=(2.0, 1.9))
    runs += late("scheduled", "late_ms", ours=(9.0, 51.0))
    assert lines(runs) == [
        "| latency p50 | 1 | 1.5 | 1.0 | saq 1.0 | 2.0 | at most 1.4 x raw: 1.50, NOT MET |",
        "| latency p99 | 1 | 2.0 | 1.1 | oban 1.9 | 1.9 | at most 1 x best peer: 1.05, NOT MET |",
        "| scheduled p50 | 1 | 9.0 | - | - | - | at most 10 ms: 9.00, met |",
        "| scheduled p99 | 1 | 51.0 | - | - | - | at most 50 ms: 51.00, NOT MET |",
    ]


def test_a_full_table_is_compared_with_our_own_empty_one() -> None:
    full = rates("drain_backlog", "c50", ours=[90], raw=[10])
    assert "at least 0.9 x drain c50: not measured" in lines(full)[0]
    assert "at least 0.9 x our drain c50: 0.90, met" in lines([*full, *rates("drain", "c50", ours=[100])])[1]


def test_runs_that_failed_do_not_count_and_all_that_is_wrong_is_named() -> None:
    runs = rates("drain", "c50", ours=[100, 100, 100])
    runs[0] = {**runs[0], "error": "it ended early"}
    runs[1] = {**runs[1], "jobs": 20, "runs": 21, "capped": False}
    runs[2] = {**runs[2], "jobs": 20, "runs": 20, "capped": False}
    runs += late("latency", "from_after_ms", ours=(1.0, 1.0))
    runs[3]["missing"] = 2
    assert lines(runs)[0].startswith("| drain c50 | 2 | 100 |")
    assert promises.faults(runs) == [
        "drain c50 of ours, round 1: it ended early",
        "drain c50 of ours, round 2: 20 jobs ran 21 times",
        "latency of ours of ours, round 1: 2 jobs did not run",
    ]
