"""Measures how fast jobs are inserted and run, next to hand-written loops over the same tables."""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import databases, report
from benchmarks.databases import Database, Filling
from benchmarks.meter import TIME_LIMIT
from benchmarks.report import Run
from benchmarks.scenarios import BOTH, SCENARIOS, Scenario, chosen

PACKAGES = ("oban-sqlalchemy", "sqlalchemy", "asyncpg", "aiosqlite", "uvloop")
#: The scale of --quick: just enough to see that everything runs.
QUICK = 0.02


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    with ExitStack() as stack:
        measured: dict[str, Database] = {}
        if "postgresql" in options.databases:
            measured["postgresql"] = stack.enter_context(databases.postgresql(options.database_url))
        if "sqlite" in options.databases:
            measured["sqlite"] = stack.enter_context(databases.sqlite())
        about = _about(options, list(measured.values()))
        print(*(f"{key}: {value}" for key, value in about.items()), sep="\n", flush=True)
        runs = []
        for run in _runs(options, measured):
            runs.append(run)
            figures = ", ".join(f"{value:,.2f} {name}" for name, value in run.figures.items())
            print(f"round {run.round + 1}  {run.database} {run.scenario}, {run.side}: {figures}", flush=True)
            # Written after each run, so that an interrupted benchmark keeps its results.
            _write(options, about, runs)
    print(f"\n{report.table(report.summary(runs))}\n\n{report.NOTE}")
    if options.plot:
        report.plot(report.summary(runs), options.plot)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--scenarios",
        type=_chosen,
        default=SCENARIOS,
        metavar="NAME,…",
        help="scenarios by name or by its first word, such as drain,insert-one (default: all)",
    )
    parser.add_argument("--databases", type=_databases, default=BOTH, metavar="NAME,…", help="default: both")
    parser.add_argument(
        "--rounds", type=_positive, default=5, help="how often each scenario is measured (default: 5)"
    )
    parser.add_argument("--scale", type=_factor, default=1, help="factor for the number of jobs (default: 1)")
    parser.add_argument(
        "--quick", action="store_true", help=f"one round at a scale of {QUICK}, to see that everything runs"
    )
    parser.add_argument(
        "--database-url",
        help="a PostgreSQL server, on which databases are created and dropped again"
        " (default: one is started, with default settings)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to a JSON file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a report in Markdown")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="plot the ratios to a .png or .svg file")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.scale = 1, QUICK
    if options.plot and not report.can_plot():
        # Checked now instead of after an hour of measuring.
        parser.error("--plot needs matplotlib: pip install 'oban-sqlalchemy[bench]'")
    return options


def _chosen(text: str) -> list[Scenario]:
    try:
        return chosen(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _databases(text: str) -> list[str]:
    if unknown := set(text.split(",")) - set(BOTH):
        raise argparse.ArgumentTypeError(f"{unknown.pop()} is not one of {', '.join(BOTH)}")
    return text.split(",")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _factor(text: str) -> float:
    if not 0 < (number := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _runs(options: argparse.Namespace, measured: dict[str, Database]) -> Iterator[Run]:
    for number in range(options.rounds):
        for name, database in measured.items():
            for scenario in options.scenarios:
                if name not in scenario.databases or (number and scenario.once):
                    continue
                sides = scenario.sides_on(name)
                # The order alternates, so that neither side always comes first.
                for side in sides if number % 2 == 0 else reversed(sides):
                    figures = _measure(database, scenario, side, options.scale)
                    yield Run(name, scenario.name, side, number, figures)


def _measure(database: Database, scenario: Scenario, side: str, scale: float) -> dict[str, float]:
    """Run one side in a process of its own; returns its figures."""
    jobs = max(round(scenario.jobs * scale), 5)
    backlog = round(scenario.backlog * scale)
    url = database.prepare(Filling(jobs if scenario.waits else 0, finished=backlog, others=backlog))
    command = [sys.executable, "-m", "benchmarks.role", scenario.name, side, "--jobs", str(jobs)]
    if database.server:
        command += ["--server", str(database.server)]
    # Not an argument, because it may contain a password.
    environment = {**os.environ, "OBAN_DATABASE_URL": url.render_as_string(hide_password=False)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=TIME_LIMIT)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _write(options: argparse.Namespace, about: dict[str, Any], runs: list[Run]) -> None:
    if options.json:
        options.json.write_text(json.dumps(report.document(about, runs), indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(report.markdown(about, runs))


def _about(options: argparse.Namespace, measured: Sequence[Database]) -> dict[str, Any]:
    return {
        "started": datetime.now(UTC).isoformat(" ", "seconds"),
        "rounds": f"{options.rounds}, at a scale of {options.scale:g}",
        "databases": ", ".join(database.about for database in measured),
        "python": f"{platform.python_version()} on {os.cpu_count()} CPUs",
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
