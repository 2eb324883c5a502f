"""Polling SQLite for commits of other connections."""

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout

from oban import Job, Oban
from oban.notifier import poll
from oban.notifier.poll import DataVersionNotifier
from tests.support.databases import SQLiteFactory
from tests.support.internals import database_of, replace_poll
from tests.support.waiting import within


async def test_polling_continues_after_the_pool_had_no_free_connection(
    sqlite_factory: SQLiteFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sqlite_factory.create()
    heard, failed = asyncio.Event(), asyncio.Event()
    async with Oban(url) as oban, Oban(url, name="other") as other:
        watch = DataVersionNotifier(database_of(oban))
        watch.interval = 0.01
        connect = type(oban.engine).connect

        @asynccontextmanager
        async def refused_once(engine: Any) -> Any:
            if not failed.is_set():
                failed.set()
                raise PoolTimeout("no free connection")
            async with connect(engine) as connection:
                yield connection

        monkeypatch.setattr(type(oban.engine), "connect", refused_once)
        monkeypatch.setattr(poll, "RETRY_PAUSE", 0.01)
        await watch.start()
        await within(failed.wait(), 5)
        watch.subscribe("insert", lambda _: heard.set())
        await other.enqueue(Job(worker="w"))
        await within(heard.wait(), 5)
        await watch.stop()
    sqlite_factory.drop(url)


@pytest.mark.parametrize("swallowed", [True, False])
async def test_polling_stops_though_the_driver_does_not_pass_the_cancellation_on(
    swallowed: bool, sqlite_factory: SQLiteFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sqlite_factory.create()
    polling = asyncio.Event()

    async def poll_connection(*_: object) -> None:
        polling.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if not swallowed:
                raise OSError("connection lost") from None

    async with Oban(url) as oban:
        watch = DataVersionNotifier(database_of(oban))
        replace_poll(monkeypatch, watch, poll_connection)
        monkeypatch.setattr(poll, "RETRY_PAUSE", 0.01)
        await watch.start()
        await within(polling.wait(), 5)
        await within(watch.stop(), 5)
    sqlite_factory.drop(url)
