"""Figures of many runs as one table."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Run:
    """One role, once."""

    database: str
    scenario: str
    who: str
    round: int
    jobs_per_second: float
    cpu_us_per_job: float


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, and the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median(values), min(values), max(values))

    def text(self, form: str) -> str:
        """As "median (least-most)"."""
        return f"{self.median:{form}} ({self.least:{form}}-{self.most:{form}})"


@dataclass(frozen=True, slots=True)
class Line:
    """One scenario on one database, both sides of it."""

    database: str
    scenario: str
    ours: Spread
    raw: Spread
    #: Ours by raw, round by round, so that what slows a whole round down does not count.
    ratio: Spread
    our_cpu_us: Spread
    raw_cpu_us: Spread


def summary(runs: Iterable[Run]) -> list[Line]:
    """One line for each scenario, in the order of the runs."""
    grouped: dict[tuple[str, str], dict[str, list[Run]]] = {}
    for run in runs:
        grouped.setdefault((run.database, run.scenario), {}).setdefault(run.who, []).append(run)
    lines = []
    for (database, scenario), by in grouped.items():
        ours, raw = (sorted(by[who], key=lambda run: run.round) for who in ("ours", "raw"))
        pairs = zip(ours, raw, strict=True)
        lines.append(
            Line(
                database=database,
                scenario=scenario,
                ours=Spread.of([run.jobs_per_second for run in ours]),
                raw=Spread.of([run.jobs_per_second for run in raw]),
                ratio=Spread.of([one.jobs_per_second / other.jobs_per_second for one, other in pairs]),
                our_cpu_us=Spread.of([run.cpu_us_per_job for run in ours]),
                raw_cpu_us=Spread.of([run.cpu_us_per_job for run in raw]),
            )
        )
    return lines


def table(lines: Iterable[Line]) -> str:
    """The lines as a Markdown table that can be read as it is."""
    head = ["", "ours, jobs/s", "raw, jobs/s", "ours/raw", "CPU us/job, ours", "raw"]
    rows = [
        [
            f"{line.database} {line.scenario}",
            line.ours.text(",.0f"),
            line.raw.text(",.0f"),
            line.ratio.text(".2f"),
            f"{line.our_cpu_us.median:.1f}",
            f"{line.raw_cpu_us.median:.1f}",
        ]
        for line in lines
    ]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def text(row: list[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return "\n".join([text(head), f"| {' | '.join(rule)} |", *map(text, rows)])


def document(about: dict[str, Any], runs: list[Run]) -> dict[str, Any]:
    """Everything, for a file of JSON."""
    return {
        "about": about,
        "summary": [asdict(line) for line in summary(runs)],
        "runs": [asdict(run) for run in runs],
    }
