"""The leader deletes the keys that unique jobs have left, and never one that a transaction has claimed."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL, func, select, text

from oban import Oban, guard
from oban.config import Options, Retention
from oban.models import UniqueKey
from oban.repository import unique_keys
from oban.runner.services.leader import Leader
from oban.runner.services.pruner import Pruner
from oban.unique import Unique
from tests.support.databases import PostgreSQLFactory
from tests.support.internals import database_of, walk_keys_now
from tests.support.rows import insert_rows, row
from tests.support.statements import recorded


@pytest.fixture
def url(postgresql_factory: PostgreSQLFactory) -> Iterator[URL]:
    """SQLite, with one writer at a time, stores no keys."""
    made = postgresql_factory.create()
    yield made
    postgresql_factory.drop(made)


def unique(number: int, state: str = "completed") -> dict[str, Any]:
    """A row of a unique job."""
    made = row(state, args={"id": number})
    return {**made, "unique_key": Unique().key(made), "unique_rule": Unique().rule()}


async def claimed(oban: Oban, *keys: str) -> None:
    await database_of(oban).write(lambda tx: guard.claim(tx, tx.dialect, keys))


async def inserted(oban: Oban, *rows: dict[str, Any]) -> list[int]:
    """Insert unique jobs with their keys."""
    await claimed(oban, *(each["unique_key"] for each in rows))
    return await insert_rows(oban.engine, *rows)


async def keys(oban: Oban) -> set[str]:
    async with oban.engine.connect() as connection:
        return set((await connection.execute(select(UniqueKey.key))).scalars())


async def pruner(oban: Oban, **retention: Any) -> Pruner:
    """A pruner that leads. Rows of `tests.support.rows` finished long ago."""
    leader = Leader(database_of(oban), Options())
    await leader.tick()
    return Pruner(database_of(oban), Options(retention=Retention(**retention)), leader)


async def test_keys_of_pruned_jobs_are_deleted_unless_other_jobs_have_them(oban: Oban) -> None:
    both = unique(1)
    await inserted(oban, unique(1), unique(1, "available"), unique(2), unique(3, "available"))
    pruning = await pruner(oban)
    await pruning.tick()
    assert await oban.count_jobs() == {"default": {**(await oban.count_jobs())["default"], "available": 2}}
    assert await keys(oban) == {both["unique_key"], unique(3)["unique_key"]}


async def test_keys_that_were_left_otherwise_are_deleted_by_the_walk(
    oban: Oban, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unique_keys, "BATCH", 2)
    ids = await inserted(oban, *(unique(number, "available") for number in range(7)))
    pruning = await pruner(oban)
    assert await pruning.tick() == 1.0
    for _ in range(3):
        await pruning.tick()
    assert len(await keys(oban)) == 7
    await oban.delete_many_jobs(ids[:6])
    # The next walk is due in an hour.
    assert await pruning.tick() is None
    assert len(await keys(oban)) == 7
    walk_keys_now(pruning)
    for _ in range(4):
        await pruning.tick()
    assert await keys(oban) == {unique(6)["unique_key"]}


@pytest.mark.parametrize("waits", [False, True], ids=["claimed before", "claimed while it looks"])
async def test_a_key_that_a_running_transaction_has_claimed_stays(oban: Oban, waits: bool) -> None:
    made = unique(1)
    await inserted(oban, made)
    pruning = await pruner(oban)
    async with oban.engine.connect() as connection, oban.engine.connect() as older:
        if waits:
            # Not locked any more, but a transaction that began before the claim still runs.
            await older.execute(text("SELECT pg_current_xact_id()"))
            await claimed(oban, made["unique_key"])
        else:
            await connection.run_sync(_claim, oban, made["unique_key"])
        await pruning.tick()
        assert await oban.get_job(1) is None
        assert await keys(oban) == {made["unique_key"]}
        # Neither is anything lost: the job of that transaction is guarded by its key.
        await connection.rollback()
    await pruning.tick()
    assert await keys(oban) == set()


def _claim(connection: Any, oban: Oban, key: str) -> None:
    guard.claim(connection, database_of(oban).dialect, [key])


async def test_without_keys_a_pruner_asks_for_them_once(oban: Oban) -> None:
    pruning = await pruner(oban)
    with recorded(oban.engine) as statements:
        for _ in range(3):
            assert await pruning.tick() is None
    assert len([each for each in statements if "oban_unique_keys" in each]) == 1


async def test_a_statement_looks_at_five_thousand_keys(oban: Oban) -> None:
    async with oban.engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO oban_unique_keys SELECT 'key' || n, 1 FROM generate_series(1, 12000) n")
        )
    pruning = await pruner(oban)
    counts = [12_000]
    while await pruning.tick() is not None:
        async with oban.engine.connect() as connection:
            counts.append(
                (await connection.execute(select(func.count()).select_from(UniqueKey))).scalar_one()
            )
    assert counts == [12_000, 7_000, 2_000]
    assert await keys(oban) == set()
