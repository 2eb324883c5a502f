"""SQLite, which has no statistics without ANALYZE, uses the same indexes."""

import re
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.orm import Session

from oban.repository import job_facts
from tests.plans.calls import CALLS
from tests.plans.table import EXECUTING, LARGE
from tests.support.databases import SQLiteFactory
from tests.support.transactions import joined

_ACCESS = re.compile(
    rf"\b({'|'.join(LARGE)})\b(?: USING (?:COVERING )?INDEX (\w+)| USING (INTEGER PRIMARY KEY))?"
)


@pytest.fixture(scope="module")
def connection(sqlite_factory: SQLiteFactory) -> Iterator[Connection]:
    url = sqlite_factory.create()
    engine = create_engine(url.set(drivername="sqlite"))
    with engine.connect() as made:
        yield made
    engine.dispose()
    sqlite_factory.drop(url)


def index_of(table: str, index: str | None, by_rowid: str | None) -> str | None:
    """The index by which a table is read, by its name in PostgreSQL; None if it is scanned."""
    # The index of a primary key has no name of its own.
    is_key = by_rowid or index == f"sqlite_autoindex_{table}_1"
    return f"{table}_pkey" if is_key else index


@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.on_sqlite])
def test_a_statement_uses_its_index(connection: Connection, name: str) -> None:
    plans = []

    def explain(_: object, __: object, sql: str, parameters: tuple[object, ...], *___: object) -> None:
        if sql.endswith("WHERE 0"):
            # This statement only takes the lock.
            return
        cursor = connection.connection.cursor()
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)
        plans.append((sql, [str(row[3]) for row in cursor.fetchall()]))

    call = CALLS[name]
    event.listen(connection, "before_cursor_execute", explain)
    try:
        with Session(connection) as session:
            call.run(joined(session))
    finally:
        event.remove(connection, "before_cursor_execute", explain)
        connection.rollback()
    used = set()
    for sql, steps in plans:
        for step in steps:
            if step.startswith(("SCAN", "SEARCH")) and (access := _ACCESS.search(step)):
                used.add(index_of(*access.groups()) or f"none: {sql}")
            # The few executing jobs may be sorted.
            assert "TEMP B-TREE" not in step or call.rows == EXECUTING, sql
    assert used
    assert used <= call.indexes


def test_the_facts_of_a_job_are_found_by_indexes(connection: Connection) -> None:
    statements = []

    def record(_: object, __: object, sql: str, parameters: tuple[object, ...], *___: object) -> None:
        statements.append((sql, parameters))

    event.listen(connection, "before_cursor_execute", record)
    try:
        with Session(connection) as session:
            job_facts.read_facts(joined(session), 1, 60.0)
    finally:
        event.remove(connection, "before_cursor_execute", record)
        connection.rollback()
    ((sql, parameters),) = statements
    cursor = connection.connection.cursor()
    cursor.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)
    steps = [str(row[3]) for row in cursor.fetchall()]
    # `AS` names each use of the table of jobs.
    uses = re.findall(r'FROM oban_jobs AS "?(\w+)', sql) + re.findall(r'JOIN oban_jobs AS "?(\w+)', sql)
    assert {"job", "this", "newest", "before", "other"} <= {*uses}
    for use in uses:
        found = [step for step in steps if re.match(rf"(SCAN|SEARCH) {use}\b", step)]
        assert found, (use, steps)
        assert all(step.startswith("SEARCH") for step in found), found
    assert any("oban_jobs_staging_index" in step for step in steps), steps
