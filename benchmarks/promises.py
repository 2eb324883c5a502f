"""What was promised of the library beside others, and whether the results of `../shared/bench` reach it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

#: The adapters that are no peers: `benchmarks/peer_adapter.py`, and the loops written by hand.
OURS, RAW = "ours", ("raw", "raw_copy")
#: A measure is what is measured, such as "drain c50"; a run of the harness, as in its JSON.
Measure = str
Run = Mapping[str, Any]
#: The median of each adapter.
Medians = Mapping[Measure, Mapping[str, float]]

#: Scenarios measured in milliseconds, and under which key. All others are in jobs a second.
LATE = {"latency": "from_after_ms", "scheduled": "late_ms"}
PERCENTILES = ("p50", "p99")


@dataclass(frozen=True, slots=True)
class Promise:
    """At least (late: at most) so many times another figure; of "ms" so many milliseconds."""

    measure: Measure
    factor: float
    #: An adapter, "best peer", "ms", or another measure of our own.
    of: str

    @property
    def less(self) -> bool:
        """Whether less is better."""
        return self.measure.split()[0] in LATE

    def judge(self, medians: Medians) -> str:
        """What was promised, what was reached, and whether that is enough."""
        reached = self._reached(medians)
        bound = "at most" if self.less else "at least"
        of = f"our {self.of}" if self.of in medians else self.of
        said = f"{bound} {self.factor:g} {of if of == 'ms' else f'x {of}'}"
        if reached is None:
            return f"{said}: not measured"
        met = reached <= self.factor if self.less else reached >= self.factor
        return f"{said}: {reached:.2f}, {'met' if met else 'NOT MET'}"

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
    """Jobs a second, or milliseconds, of each adapter in all rounds. Runs that failed are left out."""
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
        # Each adapter has one variant here, whatever its name.
        for percentile in PERCENTILES:
            yield f"{scenario} {percentile}", run[LATE[scenario]][percentile]
    else:
        yield f"{scenario} {run['variant']}".strip(), run["jobs_per_s"]


def faults(runs: Iterable[Run]) -> list[str]:
    """What makes figures void: runs that failed, and jobs that never ran, or more than once."""
    found = []
    for run in runs:
        name = f"{run['scenario']} {run['variant']} of {run['adapter']}, round {run['round'] + 1}"
        if "error" in run:
            found.append(f"{name}: {run['error']}")
        elif run.get("missing"):
            found.append(f"{name}: {run['missing']} jobs did not run")
        elif run.get("capped"):
            found.append(f"{name}: too slow to be waited for")
        elif "runs" in run and run["runs"] != run["jobs"]:
            found.append(f"{name}: {run['jobs']} jobs ran {run['runs']} times")
    return found


def best_peer(measure: Measure, by: Mapping[str, float]) -> str | None:
    """Which of the peers does best at what was measured."""
    peers = [who for who in by if who != OURS and who not in RAW]
    best = min if measure.split()[0] in LATE else max
    return best(peers, key=lambda who: by[who]) if peers else None


def table(runs: Iterable[Run]) -> str:
    """Markdown: a line for each measure that our adapter was there for, in the order of the promises."""
    found = figures(runs)
    medians = {measure: {who: median(of) for who, of in by.items()} for measure, by in found.items()}
    lines = [
        "| jobs/s, or ms | rounds | ours | raw | best peer | oban-py | promised: reached |",
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
            *(_text(measure, by.get(who)) for who in (OURS, "raw")),
            f"{best} {_text(measure, by[best])}" if best else "-",
            _text(measure, by.get("oban")),
            "; ".join(promise.judge(medians) for promise in PROMISES if promise.measure == measure),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _text(measure: Measure, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if measure.split()[0] in LATE else f"{value:,.0f}"
