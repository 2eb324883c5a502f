"""Which client calls and helpers find, and what they say if there is none."""

from functools import partial
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Oban, SyncOban, Worker
from oban.errors import ConfigError, InstanceNotFound
from oban.testing import (
    all_enqueued,
    assert_enqueued,
    drain_queue,
    insert_periodic_jobs,
    process_job,
    refute_enqueued,
    reset_oban,
)


class Noop(Worker, oban="Over"):
    """Does nothing."""

    def process(self, job: Any) -> None:
        """Nothing."""


def test_a_client_on_a_closed_connection_is_not_found() -> None:
    engine = create_engine("sqlite://")
    with engine.connect() as connection, Session(connection) as session:
        before = SyncOban(connection, name="Over")
        newer = SyncOban(session, name="Over")
        assert SyncOban.get_instance("Over") is newer
    for over in (before, newer):
        with pytest.raises(InstanceNotFound, match="there is no SyncOban named 'Over'"):
            SyncOban.get_instance("Over")
        assert over.engine is engine
    with pytest.raises(InstanceNotFound):
        Noop.enqueue_sync()
    # A session that is closed begins anew when it is used, and so does an engine.
    others: list[Any] = [Session(engine), engine]
    for other in others:
        assert SyncOban(other, name="Over") is SyncOban.get_instance("Over")
    engine.dispose()


async def test_an_async_client_on_a_closed_connection_is_not_found() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    connection = engine.connect()
    async with connection, AsyncSession(connection) as session:
        clients = [Oban(connection, name="Over"), Oban(session, name="Over")]
        assert Oban.get_instance("Over") is clients[1]
    with pytest.raises(InstanceNotFound, match="there is no Oban named 'Over'"):
        Oban.get_instance("Over")
    with pytest.raises(InstanceNotFound):
        await Noop.enqueue()
    assert Oban(AsyncSession(engine), name="Over") is Oban.get_instance("Over")
    await engine.dispose()


class NeedsSession(Worker):
    """Takes a session."""

    def process(self, job: Any, session: Session) -> None:
        """Nothing."""


async def test_a_helper_without_a_client_says_which_fixture_is_missing(no_clients: None) -> None:
    with pytest.raises(InstanceNotFound, match=r"no Oban named 'Nobody' .* request the fixture oban, or"):
        await assert_enqueued(oban="Nobody")
    with pytest.raises(ConfigError, match="request the fixture oban in an async test"):
        await process_job(NeedsSession.new())


def test_a_sync_helper_without_a_client_says_so_and_that_there_is_one_of_the_other_kind() -> None:
    helper: Any = drain_queue
    with pytest.raises(
        InstanceNotFound, match=r"no SyncOban named 'Nobody' .* request the fixture sync_oban"
    ):
        helper(oban="Nobody")
    oban = Oban(AsyncSession(create_async_engine("sqlite+aiosqlite://")), name="Async")
    with pytest.raises(InstanceNotFound, match="only an Oban: await the helper in an `async def` test"):
        helper(oban=oban.options.name)


async def test_the_warning_about_a_missing_await_names_the_helper() -> None:
    oban = Oban(AsyncSession(create_async_engine("sqlite+aiosqlite://")), name="Over")
    calls: list[partial[Any]] = [partial(process_job, Noop.new(), oban=oban)]
    for helper in (
        *(all_enqueued, assert_enqueued, refute_enqueued),
        *(drain_queue, insert_periodic_jobs, reset_oban),
    ):
        calls.append(partial(helper, oban=oban))
    for call in calls:
        forgotten = [call()]
        with pytest.warns(RuntimeWarning, match=f"coroutine '{call.func.__name__}' was never awaited"):
            forgotten.clear()
