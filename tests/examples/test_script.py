"""The commands of the script, one after the other, on both databases."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine, text

from oban import migration
from tests.examples.processes import EXAMPLES, Process, finish, until
from tests.examples.processes import text as shown

LINES = """reference,amount
A-1,19.90
A-2,5
A-3,about ten
A-4,-1
A-5,Infinity
A-1,30
A-6
"""
MANY = 300


@pytest.fixture
def sync_url(empty_url: URL) -> URL:
    lite = empty_url.get_backend_name() == "sqlite"
    return empty_url.set(drivername="sqlite" if lite else "postgresql+psycopg")


@pytest.fixture
def engine(sync_url: URL) -> Iterator[Engine]:
    engine = create_engine(sync_url)
    yield engine
    engine.dispose()


def rows(engine: Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


@pytest.fixture
def script() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("script")


@pytest.fixture
def said(
    script: Any, sync_url: URL, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run a command in this process; returns its exit code and output."""

    def run(*arguments: str, url: URL = sync_url) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["script.py", "--database-url", shown(url), *arguments])
        code = script.main()
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def test_orders_are_imported_with_their_jobs_withdrawn_with_them_and_invoiced(
    sync_url: URL, engine: Engine, tmp_path: Path, said: Callable[..., tuple[int, str]]
) -> None:
    def script(*arguments: str) -> list[str]:
        return finish("script.py", "--database-url", shown(sync_url), *arguments).splitlines()

    (tmp_path / "orders.csv").write_text(LINES)
    lines = script("import", str(tmp_path / "orders.csv"))
    assert lines[:2] == ["line 2: imported A-1", "line 3: imported A-2"]
    assert [line.split(":")[1].strip() for line in lines[2:]] == [
        *["refused"] * 3,
        "A-1 exists already",
        "refused",
    ]
    orders = "SELECT reference, cents, invoice FROM imported_orders ORDER BY reference"
    jobs = "SELECT queue, state FROM oban_jobs ORDER BY id"
    assert rows(engine, orders) == [("A-1", 1990, None), ("A-2", 500, None)]
    assert rows(engine, jobs) == [("invoices", "available")] * 2

    assert said("withdraw", "A-2") == (0, "withdrew A-2, cancelled 1 jobs\n")
    assert rows(engine, jobs) == [("invoices", "available"), ("invoices", "cancelled")]

    assert script("run") == ["all jobs have ended", "invoices written: 1"]
    assert rows(engine, orders) == [("A-1", 1990, "Order A-1: 19.90")]
    assert rows(engine, jobs) == [("invoices", "completed"), ("invoices", "cancelled")]


def test_stopped_while_it_runs_it_leaves_each_order_consistent_with_its_job(
    script: Any, sync_url: URL, engine: Engine, tmp_path: Path
) -> None:
    migration.upgrade(engine)
    script.Base.metadata.create_all(engine)
    with script.Session(engine) as session, session.begin():
        orders = [script.Order(reference=f"B-{n}", cents=100) for n in range(MANY)]
        session.add_all(orders)
        session.flush()
        session.add_all(script.WriteInvoice.new(script.OrderArgs(order.id)) for order in orders)
    written = "SELECT count(*) FROM imported_orders WHERE invoice IS NOT NULL"
    process = Process(tmp_path / "log", "script.py", "--database-url", shown(sync_url), "run")
    try:
        until(lambda: rows(engine, written) != [(0,)])
        process.terminate()
        assert process.ended() == 0, process.printed()
        # It stopped at once, before all jobs were done.
        [(count,)] = rows(engine, written)
        assert process.printed().splitlines() == ["stopped", f"invoices written: {count}"]
    finally:
        process.kill()
    states = dict(rows(engine, "SELECT state, count(*) FROM oban_jobs GROUP BY state"))
    assert states == {"completed": count, "available": MANY - count}
    assert count < MANY


def test_an_error_is_reported_in_one_line(said: Callable[..., tuple[int, str]]) -> None:
    assert said("withdraw", "A-9") == (0, "there is no order A-9\n")
    code, words = said("import", "nowhere.csv")
    assert (code, words) == (1, "script.py: [Errno 2] No such file or directory: 'nowhere.csv'\n")
    code, words = said("run", url=URL.create("postgresql+psycopg", "me", "secret", "127.0.0.1", 1, "mine"))
    assert (code, "secret" in words, "Traceback" in words) == (1, False, False)
    assert words.startswith("script.py: ")
