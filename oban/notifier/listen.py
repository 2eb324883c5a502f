"""PostgreSQL: LISTEN on a connection of its own, with asyncpg or psycopg."""

import asyncio
import contextlib
import logging
import uuid
from typing import Any

from sqlalchemy import URL, NullPool, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from oban import backoff, dialects
from oban.database.aio import Database
from oban.database.engines import make_engine
from oban.database.transaction import Transaction
from oban.errors import ConfigError
from oban.notifier.base import Notifier

logger = logging.getLogger("oban.notifier")

CHANNELS = ("insert", "signal")


class ListenNotifier(Notifier):
    """Listens, reconnects when the connection breaks, and then has everybody look once.

    What was announced while nobody listened is lost; that look makes up for it. `url` leads to the
    database directly, where the engine goes through a pooler.
    """

    #: Seconds between two proofs that the connection still lives.
    keepalive = 30.0
    #: Seconds for a notification through a pooler to arrive, before it is taken not to.
    echo = 5.0

    def __init__(self, database: Database, url: str | URL | None = None) -> None:
        super().__init__(database)
        self._url = direct_url(database, url)
        self._engine: AsyncEngine = database.engine
        self._task: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()
        self._failures = 0
        self._token = f"oban-echo-{uuid.uuid4()}"
        self._heard = asyncio.Event()

    async def _open(self) -> None:
        if self._url is not None:
            self._engine = make_engine(self._url, poolclass=NullPool)
        self._task = asyncio.create_task(self._run(), name="oban-listen")
        started = asyncio.create_task(self._listening.wait())
        # Without the database the node starts all the same, and polls.
        await asyncio.wait({started}, timeout=5)
        started.cancel()

    async def _close(self) -> None:
        self._listening.clear()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._url is not None:
            await self._engine.dispose()

    async def _run(self) -> None:
        task = asyncio.current_task()
        while True:
            try:
                async with self._engine.connect() as connection:
                    await self._listen(connection)
            # Whatever breaks the listener, from a driver or from a pooler in between, is mended by
            # the same two things: a new connection, and a look at the tables.
            except Exception as error:
                self._listening.clear()
                # psycopg answers a cancelled wait for notifications with an error of its own.
                if task is not None and task.cancelling():
                    return
                self._failures += 1
                delay = backoff.pause(self._failures)
                logger.warning(
                    "not listening, trying again in %.1f s: %s", delay, dialects.driver_error(error)
                )
                await asyncio.sleep(delay)

    async def _listen(self, connection: AsyncConnection) -> None:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        schema = self.database.prefix or await self.database.read(_current_schema)
        channels = {f"{schema}.oban_{channel}": channel for channel in CHANNELS}
        server = await connection.scalar(text("SELECT pg_backend_pid()"))
        # A connection that was listened on must not go back to the pool.
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        await connection.run_sync(lambda sync: sync.detach())
        is_asyncpg = hasattr(driver, "add_listener")
        direct = server == (driver.get_server_pid() if is_asyncpg else driver.info.backend_pid)
        listening = self._with_asyncpg if is_asyncpg else self._with_psycopg
        checked = None if direct else asyncio.create_task(self._check())
        try:
            await listening(driver, channels)
        finally:
            if checked is not None:
                checked.cancel()
            await asyncio.shield(_hang_up(driver))

    async def _check(self) -> None:
        """Say so if nothing is heard: LISTEN succeeds behind a pooler in transaction mode, and is lost."""
        try:
            await self._listening.wait()
            # To whoever else hears it, it is news of a queue that they do not have.
            await self.database.write(lambda tx: tx.notify("insert", [{"queue": self._token}]))
            async with asyncio.timeout(self.echo):
                await self._heard.wait()
        except TimeoutError:
            logger.warning(
                "notifications do not arrive through the pooler, jobs are found by polling alone; give a"
                " listen_url that leads to the database directly, or notifier='poll'"
            )
        except Exception as error:
            logger.warning("not known whether notifications arrive: %s", dialects.driver_error(error))

    def dispatch(self, channel: str, payload: dict[str, Any]) -> None:
        if payload.get("queue") == self._token:
            self._heard.set()
        else:
            super().dispatch(channel, payload)

    async def _with_asyncpg(self, driver: Any, channels: dict[str, str]) -> None:
        broken = asyncio.Event()
        driver.add_termination_listener(lambda _: broken.set())

        def receive(_: Any, __: int, channel: str, payload: str) -> None:
            self.receive(channels[channel], payload)

        for name in channels:
            await driver.add_listener(name, receive)
        self._ready()
        while not broken.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(broken.wait(), self.keepalive)
                break
            await driver.execute("SELECT 1", timeout=self.keepalive)
        raise ConnectionError("the listening connection was closed")

    async def _with_psycopg(self, driver: Any, channels: dict[str, str]) -> None:
        await driver.set_autocommit(True)
        for name in channels:
            quoted = name.replace('"', '""')
            await driver.execute(f'LISTEN "{quoted}"')
        self._ready()
        while True:
            async for notice in driver.notifies(timeout=self.keepalive):
                self.receive(channels[notice.channel], notice.payload)
            async with asyncio.timeout(self.keepalive):
                await driver.execute("SELECT 1")

    def _ready(self) -> None:
        self._listening.set()
        self._failures = 0
        self.wake_everybody()


def direct_url(database: Database, url: str | URL | None) -> URL | None:
    """The URL for LISTEN, checked; raises `ConfigError` for one that cannot serve this database."""
    if url is None:
        return None
    if not database.dialect.listens:
        raise ConfigError(f"listen_url is for PostgreSQL; {database.dialect.name} has no LISTEN")
    try:
        parsed = dialects.parse_async_url(url)
        if dialects.by_name(parsed.get_backend_name()) is not database.dialect:
            raise ConfigError(
                f"of {parsed.get_backend_name()}, while the engine is on {database.dialect.name}"
            )
    except ConfigError as error:
        raise ConfigError(f"listen_url: {error}") from None
    return parsed


def _current_schema(tx: Transaction) -> str | None:
    return tx.dialect.current_schema(tx.connection())


async def _hang_up(driver: Any) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(2):
            await driver.close()
