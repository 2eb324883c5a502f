"""With 100,000 attempts, those of a few jobs are found and deleted without reading the others."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, event, text
from sqlalchemy.orm import Session

from oban.repository import attempts
from oban.repository.acknowledge import Ack
from oban.repository.selection import parse
from tests.plans.explain import MODES, explained
from tests.support.databases import PostgreSQLFactory, SQLiteFactory
from tests.support.transactions import joined

JOBS = 100_000
INDEX = "oban_attempts_job_id_index"
OWNER = "11111111-1111-4111-8111-111111111101"
#: Jobs end nearly in the order of their ids: every fiftieth one ended 20,000 jobs later.
FILL = f"""
INSERT INTO oban_attempts (job_id, attempt, outcome, node, producer, started_at, ended_at)
SELECT n, 1, CASE WHEN n % 2 = 0 THEN 'cancelled' ELSE 'completed' END, 'node', '{OWNER}',
       timezone('UTC', now()), timezone('UTC', now())
  FROM generate_series(1, {JOBS}) AS n ORDER BY n + CASE WHEN n % 50 = 0 THEN 20000 ELSE 0 END + n % 7 * 10
"""
LATE = [Ack(id_, 1, OWNER, "failed", error="late") for id_ in range(90_000, 90_400, 2)]
#: The calls, with the number of rows that each finds or changes, and the pages that it may read besides them.
CALLS: dict[str, tuple[Any, int, int]] = {
    "list": (lambda tx: attempts.list_attempts(tx, parse([77_777])), 1, 150),
    "list none": (lambda tx: attempts.list_attempts(tx, parse([JOBS + 1])), 0, 150),
    "complete": (lambda tx: attempts.complete_late(tx, LATE), 200, 300),
    "delete the oldest 10,000": (lambda tx: attempts.delete_attempts(tx, range(1, 10_001)), 10_000, 500),
    "delete 1,000 in 5 places": (
        lambda tx: attempts.delete_attempts(
            tx, [id_ for start in range(1, 90_000, 20_000) for id_ in range(start, start + 200)]
        ),
        1000,
        300,
    ),
}


@pytest.fixture(scope="module")
def filled(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    url = postgresql_factory.create()
    engine = create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("ALTER TABLE oban_attempts SET (autovacuum_enabled = off)"))
        connection.execute(text(FILL))
        connection.execute(text("VACUUM ANALYZE oban_attempts"))
    engine.dispose()
    yield url
    postgresql_factory.drop(url)


@pytest.mark.parametrize("name", CALLS)
async def test_a_statement_passes_over_the_index_once(filled: URL, name: str) -> None:
    call, rows, pages = CALLS[name]
    _, plans = await explained(filled, call)
    found = dict.fromkeys(MODES, 0)
    for plan in plans:
        shown = f"{plan.mode}, {plan.buffers} pages:\n{plan.shape}\n{plan.sql}"
        scans = [node for node in plan.nodes if node.get("Relation Name") == "oban_attempts"]
        assert not any("Seq" in node["Node Type"] for node in scans), shown
        passes = [node for node in plan.nodes if node.get("Index Name") == INDEX]
        assert sum(node["Actual Loops"] for node in passes) == 1, shown
        # Each changed row is also read by its address, and written.
        assert plan.buffers <= pages + 5 * rows, shown
        found[plan.mode] += sum(int(n["Actual Rows"]) for n in scans if n["Node Type"] != "ModifyTable")
    assert set(found.values()) == {rows}


@pytest.mark.parametrize("name", CALLS)
def test_sqlite_uses_the_index(sqlite_factory: SQLiteFactory, name: str) -> None:
    url = sqlite_factory.create()
    engine = create_engine(url.set(drivername="sqlite"))
    plans: list[str] = []

    def explain(connection: Any, _: Any, sql: str, parameters: Any, *__: Any) -> None:
        cursor = connection.connection.cursor()
        plans.extend(row[3] for row in cursor.execute(f"EXPLAIN QUERY PLAN {sql}", parameters))

    event.listen(engine, "before_cursor_execute", explain)
    with engine.connect() as connection, Session(connection) as session:
        CALLS[name][0](joined(session))
    engine.dispose()
    sqlite_factory.drop(url)
    steps = [step for step in plans if "oban_attempts" in step]
    assert steps
    assert all(step.startswith("SEARCH oban_attempts USING INDEX") for step in steps), plans
