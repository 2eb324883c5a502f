"""Inserts and reads rows of `oban_jobs` in any state with Core, without the library's checks."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from oban import Job
from tests.support.databases import Factory

TABLE = Job.__table__
STATES = (
    *("available", "scheduled", "suspended", "executing"),
    *("retryable", "completed", "discarded", "cancelled"),
)
#: `inserted_at` of all rows by default. Its microseconds show whether they are stored.
MADE = datetime(2024, 3, 9, 22, 15, 30, 123456, tzinfo=UTC)
#: States that a job reaches only by running.
_RAN = ("executing", "retryable", "completed", "discarded")
_ENDED = ("completed", "discarded", "cancelled")


def row(state: str = "available", **columns: Any) -> dict[str, Any]:
    """Every column but `id` of a row as the library would leave it in this state; `columns` override some."""
    attempt = columns.get("attempt", 1 if state in _RAN else 0)
    values: dict[str, Any] = {
        "state": state,
        "queue": "default",
        "worker": "tests.Nobody",
        "attempt": attempt,
        "max_attempts": 20,
        "priority": 3,
        "args": {"path": ["a", 1, None]},
        "meta": {},
        "tags": [],
        "errors": [],
        "attempted_by": ["node-1", "0b5f3a86-30e4-4c3a-9a67-1c8b7d1a2e01"] if attempt else [],
        "inserted_at": MADE,
        "scheduled_at": MADE + timedelta(minutes=1),
        "attempted_at": MADE + timedelta(minutes=2) if attempt else None,
        "cancelled_at": None,
        "completed_at": None,
        "discarded_at": None,
    }
    if state in ("scheduled", "retryable"):
        values["scheduled_at"] = _far_from_now()
    if state in _ENDED:
        values[f"{state}_at"] = MADE + timedelta(minutes=3)
    return {**values, **columns}


def _far_from_now() -> datetime:
    return datetime.now(UTC).replace(microsecond=654321) + timedelta(days=365)


async def insert_row(engine: AsyncEngine, state: str = "available", **columns: Any) -> int:
    """Insert one row, and return its id."""
    return (await insert_rows(engine, row(state, **columns)))[0]


async def insert_rows(engine: AsyncEngine, *rows: dict[str, Any]) -> list[int]:
    """Insert rows in one transaction, and return their ids in the same order."""
    async with engine.begin() as connection:
        statement = insert(TABLE).returning(TABLE.c.id, sort_by_parameter_order=True)
        return list((await connection.execute(statement, rows)).scalars())


async def delete_rows(engine: AsyncEngine) -> None:
    """Delete every row, for a test that needs an empty table."""
    async with engine.begin() as connection:
        await connection.execute(TABLE.delete())


async def read_rows(engine: AsyncEngine, ids: Iterable[int] | None = None) -> dict[int, dict[str, Any]]:
    """The existing rows by id: all of them, or those with these ids."""
    statement = select(TABLE).order_by(TABLE.c.id)
    if ids is not None:
        statement = statement.where(TABLE.c.id.in_(list(ids)))
    async with engine.connect() as connection:
        found = await connection.execute(statement)
        return {item["id"]: dict(item) for item in found.mappings()}


async def read_row(engine: AsyncEngine, id_: int) -> dict[str, Any] | None:
    """The row with this id, or None."""
    return (await read_rows(engine, [id_])).get(id_)


def shown(job: Job) -> dict[str, Any]:
    """The value of every column that an instance has loaded."""
    return {column.key: job.__dict__[column.key] for column in TABLE.columns}


def just_now(value: object, since: datetime | None = None) -> bool:
    """Whether a value is an aware UTC time between `since` (a minute ago) and now."""
    if not isinstance(value, datetime) or value.utcoffset() != timedelta(0):
        return False
    now = datetime.now(UTC)
    # SQLite's clock has milliseconds, and truncates the rest.
    earliest = (since or now - timedelta(minutes=1)) - timedelta(milliseconds=2)
    return earliest <= value <= now + timedelta(milliseconds=2)


def lasting_url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """The body of a module-scoped fixture: one database for many small tests, each with its own rows."""
    factory: Factory = request.getfixturevalue(f"{request.param}_factory")
    made = factory.create()
    yield made
    factory.drop(made)
