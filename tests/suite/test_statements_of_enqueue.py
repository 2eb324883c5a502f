"""`enqueue(session=)` sends one statement, and flushes the session only if something waits for that."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import URL, Dialect, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from oban import Job, Oban, SyncOban, compat
from tests.support.databases import DATABASES
from tests.support.rows import delete_rows, lasting_url

SYNC_DRIVERS = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}
MAKE: dict[str, Callable[[], Job]] = {
    "due": lambda: Job(worker="w", args={"n": 1}),
    "with all fields": lambda: Job(
        worker="w", args={"n": 1}, queue="media", priority=3, max_attempts=5, tags=["x"], meta={"m": 1}
    ),
    "scheduled": lambda: Job(worker="w", schedule_in=60),
}


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture(autouse=True)
async def emptied(oban: Oban) -> None:
    await delete_rows(oban.engine)


def recorded(patch: pytest.MonkeyPatch, dialect: Dialect) -> list[str]:
    """The first word of each statement that the driver gets from now on, with or without SQLAlchemy.

    A listener would turn off the fast path.
    """
    seen: list[str] = []

    def record(execute: Any) -> Any:
        def recording(cursor: Any, statement: str, *args: Any) -> Any:
            seen.append(statement.split()[0])
            return execute(cursor, statement, *args)

        return recording

    # Statements would go to the thread of aiosqlite without a call of the dialect.
    patch.setattr(compat, "sqlite_thread", lambda connection: None)
    for name in ("do_execute", "do_execute_no_params", "do_executemany"):
        patch.setattr(dialect, name, record(getattr(dialect, name)))
    return seen


@pytest.mark.parametrize("kind", MAKE)
async def test_a_clean_session_sends_one_statement(
    oban: Oban, engine: AsyncEngine, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncSession(engine) as session:
        await session.connection()
        seen = recorded(monkeypatch, engine.sync_engine.dialect)
        # The jobs of earlier calls are in the session, and have nothing to be flushed.
        for count in range(1, 5):
            await oban.enqueue(MAKE[kind](), session=session)
            assert seen == ["INSERT"] * count
        async with session.begin_nested():
            seen.clear()
            await oban.enqueue(MAKE[kind](), session=session)
            await oban.enqueue(MAKE[kind](), session=session)
            assert seen == ["SAVEPOINT", "INSERT", "INSERT"]
        seen.clear()
        await session.commit()
        assert seen == []


async def test_a_dirty_session_is_flushed_once_and_first(
    oban: Oban, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncSession(engine) as session:
        changed = await oban.enqueue(Job(worker="w"), session=session)
        await oban.enqueue(Job(worker="w"), session=session)
        seen = recorded(monkeypatch, engine.sync_engine.dialect)
        changed.priority = 5
        await oban.enqueue(Job(worker="w"), session=session)
        assert seen == ["UPDATE", "INSERT"]
        await oban.enqueue(Job(worker="w"), session=session)
        assert seen == ["UPDATE", "INSERT", "INSERT"]
        session.add(Job(worker="added"))
        await oban.enqueue(Job(worker="w"), session=session)
        assert seen[3:] == ["INSERT", "INSERT"]


async def test_several_jobs_are_one_statement(
    oban: Oban, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncSession(engine) as session:
        await session.connection()
        seen = recorded(monkeypatch, engine.sync_engine.dialect)
        for _ in range(3):
            seen.clear()
            await oban.enqueue_many([Job(worker="w") for _ in range(20)], session=session)
            assert seen in (["INSERT"], ["WITH"])


def test_it_is_the_same_without_asyncio(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = create_engine(url.set(drivername=SYNC_DRIVERS[url.get_backend_name()]))
    oban = SyncOban(engine)
    with Session(engine) as session:
        changed = oban.enqueue(Job(worker="w"), session=session)
        seen = recorded(monkeypatch, engine.dialect)
        for count in range(1, 4):
            oban.enqueue(Job(worker="w"), session=session)
            assert seen == ["INSERT"] * count
        seen.clear()
        changed.priority = 5
        oban.enqueue(Job(worker="w"), session=session)
        assert seen == ["UPDATE", "INSERT"]
    engine.dispose()
