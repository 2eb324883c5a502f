"""How fast jobs are drained and inserted, next to hand-written loops over the same tables."""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import databases, report
from benchmarks.databases import Database
from benchmarks.meter import WHO
from benchmarks.report import Run

#: Longest time that one role may take, in seconds.
PATIENCE = 300


def main() -> None:
    options = _options()
    with ExitStack() as stack:
        measured = {
            "postgresql": stack.enter_context(databases.postgresql(options.database_url)),
            "sqlite": stack.enter_context(databases.sqlite()),
        }
        about = _about(options, list(measured.values()))
        print(*(f"{key}: {value}" for key, value in about.items()), sep="\n", flush=True)
        runs = []
        for run in _runs(options, measured):
            runs.append(run)
            print(f"{_label(run):50}{run.jobs_per_second:10,.0f} jobs/s", file=sys.stderr, flush=True)
    print()
    print(report.table(report.summary(runs)))
    print(f"\nmedian (min-max) of {options.rounds} rounds; ours/raw is taken round by round")
    if options.json:
        options.json.write_text(json.dumps(report.document(about, runs), indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=_positive, default=5, help="how often everything is measured")
    parser.add_argument("--jobs", type=_positive, default=20_000, help="jobs in each drain and insert")
    parser.add_argument(
        "--limits",
        type=lambda text: [_positive(item) for item in text.split(",")],
        default=[50],
        metavar="N,…",
        help="jobs at once in a drain, one drain for each (default 50; 10,50,200 shows the range)",
    )
    parser.add_argument(
        "--database-url",
        help="a PostgreSQL server, on which a database is made and dropped again"
        " (default: one is brought up, with default settings)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to a file")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def _runs(options: argparse.Namespace, measured: dict[str, Database]) -> Iterator[Run]:
    roles: list[tuple[str, int, list[str]]] = [("insert", 0, [])]
    roles += [("drain", options.jobs, ["--limit", str(limit)]) for limit in options.limits]
    for number in range(options.rounds):
        for name, database in measured.items():
            for module, waiting, arguments in roles:
                # In turns, so that neither side always comes first.
                for who in WHO if number % 2 == 0 else reversed(WHO):
                    database.prepare(waiting)
                    figures = _measure(database, module, who, "--jobs", str(options.jobs), *arguments)
                    scenario = " ".join([module, *arguments]).replace("--", "")
                    yield Run(database=name, scenario=scenario, who=who, round=number, **figures)


def _measure(database: Database, module: str, *arguments: str) -> dict[str, float]:
    """Run a role in a process of its own; its figures."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    # Not as an argument: it may hold a password.
    environment = {**os.environ, "OBAN_DATABASE_URL": database.url.render_as_string(hide_password=False)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _label(run: Run) -> str:
    return f"round {run.round + 1}  {run.database} {run.scenario}, {run.who}"


def _about(options: argparse.Namespace, measured: list[Database]) -> dict[str, Any]:
    return {
        "started": datetime.now(UTC).isoformat(" ", "seconds"),
        "jobs": options.jobs,
        "databases": ", ".join(database.about for database in measured),
        "python": f"{platform.python_version()} on {os.cpu_count()} CPUs",
        "packages": ", ".join(
            f"{name} {_version(name)}" for name in ("oban", "sqlalchemy", "asyncpg", "aiosqlite", "uvloop")
        ),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
