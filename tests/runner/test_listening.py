"""The LISTEN connection: payloads arrive, garbage is ignored, and a lost connection is replaced."""

import asyncio
import base64
import gzip
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncConnection

from oban import JobState, Oban, backoff
from oban.database.aio import Database
from oban.notifier.listen import ListenNotifier
from tests.support.internals import replace_listen
from tests.support.jobs import reaches
from tests.support.options import NO_POLLING
from tests.support.waiting import eventually, quiet
from tests.support.workers import Noop

TERMINATE = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND query ILIKE '%LISTEN%'"
)


@pytest.mark.parametrize("prefix", [None, "jobs"])
async def test_payloads_arrive_and_garbage_is_ignored(postgresql_url: URL, prefix: str | None) -> None:
    heard: list[tuple[str, dict[str, Any]]] = []
    database = Database(postgresql_url, prefix)
    notifier = ListenNotifier(database)
    notifier.subscribe("insert", lambda payload: heard.append(("insert", payload)))
    notifier.subscribe("signal", lambda payload: heard.append(("signal", payload)))
    await notifier.start()
    # Every subscriber is told to poll once the connection listens.
    assert heard == [("insert", {}), ("signal", {})]
    heard.clear()
    zipped = base64.b64encode(gzip.compress(b'{"queue": "zipped"}')).decode()
    sent = ['{"queue": "a\\"b"}', "", "{", "[1]", "null", "\\", "x" * 7000, zipped, '{"queue": "last"}']
    async with database.engine.begin() as connection:
        for payload in sent:
            await connection.execute(
                text("SELECT pg_notify(:channel, :payload)"),
                {"channel": f"{prefix or 'public'}.oban_insert", "payload": payload},
            )
        await connection.execute(text("SELECT pg_notify('other.oban_insert', '{}')"))
    await eventually(lambda: ("insert", {"queue": "last"}) in heard)
    assert heard == [("insert", {"queue": name}) for name in ('a"b', "zipped", "last")]
    await notifier.stop()
    await database.dispose()


async def test_a_listener_whose_connection_was_closed_listens_again(postgresql_url: URL) -> None:
    async with (
        Oban(postgresql_url, queues={"default": 2}, **NO_POLLING) as oban,
        Oban(postgresql_url, name="client") as client,
    ):
        for _ in range(2):
            await quiet()
            async with client.engine.connect() as connection:
                closed = (await connection.execute(TERMINATE)).all()
            assert len(closed) == 1
            # Enqueued while no connection listens, and found by the poll after the reconnection.
            await reaches(oban, await client.enqueue(Noop.new()), JobState.COMPLETED)
            await quiet()
            await reaches(oban, await client.enqueue(Noop.new()), JobState.COMPLETED)


async def test_a_node_that_cannot_listen_at_first_tries_again(
    postgresql_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[object] = []

    async def refuse_twice(self: ListenNotifier, connection: AsyncConnection) -> None:
        if len(refused) < 2:
            refused.append(connection)
            raise ConnectionError("too many connections")
        await listen(self, connection)

    listen = replace_listen(monkeypatch, refuse_twice)
    async with Oban(postgresql_url, queues={"default": 2}, **NO_POLLING) as oban:
        assert len(refused) == 2
        await quiet()
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)


async def test_a_listener_that_is_connected_but_cannot_listen_backs_off(
    postgresql_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(postgresql_url)
    notifier = ListenNotifier(database)
    tries: list[int] = []

    # As on a standby server.
    async def refuse(*_: object) -> None:
        raise ConnectionError("cannot execute LISTEN during recovery")

    def pause(failures: int) -> float:
        tries.append(failures)
        return 0.001

    monkeypatch.setattr(backoff, "pause", pause)
    with monkeypatch.context() as patch:
        replace_listen(patch, refuse)
        starting = asyncio.create_task(notifier.start())
        await eventually(lambda: len(tries) >= 5)
    await starting
    refused = len(tries)
    assert tries == list(range(1, refused + 1))
    async with database.engine.connect() as connection:
        await connection.execute(TERMINATE)
    await eventually(lambda: len(tries) > refused)
    assert tries[refused:] == [1]
    await notifier.stop()
    await database.dispose()
