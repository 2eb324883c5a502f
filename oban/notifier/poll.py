"""Without LISTEN: nothing but polling, or, on SQLite, polling `data_version`.

`PRAGMA data_version` is a counter in shared memory that changes when any other connection has
committed. Reading it takes some microseconds and no lock. A database in memory has no other
connection; on its own one, each commit is looked at.
"""

import asyncio
import contextlib
import logging

from sqlalchemy import Connection, event, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from oban import dialects
from oban.database.aio import Database
from oban.database.transaction import Notice
from oban.notifier.base import Notifier

logger = logging.getLogger("oban.notifier")

#: Seconds until the next try, after polling has failed.
RETRY = 1.0
_CHANGES = select(func.total_changes())


class PollNotifier(Notifier):
    """Needs no connection. Hears this process's own commits, where the library announces them itself."""

    async def _open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.database.on_notices.append(self._hear)

    async def _close(self) -> None:
        if self._hear in self.database.on_notices:
            self.database.on_notices.remove(self._hear)

    def _hear(self, notices: list[Notice]) -> None:
        # The commit may have happened in another thread.
        self._loop.call_soon_threadsafe(self.dispatch_all, notices)


class DataVersionNotifier(PollNotifier):
    """Hears this process's commits, and looks for others every `interval` seconds."""

    def __init__(self, database: Database, interval: float = 0.05) -> None:
        super().__init__(database)
        self.interval = interval
        self._task: asyncio.Task[None] | None = None
        self._changes: int | None = None

    async def _open(self) -> None:
        await super()._open()
        engine = self.database.engine
        if self.database.dialect.is_memory(engine.url):
            event.listen(engine.sync_engine, "commit", self._committing)
        else:
            self._task = asyncio.create_task(self._watch(), name="oban-data-version")

    async def _close(self) -> None:
        await super()._close()
        engine = self.database.engine.sync_engine
        if event.contains(engine, "commit", self._committing):
            event.remove(engine, "commit", self._committing)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def _committing(self, connection: Connection) -> None:
        # The one connection is free for whoever looks after the commit, and not before.
        changes = connection.scalar(_CHANGES)
        if changes != self._changes:
            self._changes = changes
            self._loop.call_soon_threadsafe(self.wake_everybody)

    async def _watch(self) -> None:
        while True:
            try:
                async with self.database.engine.connect() as connection:
                    await self._poll(connection)
            # The same as in the listener: a full pool, too, must not end the watch.
            except Exception as error:
                logger.warning("polling the database for changes failed: %s", dialects.driver_error(error))
                await asyncio.sleep(RETRY)

    async def _poll(self, connection: AsyncConnection) -> None:
        connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        seen = None
        while True:
            version = (await connection.exec_driver_sql("PRAGMA data_version")).scalar()
            if version != seen:
                seen = version
                self.wake_everybody()
            await asyncio.sleep(self.interval)
