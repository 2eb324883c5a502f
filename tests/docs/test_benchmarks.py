"""The benchmark runs and says what it is there to say; how fast anything is, no test decides."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import URL

from benchmarks import databases, raw
from benchmarks.report import Run, summary, table
from tests.databases import PostgreSQLFactory

ROOT = Path(__file__).parents[2]
SCENARIOS = ["insert", "drain limit 10", "drain limit 50"]
SPREAD = r"[\d,.]+ \([\d,.]+-[\d,.]+\)"


def _benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=55)


async def _ask(url: URL, query: str) -> object:
    connection: asyncpg.Connection = await raw.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_a_run_prints_a_ratio_for_each_scenario_on_each_database_and_leaves_nothing_behind(
    postgresql_factory: PostgreSQLFactory, tmp_path: Path
) -> None:
    url = postgresql_factory.server
    given = url.render_as_string(hide_password=False)
    figures = tmp_path / "figures.json"
    done = _benchmark(
        *("--jobs", "200", "--rounds", "1", "--limits", "10,50"),
        *("--database-url", given, "--json", str(figures)),
    )
    assert done.returncode == 0, done.stderr
    expected = [(database, scenario) for database in ("postgresql", "sqlite") for scenario in SCENARIOS]
    for database, scenario in expected:
        rate, ratio = rf"{SPREAD} +", r"\d\.\d\d \(\d\.\d\d-\d\.\d\d\) +"
        line = rf"^\| {database} {scenario} +\| +{rate}\| +{rate}\| +{ratio}\| +\d+\.\d \| +\d+\.\d \|$"
        assert re.search(line, done.stdout, re.MULTILINE), done.stdout
    assert "synchronous_commit" in done.stdout

    document = json.loads(figures.read_text())
    assert [(line["database"], line["scenario"]) for line in document["summary"]] == expected
    assert len(document["runs"]) == 2 * len(expected)
    assert all(run["jobs_per_second"] > 0 and run["cpu_us_per_job"] > 0 for run in document["runs"])

    left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'oban_benchmark%'"
    assert await _ask(url, left) == 0


def test_a_run_that_cannot_measure_fails_and_prints_no_table() -> None:
    done = _benchmark("--jobs", "10", "--database-url", "postgresql://postgres@127.0.0.1:1/none")
    assert done.returncode != 0
    assert "ours/raw" not in done.stdout


@pytest.mark.parametrize("given", [("--rounds", "0"), ("--limits", "10,none"), ("--jobs", "-1")])
def test_a_bad_option_is_refused(given: tuple[str, str]) -> None:
    done = _benchmark(*given)
    assert done.returncode == 2
    assert f"argument {given[0]}" in done.stderr


def test_the_server_that_is_brought_up_writes_durably_and_has_a_database_with_the_tables() -> None:
    with databases.postgresql(None) as database:
        assert "fsync on, synchronous_commit on" in database.about
        database.prepare(3)
        database.prepare(2)
        assert asyncio.run(_ask(database.url, "SELECT count(*) || ',' || max(id) FROM oban_jobs")) == "2,2"


def test_a_drain_that_finds_other_jobs_than_it_was_told_fails() -> None:
    with databases.sqlite() as database:
        database.prepare(5)
        environment = {**os.environ, "OBAN_DATABASE_URL": database.url.render_as_string(hide_password=False)}
        command = [sys.executable, "-m", "benchmarks.drain", "ours", "--jobs", "6"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "5 jobs wait in the table, not 6" in done.stderr
    assert not done.stdout


def test_a_ratio_is_taken_round_by_round() -> None:
    def run(who: str, number: int, rate: float) -> Run:
        return Run("postgresql", "drain", who, number, jobs_per_second=rate, cpu_us_per_job=10)

    # The second round was slow for both: that says nothing about either.
    rounds = [run("ours", 0, 500), run("raw", 0, 1000), run("raw", 1, 100), run("ours", 1, 50)]
    (line,) = summary([*rounds, run("ours", 2, 800), run("raw", 2, 1000)])
    assert (line.ratio.median, line.ratio.least, line.ratio.most) == (0.5, 0.5, 0.8)
    assert (line.ours.median, line.ours.least, line.ours.most) == (500, 50, 800)
    assert "| 0.50 (0.50-0.80) |" in table([line])
