"""In a transaction of Oban's own on SQLite, a statement that is run again past SQLAlchemy does the same."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import Integer, bindparam, insert, literal_column
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from oban import Job, Oban
from oban.database.transaction import Transaction
from tests.support.databases import SQLiteFactory
from tests.support.internals import break_compiled_statements, database_of, record_compiled_statements
from tests.support.statements import record_trips

TABLE: Any = Job.__table__
KEY = bindparam("key", type_=Integer)
#: They leave no column to a default of Python's.
_VALUES = {"worker": "w", "state": "available", "unique_key": None, "unique_rule": None}
FIRST = insert(TABLE).values(id=KEY, **_VALUES)
SECOND = insert(TABLE).values(id=KEY + literal_column("100"), **_VALUES).returning(TABLE.c.id)


@pytest.fixture
async def engine(sqlite_factory: SQLiteFactory) -> AsyncIterator[AsyncEngine]:
    url = sqlite_factory.create()
    made = create_async_engine(url)
    yield made
    await made.dispose()
    sqlite_factory.drop(url)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The SQL of the compiled statements that are run again, past SQLAlchemy."""
    return record_compiled_statements(monkeypatch)


async def insert_second(oban: Oban, key: int) -> list[int]:
    return await database_of(oban).write(lambda tx: _ids(tx, key, None))


async def insert_both(oban: Oban, key: int) -> list[int]:
    return await database_of(oban).write(lambda tx: _ids(tx, key, FIRST))


def _ids(tx: Transaction, key: int, before: Any) -> list[int]:
    return [row.id for row in tx.rows(SECOND, {"key": key}, before)]


async def stored(oban: Oban) -> list[int]:
    return sorted(job.id for job in await oban.list_jobs())


async def test_both_statements_of_a_pair_run_each_time(engine: AsyncEngine, runs: list[str]) -> None:
    oban = Oban(engine)
    assert [await insert_both(oban, key) for key in (1, 2, 3)] == [[101], [102], [103]]
    assert len(runs) == 2
    assert await stored(oban) == [1, 2, 3, 101, 102, 103]


async def test_a_pair_takes_as_many_trips_to_the_drivers_thread_as_one_statement(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips = record_trips(monkeypatch)
    oban = Oban(engine)
    counts: list[int] = []
    for insert_one in (insert_second, insert_both):
        # SQLAlchemy executes the first ones.
        for key in range(len(counts) * 10 + 1, len(counts) * 10 + 4):
            trips.clear()
            await insert_one(oban, key)
        counts.append(len(trips))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("broken", [False, True], ids=["run again", "by SQLAlchemy"])
async def test_an_error_names_the_statement_that_failed_and_undoes_both(
    engine: AsyncEngine, runs: list[str], monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    if broken:
        break_compiled_statements(monkeypatch)
    oban = Oban(engine)
    for key in (1, 2, 203):
        await insert_both(oban, key)
    before = await stored(oban)
    with pytest.raises(IntegrityError) as first:
        await insert_both(oban, 1)
    # 203 is there already, and 103 is not.
    with pytest.raises(IntegrityError) as second:
        await insert_both(oban, 103)
    assert "RETURNING" not in str(first.value.statement)
    assert "RETURNING" in str(second.value.statement)
    assert (first.value.params, second.value.params) == (_params(1), _params(103))
    assert await stored(oban) == before
    assert len(runs) == (0 if broken else 4)


def _params(key: int) -> tuple[Any, ...]:
    return (key, "available", "w", None, None)
