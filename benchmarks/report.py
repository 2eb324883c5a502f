"""Figures of many runs as one table, a report and a plot."""

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.meter import CPU, SERVER
from benchmarks.scenarios import BY_NAME, Metric, Scenario

NOTE = (
    "Median (least-most) of the rounds; ratios are taken round by round. A promise is about the ratio to"
    " itself where there is one, else about that to raw, else about the figure."
)


@dataclass(frozen=True, slots=True)
class Run:
    """One side of one scenario, once."""

    database: str
    scenario: str
    side: str
    round: int
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, and the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """None of nothing."""
        return cls(median(values), min(values), max(values)) if values else None

    def text(self, form: str) -> str:
        """As "median (least-most)"."""
        return f"{self.median:{form}} ({self.least:{form}}-{self.most:{form}})"


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of one side. Ratios are taken round by round: what slows a whole round does not count.

    `to_own` is to the figure of the same side in the scenario that this one is held against. `kept` says
    whether the median of `held`, which is a ratio where there is one, is within the promise.
    """

    database: str
    scenario: str
    side: str
    metric: str
    value: Spread
    to_raw: Spread | None
    to_own: Spread | None
    held: Spread
    promise: float | None
    kept: bool | None
    cpu_us: Spread | None
    server_us: Spread | None


def summary(runs: Sequence[Run]) -> list[Line]:
    """One line for each figure of each side, in the order of the registry."""
    found = {(run.database, run.scenario, run.side) for run in runs}
    databases = dict.fromkeys(run.database for run in runs)
    return [
        _line(runs, database, scenario, side, metric)
        for database in databases
        for scenario in BY_NAME.values()
        for side in scenario.sides_on(database)
        for metric in scenario.metrics
        if (database, scenario.name, side) in found
    ]


def _line(runs: Sequence[Run], database: str, scenario: Scenario, side: str, metric: Metric) -> Line:
    def figures(name: str | None, side: str, metric: str = metric.name) -> dict[int, float]:
        those = (run for run in runs if (run.database, run.scenario, run.side) == (database, name, side))
        return {run.round: run.figures[metric] for run in those if metric in run.figures}

    def ratio(to: dict[int, float]) -> Spread | None:
        return Spread.of([here[number] / to[number] for number in here if number in to])

    here = figures(scenario.name, side)
    value = Spread.of([*here.values()])
    assert value is not None
    to_raw = ratio(figures(scenario.name, "raw")) if side != "raw" else None
    to_own = ratio(figures(scenario.against, side))
    held = (to_own if scenario.against else to_raw) or value
    # What is promised, is promised of PostgreSQL.
    promise = metric.promise if (database, side) == ("postgresql", "ours") else None
    return Line(
        database=database,
        scenario=scenario.name,
        side=side,
        metric=metric.name,
        value=value,
        to_raw=to_raw,
        to_own=to_own,
        held=held,
        promise=promise,
        kept=None if promise is None else metric.keeps(held.median),
        cpu_us=Spread.of([*figures(scenario.name, side, CPU).values()]),
        server_us=Spread.of([*figures(scenario.name, side, SERVER).values()]),
    )


HEAD = ("", "", "of raw", "of itself in", "promised", CPU, SERVER)


def table(lines: Iterable[Line]) -> str:
    """The lines as a Markdown table that can be read as it is."""
    rows = [
        [
            f"{line.database} {line.scenario}, {line.side}",
            f"{line.value.text(',.0f' if line.value.median >= 100 else ',.2f')} {line.metric}",
            line.to_raw.text(".2f") if line.to_raw else "",
            f"{BY_NAME[line.scenario].against} {line.to_own.text('.2f')}" if line.to_own else "",
            _promised(line),
            f"{line.cpu_us.median:.1f}" if line.cpu_us else "",
            f"{line.server_us.median:.1f}" if line.server_us else "",
        ]
        for line in lines
    ]
    widths = [max(len(row[column]) for row in [HEAD, *rows]) for column in range(len(HEAD))]

    def text(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return "\n".join([text(HEAD), f"| {' | '.join(rule)} |", *map(text, rows)])


def _promised(line: Line) -> str:
    if line.promise is None:
        return ""
    (metric,) = (metric for metric in BY_NAME[line.scenario].metrics if metric.name == line.metric)
    bound = "at least" if metric.higher_is_better else "at most"
    return f"{bound} {line.promise:g}: {'kept' if line.kept else 'missed'}"


def document(about: dict[str, Any], runs: list[Run]) -> dict[str, Any]:
    """Everything, for a file of JSON."""
    return {
        "about": about,
        "summary": [asdict(line) for line in summary(runs)],
        "runs": [asdict(run) for run in runs],
    }


def markdown(about: dict[str, Any], runs: list[Run]) -> str:
    """A report, for people."""
    facts = "\n".join(f"- {key}: {value}" for key, value in about.items())
    return f"# Benchmarks\n\n{facts}\n\n{table(summary(runs))}\n\n{NOTE}\n"


def can_plot() -> bool:
    """Whether matplotlib is here."""
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError:
        return False
    return True


def plot(lines: Iterable[Line], file: Path) -> None:
    """Bars of our ratios, each with the line that is promised. Needs matplotlib, as nothing else does."""
    figure_of = importlib.import_module("matplotlib.figure").Figure
    bars = [line for line in lines if line.side == "ours" and line.held != line.value]
    figure = figure_of(figsize=(9, 1 + 0.35 * len(bars)), layout="constrained")
    axes = figure.subplots()
    for place, line in enumerate(bars):
        color = "tab:gray" if line.kept is None else "tab:green" if line.kept else "tab:red"
        around = [[line.held.median - line.held.least], [line.held.most - line.held.median]]
        axes.barh(place, line.held.median, xerr=around, color=color)
        if line.promise is not None:
            axes.vlines(line.promise, place - 0.45, place + 0.45, color="black", linewidth=2)
    names = [f"{line.database} {line.scenario} {line.metric} / {_reference(line)}" for line in bars]
    axes.set_yticks(range(len(bars)), names)
    axes.invert_yaxis()
    axes.set_xlabel("median, least and most; black: the promise; of ms and MiB, less is better")
    figure.savefig(file)


def _reference(line: Line) -> str:
    return BY_NAME[line.scenario].against or "raw"
