"""The benchmark runs and reports its figures; no test depends on how fast anything is."""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import URL

from benchmarks import (
    beside_application,
    capacity,
    databases,
    fixtures,
    operate,
    raw,
    report,
    streams,
    tracing,
    waiting,
)
from benchmarks.__main__ import main
from benchmarks.databases import Filling
from benchmarks.meter import CPU, RATE, SERVER, Meter
from benchmarks.report import Run, summary, table
from benchmarks.scenarios import BY_NAME, chosen
from tests.support.databases import PostgreSQLFactory

SPREAD = r"[\d,.]+ \([\d,.]+-[\d,.]+\)"
#: Scenarios that differ from another one only by a number, and all the rest.
SAME = (
    *("drain-10", "drain-200", "drain-four", "drain-writing-50", "drain-threads-50"),
    *("memory-million", "memory-stream-million"),
)
DIFFERENT = [name for name in BY_NAME if name not in SAME]


@pytest.fixture(scope="module")
def postgresql(postgresql_factory: PostgreSQLFactory) -> Iterator[databases.PostgreSQL]:
    with databases.postgresql(postgresql_factory.server.render_as_string(hide_password=False)) as database:
        yield database


async def _ask(url: URL, query: str) -> object:
    connection: asyncpg.Connection = await raw.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def _run(side: str, number: int, rate: float, scenario: str = "drain-50") -> Run:
    return Run("postgresql", scenario, side, number, {RATE: rate, CPU: 10})


@pytest.mark.slow
@pytest.mark.parametrize("name", DIFFERENT)
async def test_a_scenario_runs_all_jobs_and_reports_its_figures(
    name: str, postgresql: databases.PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "REST", 0)
    monkeypatch.setattr(waiting, "AHEAD", 0.1)
    monkeypatch.setattr(waiting, "IDLE_REST", 0)
    monkeypatch.setattr(waiting, "IDLE_TIME", 1.5)
    scenario = BY_NAME[name]
    # Scenarios that start processes run one side only; together they cover both sides.
    for side in {"drain-two": ["ours"], "latency": ["raw"]}.get(name, scenario.sides):
        backlog = min(scenario.backlog, 30)
        url = await asyncio.to_thread(
            postgresql.prepare, Filling(20 if scenario.waits else 0, finished=backlog, others=backlog)
        )
        meter = Meter(20, postgresql.server)
        await scenario.measure(url, meter, side)
        assert {metric.name for metric in scenario.metrics} <= meter.figures.keys()
        # A job can begin before its insert has returned, on a busy machine long before.
        measured = [value for key, value in meter.figures.items() if key != SERVER]
        assert name == "latency" or min(measured) > 0
        assert await _ask(url, "SELECT count(*) FROM oban_jobs WHERE queue = 'other'") == backlog
        state, jobs = (
            ("available", 120) if name.startswith(("insert", "unique")) else ("completed", 20 + backlog)
        )
        if name == "memory-stream-few":
            state, jobs = "available", 20
        elif name in ("latency", "scheduled"):
            jobs += waiting.WARM_UP
        elif name.startswith("trip"):
            jobs += tracing.WARM_UP
        elif name == "idle":
            jobs = 0
        counted = (
            "SELECT string_agg(DISTINCT state::text, ' ') || count(*) FROM oban_jobs WHERE queue = 'bench'"
        )
        assert await _ask(url, counted) == (f"{state}{jobs}" if jobs else None)
        writes = name.startswith(("drain-writing", "drain-threads"))
        assert await _ask(url, "SELECT count(*) FROM bench_writes") == (20 if writes else 0)


@pytest.mark.slow
def test_a_run_prints_and_writes_its_figures_and_leaves_nothing_behind(
    postgresql_factory: PostgreSQLFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = postgresql_factory.server
    made = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database"
    before = asyncio.run(_ask(url, made))
    figures, page = tmp_path / "figures.json", tmp_path / "page.md"
    main(
        [
            *("--quick", "--scenarios", "insert-many", "--databases", "postgresql"),
            *("--json", str(figures), "--markdown", str(page)),
            *("--database-url", url.render_as_string(hide_password=False)),
        ]
    )
    printed = capsys.readouterr().out
    line = rf"^\| postgresql insert-many, (\w+) +\| +{SPREAD} jobs/s \|.+\| +\d+\.\d \| +\d+\.\d \|$"
    assert re.findall(line, printed, re.MULTILINE) == ["ours", "raw"], printed
    about, table = page.read_text().rstrip().split("\n\n", 2)[1:]
    assert printed.rstrip().endswith(table)
    assert "synchronous_commit" in about
    document = json.loads(figures.read_text())
    assert [line["side"] for line in document["summary"]] == ["ours", "raw"]
    assert len(document["runs"]) == 2
    assert asyncio.run(_ask(url, made)) == before


@pytest.mark.slow
def test_the_cost_of_each_fixture_is_reported(
    postgresql_factory: PostgreSQLFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    server = postgresql_factory.server.render_as_string(hide_password=False)
    fixtures.main(["--tests", "2", "--rounds", "1", "--database-url", server])
    printed = capsys.readouterr().out
    row = r"^\| ([\w, ]+) \| [\d.]+ \| [\d.]+ \| -?[\d.]+ \(-?[\d.]+--?[\d.]+\) \| \d+ \|$"
    assert re.findall(row, printed, re.MULTILINE) == list(fixtures.VARIANTS), printed


def test_a_side_that_cannot_be_measured_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SystemExit, match="drain-50 ours --jobs 400 failed"):
        main(["--quick", "--databases", "sqlite", "--scenarios", "drain-50"])
    assert report.NOTE not in capsys.readouterr().out


@pytest.mark.parametrize("option", [("--rounds", "0"), ("--scenarios", "drain,swim"), ("--scale", "-1")])
def test_a_bad_option_is_refused(option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(option)
    assert f"argument {option[0]}" in capsys.readouterr().err


@pytest.mark.slow
def test_the_server_that_it_starts_is_durable_and_has_exactly_the_requested_jobs() -> None:
    with databases.postgresql(None) as database:
        assert "fsync on, synchronous_commit on" in database.about
        counted = "SELECT count(*) || ' of ' || count(*) FILTER (WHERE state = 'completed') FROM oban_jobs"
        for filling in (Filling(3), Filling(2), Filling(2, 1, 1), Filling(1, 1, 1)):
            url = database.prepare(filling)
            jobs = filling.waiting + filling.finished + filling.others
            assert asyncio.run(_ask(url, counted)) == f"{jobs} of {filling.finished}"


async def test_a_drain_fails_if_the_number_of_jobs_is_wrong() -> None:
    with databases.sqlite() as database:
        url = database.prepare(Filling(5))
        with pytest.raises(SystemExit, match="5 jobs wait in the table, not 6"):
            await BY_NAME["drain-50"].measure(url, Meter(6), "ours")


def test_ratios_are_computed_for_each_round_and_compared_with_the_promise() -> None:
    # The second round was slow for both sides, which must not affect the ratio.
    rounds = [_run("ours", 0, 500), _run("raw", 0, 1000), _run("raw", 1, 100), _run("ours", 1, 50)]
    ours, raw = summary([*rounds, _run("ours", 2, 800), _run("raw", 2, 1000)])
    assert ours.to_raw is not None
    assert (ours.to_raw.median, ours.to_raw.least, ours.to_raw.most) == (0.5, 0.5, 0.8)
    assert (ours.value.median, ours.value.least, ours.value.most) == (500, 50, 800)
    assert (ours.promise, ours.met, raw.met) == (0.65, False, None)
    assert re.search(r"\| 0\.50 \(0\.50-0\.80\) \|.+\| at least 0\.65: missed \|", table([ours]))


def test_a_scenario_that_is_compared_with_another_is_measured_together_with_it() -> None:
    assert [scenario.name for scenario in chosen("drain-backlog")] == ["drain-50", "drain-backlog"]
    runs = [
        *(_run("ours", number, 1000) for number in range(2)),
        *(_run("ours", number, 950, "drain-backlog") for number in range(2)),
        *(_run("raw", number, 5000, "drain-backlog") for number in range(2)),
    ]
    ours = next(line for line in summary(runs) if line.scenario == "drain-backlog")
    assert (ours.judged.median, ours.met) == (0.95, True)


def test_a_plot_without_matplotlib_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Hides matplotlib even if it is installed.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(SystemExit, match="2"):
        main(["--plot", str(tmp_path / "plot.svg")])
    assert "oban-sqlalchemy[bench]" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["postgresql", "sqlite"])
def test_the_questions_of_an_operator_are_measured(
    name: str, postgresql: databases.PostgreSQL, tmp_path: Path
) -> None:
    database = postgresql if name == "postgresql" else databases.SQLite(tmp_path)
    answers = list(operate.measure(database, rows=2_000, rounds=1))
    asked = [*operate.LISTS, *operate.BY_ARGS, *operate.STATS, *operate.METRICS]
    assert [answer.question for answer in answers] == [*asked, *operate.BY_ARGS, *operate.MANY_QUEUES]
    assert [answer.indexed for answer in answers] == [False] * len(asked) + [True] * len(operate.BY_ARGS) + [
        False
    ]
    assert all(0 < answer.p50 <= answer.p95 for answer in answers)
    assert str(answers[0]).startswith(f"{name:<10}  list ")


@pytest.mark.slow
def test_what_open_pages_cost_is_measured(tmp_path: Path) -> None:
    database = databases.SQLite(tmp_path)
    drains = [streams.drain(database, side, jobs=30, seconds=30, pages=3) for side in streams.SIDES]
    assert [each.side for each in drains] == [*streams.SIDES]
    assert all(each.rate > 0 for each in drains)
    assert len(list(streams.report(drains))) == 1 + len(drains)
    idle = streams.idle(database, pages=2, seconds=3)
    assert (idle.open, idle.statements > 0) == (2, True)


@pytest.mark.slow
def test_what_a_server_carries_is_measured(
    postgresql_factory: PostgreSQLFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(capacity, "REST", 0)
    capacity.main(
        [
            *("--jobs", "50", "--single-jobs", "2", "--seconds", "0.1", "--rounds", "1"),
            *("--clusters", "1x1", "2x3"),
            *("--database-url", postgresql_factory.server.render_as_string(hide_password=False)),
        ]
    )
    printed = capsys.readouterr().out
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if re.match(r"\| (?!-)", line)]
    sizes = {row[0].strip(): float(row[-1].replace(",", "")) for row in rows[1:3]}
    assert 0 < sizes["waiting"] < sizes["completed"]
    assert [tuple(int(cell) for cell in row[:2]) for row in rows[4:6]] == [(1, 1), (2, 3)]
    # The statements, notifications and heartbeats of each node need a connection.
    assert all(int(row[2]) >= 3 * int(row[0]) for row in rows[4:6])
    assert [row[0].strip() for row in rows[7:]] == [*beside_application.FIGURES]
    assert all(float(row[3]) > 0 for row in rows[7:] if row[3].strip() != "nan" and "server" not in row[0])
