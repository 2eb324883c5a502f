"""PostgreSQL: LISTEN on a dedicated connection, with asyncpg or psycopg."""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from typing import Any

from sqlalchemy import URL, NullPool, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from oban import backoff, dialects
from oban.database.aio import Database
from oban.database.engines import make_engine
from oban.errors import ConfigError
from oban.notifier.base import Notifier
from oban.notifier.health import Health

logger = logging.getLogger("oban.notifier")

#: Seconds between two checks that the connection is still alive.
KEEPALIVE_INTERVAL = 30.0
#: Seconds that a start waits for the connection.
START_TIMEOUT = 5.0
#: Seconds that the connection can take to close.
CLOSE_TIMEOUT = 2.0
CHANNELS = ("insert", "signal")


class ListenNotifier(Notifier):
    """Listens, and reconnects when the connection breaks.

    Notifications that were sent while nobody listened are lost, so after each connect all subscribers look
    at the tables once. `url` leads to the database directly, if the engine goes through a pooler.
    """

    kind = "listen"

    def __init__(self, database: Database, url: str | URL | None = None) -> None:
        super().__init__(database)
        self._url = direct_url(database, url)
        self._engine: AsyncEngine = database.engine
        self._listening = asyncio.Event()
        self._failures = 0
        self._health = Health(database, self._url, self._note_hearing)

    @property
    def hears(self) -> bool | None:
        if not self._listening.is_set():
            return False if self._failures else None
        return self._health.echoed

    async def _open(self) -> None:
        if self._url is not None:
            self._engine = make_engine(self._url, poolclass=NullPool)
        self._silent_since = -math.inf
        self._task = asyncio.create_task(self._run(), name="oban-listen")
        listening = asyncio.create_task(self._listening.wait())
        # Without a connection the node starts all the same, and polls.
        await asyncio.wait({listening}, timeout=START_TIMEOUT)
        listening.cancel()

    async def _close(self) -> None:
        self._listening.clear()
        await super()._close()
        if self._url is not None:
            await self._engine.dispose()

    async def _run(self) -> None:
        task: Any = asyncio.current_task()
        # A driver can raise an error of its own instead of a cancellation, or drop it.
        while not task.cancelling():
            try:
                async with self._engine.connect() as connection:
                    await self._listen(connection)
            # Whatever breaks the listener, a new connection and a look at the tables repair it.
            except Exception as error:
                self._listening.clear()
                if task.cancelling():
                    return
                self._failures += 1
                self._note_disconnected(error)
                self._note_hearing(False)
                pause = backoff.pause(self._failures)
                reason = str(dialects.driver_error(error))
                # On a standby server, say, each of the many attempts fails in the same way.
                if count := self._log_limits[f"listen {reason}"].count():
                    logger.warning(
                        "cannot listen, so jobs are only found by polling; trying again in %.1f s: %s%s"
                        " (%s since the last report)",
                        *(pause, reason, _advice(reason), count),
                    )
                await asyncio.sleep(pause)

    async def _listen(self, connection: AsyncConnection) -> None:
        schema = await self.database.read(lambda tx: tx.schema())
        channels = {f"{schema}.oban_{channel}": channel for channel in CHANNELS}
        server_pid = await connection.scalar(text("SELECT pg_backend_pid()"))
        await connection.commit()
        # A connection that has listened must not go back to the pool.
        raw = await connection.get_raw_connection()
        driver: Any = raw.driver_connection
        await connection.run_sync(lambda sync: sync.detach())
        is_asyncpg = hasattr(driver, "add_listener")
        is_direct = server_pid == (driver.get_server_pid() if is_asyncpg else driver.info.backend_pid)
        listen = self._listen_with_asyncpg if is_asyncpg else self._listen_with_psycopg
        try:
            await listen(driver, channels, lambda: self._on_listening(schema, pooled=not is_direct))
        finally:
            # SQLAlchemy would roll back on the connection that is closed here.
            await connection.invalidate()
            await asyncio.gather(asyncio.shield(_close_connection(driver)), self._health.stop())

    def dispatch(self, channel: str, payload: dict[str, Any]) -> None:
        if not self._health.hears(payload.get("queue")):
            super().dispatch(channel, payload)

    async def _listen_with_asyncpg(
        self, driver: Any, channels: dict[str, str], on_listening: Callable[[], None]
    ) -> None:
        broken = asyncio.Event()
        driver.add_termination_listener(lambda _: broken.set())

        def receive(_: Any, __: int, channel: str, payload: str) -> None:
            self.receive(channels[channel], payload)

        for name in channels:
            await driver.add_listener(name, receive)
        on_listening()
        while not broken.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(broken.wait(), KEEPALIVE_INTERVAL)
                break
            await driver.execute("SELECT 1", timeout=KEEPALIVE_INTERVAL)
        raise ConnectionError("the listening connection was closed")

    async def _listen_with_psycopg(
        self, driver: Any, channels: dict[str, str], on_listening: Callable[[], None]
    ) -> None:
        await driver.set_autocommit(True)
        for name in channels:
            quoted = name.replace('"', '""')
            await driver.execute(f'LISTEN "{quoted}"')
        on_listening()
        while True:
            async for notification in driver.notifies(timeout=KEEPALIVE_INTERVAL):
                self.receive(channels[notification.channel], notification.payload)
            async with asyncio.timeout(KEEPALIVE_INTERVAL):
                await driver.execute("SELECT 1")

    def _on_listening(self, schema: str | None, pooled: bool) -> None:
        self._listening.set()
        self._failures = 0
        self._note_connected()
        self.wake_all()
        self._health.start(schema, pooled)


def _advice(reason: str) -> str:
    return "; set listen_url to a URL of the primary server" if "during recovery" in reason else ""


def direct_url(database: Database, url: str | URL | None) -> URL | None:
    """Check and parse a URL for LISTEN; raises `ConfigError` if it cannot serve this database."""
    if url is None:
        return None
    if not database.dialect.listens:
        raise ConfigError(f"listen_url is for PostgreSQL; {database.dialect.name} has no LISTEN")
    try:
        parsed = dialects.parse_url(url, asynchronous=True)
    except ConfigError as error:
        raise ConfigError(f"listen_url: {error}") from None
    if dialects.by_name(parsed.get_backend_name()) is not database.dialect:
        raise ConfigError(
            f"listen_url is of {parsed.get_backend_name()}, but the engine is of {database.dialect.name}"
        )
    return parsed


async def _close_connection(driver: Any) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await driver.close()
