"""Presents the figures of many runs as a table, a report and a plot."""

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.meter import CPU, SERVER
from benchmarks.scenarios import BY_NAME, Metric, Scenario

NOTE = (
    "Median (least-most) of the rounds; ratios are computed for each round. A promise bounds the ratio to our"
    " own figure in another scenario if there is one, otherwise the ratio to raw, otherwise the figure."
)


@dataclass(frozen=True, slots=True)
class Run:
    """The figures of one side of one scenario in one round."""

    database: str
    scenario: str
    side: str
    round: int
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median, the least and the greatest value of some rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """Return the spread of some values, or None if there are none."""
        return cls(median(values), min(values), max(values)) if values else None

    def text(self, form: str) -> str:
        """Format as "median (least-most)"."""
        return f"{self.median:{form}} ({self.least:{form}}-{self.most:{form}})"


@dataclass(frozen=True, slots=True)
class Line:
    """One figure of one side. Ratios are computed for each round, so that a slow round does not distort them.

    `to_own` is the ratio to the figure of the same side in the scenario `against`. `met` says whether the
    median of `judged` is within the promise; `judged` is a ratio if there is one.
    """

    database: str
    scenario: str
    side: str
    metric: str
    value: Spread
    to_raw: Spread | None
    to_own: Spread | None
    judged: Spread
    promise: float | None
    met: bool | None
    cpu_us: Spread | None
    server_us: Spread | None


def summary(runs: Sequence[Run]) -> list[Line]:
    """Return one line for each figure of each side, in the order of the scenarios."""
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
    judged = (to_own if scenario.against else to_raw) or value
    # Promises are made for PostgreSQL only.
    promise = metric.promise if (database, side) == ("postgresql", "ours") else None
    return Line(
        database=database,
        scenario=scenario.name,
        side=side,
        metric=metric.name,
        value=value,
        to_raw=to_raw,
        to_own=to_own,
        judged=judged,
        promise=promise,
        met=None if promise is None else metric.meets(judged.median),
        cpu_us=Spread.of([*figures(scenario.name, side, CPU).values()]),
        server_us=Spread.of([*figures(scenario.name, side, SERVER).values()]),
    )


HEAD = ("", "", "of raw", "of itself in", "promised", CPU, SERVER)


def table(lines: Iterable[Line]) -> str:
    """Format the lines as a Markdown table with aligned columns."""
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
    return f"{bound} {line.promise:g}: {'met' if line.met else 'missed'}"


def document(about: dict[str, Any], runs: list[Run]) -> dict[str, Any]:
    """Return all figures for a JSON file."""
    return {
        "about": about,
        "summary": [asdict(line) for line in summary(runs)],
        "runs": [asdict(run) for run in runs],
    }


def markdown(about: dict[str, Any], runs: list[Run]) -> str:
    """Return a report in Markdown."""
    facts = "\n".join(f"- {key}: {value}" for key, value in about.items())
    return f"# Benchmarks\n\n{facts}\n\n{table(summary(runs))}\n\n{NOTE}\n"


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError:
        return False
    return True


def plot(lines: Iterable[Line], file: Path) -> None:
    """Draw a bar for each of our ratios, with a line at the promise. Needs matplotlib."""
    figure_of = importlib.import_module("matplotlib.figure").Figure
    bars = [line for line in lines if line.side == "ours" and line.judged != line.value]
    figure = figure_of(figsize=(9, 1 + 0.35 * len(bars)), layout="constrained")
    axes = figure.subplots()
    for place, line in enumerate(bars):
        color = "tab:gray" if line.met is None else "tab:green" if line.met else "tab:red"
        around = [[line.judged.median - line.judged.least], [line.judged.most - line.judged.median]]
        axes.barh(place, line.judged.median, xerr=around, color=color)
        if line.promise is not None:
            axes.vlines(line.promise, place - 0.45, place + 0.45, color="black", linewidth=2)
    names = [f"{line.database} {line.scenario} {line.metric} / {_reference(line)}" for line in bars]
    axes.set_yticks(range(len(bars)), names)
    axes.invert_yaxis()
    axes.set_xlabel("median, least and most; black: the promise; for ms and MiB, less is better")
    figure.savefig(file)


def _reference(line: Line) -> str:
    return BY_NAME[line.scenario].against or "raw"
