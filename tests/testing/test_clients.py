"""Which client calls find after tests whose connections are closed, even if something still refers to it."""

from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Oban, SyncOban, Worker
from oban.errors import InstanceNotFound


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
