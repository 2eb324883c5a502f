"""Performance promises relative to other queues, and whether the results of the harness meet them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

#: The adapters that are not peers: `benchmarks/peer_adapter.py` and the hand-written loops.
OURS, RAW = "ours", ("raw", "raw_copy")
#: A measure is a scenario and its variant, such as "drain c50". A run is an entry of the harness's JSON.
Measure = str
Run = Mapping[str, Any]
#: The median of each adapter, by measure.
Medians = Mapping[Measure, Mapping[str, float]]

#: Scenarios that are measured in milliseconds, and their keys. All others are in jobs a second.
LATE = {"latency": "from_after_ms", "scheduled": "late_ms"}
PERCENTILES = ("p50", "p99")


@dataclass(frozen=True, slots=True)
class Promise:
    """Bounds a measure by `factor` times another figure, or by `factor` milliseconds if `of` is "ms"."""

    measure: Measure
    factor: float
    #: An adapter, "best peer", "ms", or another measure of our own.
    of: str

    @property
    def less(self) -> bool:
        """Whether smaller values are better."""
        return self.measure.split()[0] in LATE

    def judge(self, medians: Medians) -> str:
        """Describe the promise, the result, and whether it was met."""
        reached = self._reached(medians)
        bound = "at most" if self.less else "at least"
        of = f"our {self.of}" if self.of in medians else self.of
        promise = f"{bound} {self.factor:g} {of if of == 'ms' else f'x {of}'}"
        if reached is None:
            return f"{promise}: not measured"
        met = reached <= self.factor if self.less else reached >= self.factor
        return f"{promise}: {reached:.2f}, {'met' if met else 'NOT MET'}"

    def _reached(self, medians: Medians) -> float | None:
        by = medians.get(self.measure, {})
        if OURS not in by:
            return None
        if self.of == "ms":
            return by[OURS]
        if self.of == "best peer":
            best = best_peer(self.measure, by)
            other = by[best] if best else None
        else:
            other = medians[self.of].get(OURS) if self.of in medians else by.get(self.of)
        return by[OURS] / other if other else None


PROMISES = (
    Promise("enqueue_one", 0.6, "raw"),
    Promise("enqueue_one", 1, "best peer"),
    Promise("enqueue_bulk", 0.5, "raw"),
    Promise("enqueue_bulk", 1, "best peer"),
    Promise("drain c10", 0.6, "raw"),
    Promise("drain c50", 0.65, "raw"),
    Promise("drain c50", 1.5, "pgqueuer"),
    Promise("drain c200", 0.7, "raw"),
    Promise("drain c200", 1.4, "pgqueuer"),
    Promise("drain c200", 10, "oban"),
    Promise("drain_backlog c50", 0.9, "drain c50"),
    Promise("latency p50", 1.4, "raw"),
    Promise("latency p99", 1, "best peer"),
    Promise("scheduled p50", 10, "ms"),
    Promise("scheduled p99", 50, "ms"),
)


def figures(runs: Iterable[Run]) -> dict[Measure, dict[str, list[float]]]:
    """Group the results of all successful runs by measure and adapter, in jobs a second or ms."""
    found: dict[Measure, dict[str, list[float]]] = {}
    for run in runs:
        if "error" in run or not run["adapter"]:
            continue
        for measure, value in _figures(run):
            found.setdefault(measure, {}).setdefault(run["adapter"], []).append(value)
    return found


def _figures(run: Run) -> Iterable[tuple[Measure, float]]:
    scenario = run["scenario"]
    if scenario in LATE:
        # Each adapter has a single variant here, under various names.
        for percentile in PERCENTILES:
            yield f"{scenario} {percentile}", run[LATE[scenario]][percentile]
    else:
        yield f"{scenario} {run['variant']}".strip(), run["jobs_per_s"]


def faults(runs: Iterable[Run]) -> list[str]:
    """Describe failed runs and jobs that never ran or ran more than once: they invalidate the figures."""
    found = []
    for run in runs:
        name = f"{run['scenario']} {run['variant']} of {run['adapter']}, round {run['round'] + 1}"
        if "error" in run:
            found.append(f"{name}: {run['error']}")
        elif run.get("missing"):
            found.append(f"{name}: {run['missing']} jobs did not run")
        elif run.get("capped"):
            found.append(f"{name}: too slow, stopped by the harness")
        elif "runs" in run and run["runs"] != run["jobs"]:
            found.append(f"{name}: {run['jobs']} jobs ran {run['runs']} times")
    return found


def best_peer(measure: Measure, by: Mapping[str, float]) -> str | None:
    """Return the peer with the best result."""
    peers = [who for who in by if who != OURS and who not in RAW]
    best = min if measure.split()[0] in LATE else max
    return best(peers, key=lambda who: by[who]) if peers else None


def table(runs: Iterable[Run]) -> str:
    """Format a Markdown table with a line for each measure that the library has a result for."""
    found = figures(runs)
    medians = {measure: {who: median(of) for who, of in by.items()} for measure, by in found.items()}
    lines = [
        "| jobs/s, or ms | rounds | ours | raw | best peer | oban-py | promise: result |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for measure in dict.fromkeys(promise.measure for promise in PROMISES):
        by = medians.get(measure, {})
        if OURS not in by:
            continue
        best = best_peer(measure, by)
        cells = [
            measure,
            str(len(found[measure][OURS])),
            *(_format(measure, by.get(who)) for who in (OURS, "raw")),
            f"{best} {_format(measure, by[best])}" if best else "-",
            _format(measure, by.get("oban")),
            "; ".join(promise.judge(medians) for promise in PROMISES if promise.measure == measure),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _format(measure: Measure, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if measure.split()[0] in LATE else f"{value:,.0f}"
