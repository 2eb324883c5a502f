"""Explains the statements of a repository function as the driver sends them to PostgreSQL."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban.database.engines import make_engine
from oban.database.transaction import Transaction
from tests.plans.table import LARGE
from tests.support.transactions import joined

T = TypeVar("T")
MODES = ("custom", "generic")
ATTEMPTS = "oban_attempts"


@dataclass
class Plan:
    """The executed plan of a statement: custom for its parameters, or generic."""

    mode: str
    sql: str
    root: dict[str, Any]

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """All nodes of the plan that were executed."""
        return [node for node in _below(self.root) if node["Actual Loops"]]

    @property
    def buffers(self) -> int:
        """The number of pages of 8 kB that were read."""
        return int(self.root["Shared Hit Blocks"]) + int(self.root["Shared Read Blocks"])

    @property
    def indexes(self) -> list[str]:
        """The indexes on large tables that were used."""
        names = {node.get("Index Name", "") for node in self.nodes}
        return sorted(name for name in names if name.startswith(LARGE))

    @property
    def scans(self) -> list[str]:
        """The nodes that scanned a large table."""
        large = [node for node in self.nodes if node.get("Relation Name") in LARGE]
        return [node["Node Type"] for node in large if "Seq" in node["Node Type"]]

    @property
    def sorted(self) -> int:
        """The largest number of rows in one sort."""
        return max((_input(node) for node in self.nodes if "Sort" in node["Node Type"]), default=0)

    @property
    def shape(self) -> str:
        """The nodes, each with its table or index and the number of rows that it returned."""
        lines = []
        for node in self.nodes:
            source = node.get("Index Name") or node.get("Relation Name", "")
            lines.append(f"{node['Node Type']} {source} {node['Actual Rows']}")
        return "\n".join(lines)


def _below(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _below(child)


def _input(node: dict[str, Any]) -> int:
    return max(int(child["Actual Rows"] * child["Actual Loops"]) for child in node["Plans"])


def _literal(value: Any) -> str:
    """A parameter as a literal for EXECUTE."""
    if value is None:
        return "NULL"
    if isinstance(value, list):
        value = "{" + ",".join(json.dumps(str(item)) for item in value) + "}"
    if isinstance(value, datetime):
        value = value.isoformat()
    return "'" + str(value).replace("'", "''") + "'"


@contextmanager
def _explaining(session: Session, plans: list[Plan]) -> Iterator[None]:
    connection = session.connection()

    def explain(_: Any, __: Any, sql: str, parameters: Any, *___: Any) -> None:
        if not any(table in sql for table in (*LARGE, ATTEMPTS)) or isinstance(parameters, list):
            return
        values = ", ".join(map(_literal, parameters))
        cursor = connection.connection.cursor()
        for mode in MODES:
            cursor.execute("SAVEPOINT explained")
            cursor.execute(f"SET LOCAL plan_cache_mode = force_{mode}_plan")
            cursor.execute(f"PREPARE explained AS {sql}")
            execute = f"EXECUTE explained({values})" if parameters else "EXECUTE explained"
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON, TIMING OFF) {execute}")
            found = cursor.fetchall()[0][0]
            plans.append(Plan(mode, sql, (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]))
            cursor.execute("DEALLOCATE explained")
            cursor.execute("ROLLBACK TO SAVEPOINT explained")
        cursor.close()

    event.listen(connection, "before_cursor_execute", explain)
    try:
        yield
    finally:
        event.remove(connection, "before_cursor_execute", explain)


async def explained(url: URL, call: Callable[[Transaction], T]) -> tuple[T, list[Plan]]:
    """Run a call and roll it back; returns its result, and the plans of its statements on large tables."""
    plans: list[Plan] = []

    def explain(session: Session) -> T:
        with _explaining(session, plans):
            return call(joined(session))

    engine = make_engine(url)
    async with AsyncSession(engine) as session:
        try:
            result = await session.run_sync(explain)
        finally:
            await session.rollback()
    await engine.dispose()
    return result, plans
