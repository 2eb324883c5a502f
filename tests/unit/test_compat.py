"""A later SQLAlchemy or Alembic without a private name: the library degrades as `compat` says."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import URL, Engine, create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import Job, JobState, Oban, Worker, compat
from oban.models import metadata
from oban.types import StateType
from tests.support.jobs import reaches
from tests.support.statements import recorded
from tests.support.workers import Noop

#: An object of SQLAlchemy's that has lost its private attributes.
BARE = cast(Any, SimpleNamespace(dialect=SimpleNamespace()))


class Selecting(Worker):
    async def process(self, job: Job, session: AsyncSession) -> None:
        await session.execute(text("SELECT 1"))


class PlainSelecting(Worker):
    def process(self, job: Job, session: Session) -> None:
        session.execute(text("SELECT 1"))


def test_an_engine_without_private_names_gets_the_careful_answers() -> None:
    assert compat.pool_arguments(BARE) is None
    assert compat.cares_for_connections(BARE)
    assert compat.has_listeners(BARE)
    assert compat.logs_statements(BARE)
    assert compat.connect_isolation_level(BARE) is None
    assert compat.listens(BARE, "begin")
    assert compat.pool_listens(BARE, "checkout")
    assert not compat.tests_connections(BARE)
    assert not compat.open_idle(BARE, bool)
    assert not compat.close_idle(BARE)
    assert compat.sqlite_thread(BARE) is None


def test_a_statement_without_private_names_counts_as_one_without_the_clause() -> None:
    assert not compat.locks_rows(BARE)
    assert not compat.is_limited(BARE)
    assert compat.named_columns(BARE) == []
    assert compat.parameter_names(BARE) == {}
    assert compat.prefetched_rows(SimpleNamespace(compiled=BARE), "unique_key") == [0]
    assert not compat.compiles_distinct(BARE)


def test_states_of_a_statement_without_private_names_are_neither_converted_nor_made_constants() -> None:
    assert not compat.can_select_converted(BARE, StateType)
    assert compat.compiles_for_many(BARE)
    compat.check_literals(BARE, StateType)


def test_without_private_names_of_sessions_a_flush_sends_a_null_for_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert compat.current_flush(BARE) is None
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with Session(engine) as session, recorded(engine) as seen:
        session.add(Job(worker="w"))
        session.flush()
        monkeypatch.setattr(compat, "current_flush", lambda _: None)
        session.add(Job(worker="w"))
        session.flush()
    engine.dispose()
    assert ["completed_at" in statement for statement in seen] == [False, True]


def test_a_select_of_this_sqlalchemy_has_the_names() -> None:
    assert compat.locks_rows(select(Job).with_for_update())
    for statement in (select(Job).limit(1), select(Job).offset(1), select(Job).having(Job.id > 1)):
        assert compat.is_limited(statement)
    assert not compat.is_limited(select(Job))
    assert not compat.locks_rows(select(Job))


@pytest.mark.parametrize("name", ["sa_savepoint_12", "12"])
def test_the_number_of_a_savepoint_is_read_from_its_name(name: str) -> None:
    assert compat.parse_savepoint(name) == 12


@pytest.mark.parametrize("name", [None, "", "mine"])
def test_a_savepoint_with_another_name_has_no_number(name: str | None) -> None:
    assert compat.parse_savepoint(name) is None


def test_a_drivers_error_is_raised_as_it_is_without_sqlalchemys_function() -> None:
    with pytest.raises(KeyError):
        compat.raise_dbapi_error(BARE, KeyError("x"), "SELECT 1", (), None, None)


async def _one() -> int:
    await asyncio.sleep(0)
    return 1


async def _fails() -> int:
    raise KeyError


def test_waiting_outside_of_a_driver_is_refused() -> None:
    waiting = _one()
    with pytest.raises(RuntimeError, match="not in a greenlet"):
        compat.wait_for(waiting)
    waiting.close()


@pytest.mark.parametrize("run_sync", [compat.run_sync, compat.spawn])
async def test_sync_code_waits_for_coroutines_and_gets_their_errors(run_sync: Any) -> None:
    def work() -> list[int]:
        found = [compat.wait_for(_one()), compat.wait_for(_one())]
        with pytest.raises(KeyError):
            compat.wait_for(_fails())
        return found

    assert await run_sync(work) == [1, 1]
    with pytest.raises(ZeroDivisionError):
        await run_sync(lambda: 1 // 0)


async def test_a_node_runs_jobs_without_any_of_the_names(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> Any:
        raise AttributeError

    monkeypatch.setattr(compat, "pool_arguments", lambda _: None)
    monkeypatch.setattr(
        compat, "FollowingEngine", lambda engine, pool, dialect: Engine(pool, dialect, engine.url)
    )
    monkeypatch.setattr(compat, "listens", lambda *_: True)
    monkeypatch.setattr(compat, "pool_listens", lambda *_: True)
    monkeypatch.setattr(compat, "sessions_listen", lambda _: True)
    monkeypatch.setattr(compat, "cares_for_connections", lambda _: True)
    for name in ("tests_connections", "open_idle", "close_idle"):
        monkeypatch.setattr(compat, name, lambda *_: False)
    monkeypatch.setattr(compat, "has_listeners", lambda _: True)
    monkeypatch.setattr(compat, "logs_statements", lambda _: True)
    monkeypatch.setattr(compat, "connect_isolation_level", lambda _: None)
    monkeypatch.setattr(compat, "locks_rows", lambda _: False)
    monkeypatch.setattr(compat, "is_limited", lambda _: False)
    monkeypatch.setattr(compat, "named_columns", lambda _: [])
    monkeypatch.setattr(compat, "bind_processors", unknown)
    monkeypatch.setattr(compat, "row_arguments", unknown)
    monkeypatch.setattr(compat, "run_sync", compat.spawn)
    async with Oban(url, queues={"default": 2}) as oban:
        assert isinstance(oban.engine.sync_engine, Engine)
        jobs = await oban.enqueue_many([Noop.new() for _ in range(3)])
        for job in jobs:
            await reaches(oban, job, JobState.COMPLETED)
        assert await oban.retry_many_jobs(select(Job), everything=True) == 3
        for selecting in (Selecting, PlainSelecting):
            await reaches(oban, await oban.enqueue(selecting.new()), JobState.COMPLETED)
