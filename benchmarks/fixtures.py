"""Measures what the fixtures of the pytest plugin cost a test.

    python -m benchmarks.fixtures
    python -m benchmarks.fixtures --tests 200 --rounds 3 --database-url postgresql://postgres@127.0.0.1/postgres

Each variant runs the same number of tests in a process of its own, one variant after the other in each round.
The first test, in which the tables are created, is reported on its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from sqlalchemy import URL

from benchmarks import databases
from benchmarks.databases import Filling

#: What each test takes, and what it does.
VARIANTS = {
    "nothing": "async def test(n):\n    pass",
    "a connection by hand": "async def test(connection, n):\n    pass",
    "oban_connection": "async def test(oban_connection, n):\n    pass",
    "oban_session": "async def test(oban_session, n):\n    pass",
    "oban": "async def test(oban, n):\n    pass",
    "oban, a job": "async def test(oban, n):\n    await oban.enqueue(Noop.new())",
    "oban, a drained job": (
        "async def test(oban, n):\n    await oban.enqueue(Noop.new())\n    await testing.drain_queue()"
    ),
    "sync_oban": "def test(sync_oban, n):\n    pass",
    "sync_oban, a job": "def test(sync_oban, n):\n    sync_oban.enqueue(Noop.new())",
}
_MODULE = """
import pytest
from oban import Job, Worker, testing


class Noop(Worker):
    async def process(self, job: Job) -> None:
        pass


@pytest.mark.parametrize("n", range({tests}))
{test}
"""
_CONFTEST = """
import json
import os
import time

import pytest
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["OBAN_TEST_DATABASE_URL"], poolclass=NullPool)
times = []


@pytest.fixture
async def connection():
    async with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        await transaction.rollback()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    before = time.perf_counter(), time.process_time()
    result = yield
    times.append((time.perf_counter() - before[0], time.process_time() - before[1]))
    return result


def pytest_sessionfinish():
    with open("times.json", "w") as file:
        json.dump(times, file)
"""
_INI = """[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fixtures", description=__doc__)
    parser.add_argument("--tests", type=int, default=200, help="tests of each variant (default: 200)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument(
        "--database-url",
        help="a PostgreSQL server, on which a database is created and dropped again"
        " (default: one is started, with default settings)",
    )
    options = parser.parse_args(arguments)
    figures: dict[str, list[tuple[float, float, float]]] = {variant: [] for variant in VARIANTS}
    with databases.postgresql(options.database_url) as database:
        url = database.prepare(Filling())
        print(database.about, flush=True)
        for _ in range(options.rounds):
            for variant, test in VARIANTS.items():
                # With the first one, which does not count.
                figures[variant].append(_measure(url, _MODULE.format(tests=options.tests + 1, test=test)))
    print(_table(figures))


def _measure(url: URL, module: str) -> tuple[float, float, float]:
    """Milliseconds of a test (the median), its CPU time (the mean), and milliseconds of the first one."""
    with tempfile.TemporaryDirectory(prefix="oban-bench-") as name:
        folder = Path(name)
        (folder / "test_fixtures.py").write_text(module)
        (folder / "conftest.py").write_text(_CONFTEST)
        (folder / "pytest.ini").write_text(_INI)
        variables = {"OBAN_TEST_DATABASE_URL": url.render_as_string(hide_password=False)}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        run = subprocess.run(
            command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False
        )
        if run.returncode:
            raise SystemExit(f"the tests failed:\n{module}\n{run.stdout}{run.stderr}")
        first, *times = json.loads((folder / "times.json").read_text())
    walls, processors = zip(*times, strict=True)
    return 1000 * median(walls), 1000 * sum(processors) / len(processors), 1000 * first[0]


def _table(figures: dict[str, list[tuple[float, float, float]]]) -> str:
    """Medians of the rounds; what a variant costs more than `nothing` is computed for each round."""
    lines = [
        "| a test with | ms | CPU ms | ms more than with nothing | first test, ms |",
        "|---|---|---|---|---|",
    ]
    for variant, runs in figures.items():
        wall, processor, first = (median(column) for column in zip(*runs, strict=True))
        pairs = zip(runs, figures["nothing"], strict=True)
        more = sorted(run[0] - nothing[0] for run, nothing in pairs)
        spread = f"{median(more):.1f} ({more[0]:.1f}-{more[-1]:.1f})"
        lines.append(f"| {variant} | {wall:.1f} | {processor:.1f} | {spread} | {first:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
