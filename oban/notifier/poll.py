"""Notifiers without LISTEN: polling alone, and SQLite's `data_version`.

`PRAGMA data_version` is a counter in shared memory that changes when another connection has committed.
Reading it takes a few microseconds and no lock. A database in memory has only one connection, whose commits
are observed instead.
"""

import asyncio
import logging
import math

from sqlalchemy import Connection, event, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from oban import dialects
from oban.database.transaction import Notice
from oban.notifier.base import Notifier

logger = logging.getLogger("oban.notifier")

#: Seconds between two reads of `data_version`.
POLL_INTERVAL = 0.05
#: Seconds until the next attempt after a failed one.
RETRY_PAUSE = 1.0
_TOTAL_CHANGES = select(func.total_changes())


class PollNotifier(Notifier):
    """Receives the notices of this process's own commits, and only if the library announces them itself."""

    kind = "poll"

    async def _open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.database.on_notices.append(self._on_notices)

    async def _close(self) -> None:
        if self._on_notices in self.database.on_notices:
            self.database.on_notices.remove(self._on_notices)
        await super()._close()

    def _on_notices(self, notices: list[Notice]) -> None:
        # The loop may have been closed without a stop.
        if self._loop.is_closed():
            self.database.on_notices.remove(self._on_notices)
            return
        # The commit may have happened in another thread.
        for notice in notices:
            self._loop.call_soon_threadsafe(self.dispatch, *notice)


class DataVersionNotifier(PollNotifier):
    """Receives the notices of this process, and detects other commits within `interval` seconds."""

    kind = "data_version"
    interval = POLL_INTERVAL
    _total_changes: int | None = None
    _hears: bool | None = None

    @property
    def hears(self) -> bool | None:
        return self._hears

    async def _open(self) -> None:
        await super()._open()
        engine = self.database.engine
        if self.database.in_memory:
            event.listen(engine.sync_engine, "commit", self._on_commit)
            self._hears = True
            self._note_connected()
        else:
            self._silent_since = -math.inf
            self._task = asyncio.create_task(self._watch(), name="oban-data-version")

    async def _close(self) -> None:
        engine = self.database.engine.sync_engine
        if event.contains(engine, "commit", self._on_commit):
            event.remove(engine, "commit", self._on_commit)
        await super()._close()

    def _on_commit(self, connection: Connection) -> None:
        # Subscribers need the one connection, which is free only after this commit.
        changes = connection.scalar(_TOTAL_CHANGES)
        if changes != self._total_changes:
            self._total_changes = changes
            self._loop.call_soon_threadsafe(self.wake_all)

    async def _watch(self) -> None:
        # A cancellation alone may not end the task: a driver can drop it or raise another error.
        while self._started:
            try:
                async with self.database.engine.connect() as connection:
                    await self._poll(connection)
            # Nothing must end the polling, not even a full pool.
            except Exception as error:
                self._hears = False
                self._note_disconnected(error)
                self._note_hearing(False)
                logger.warning("polling the database for changes failed: %s", dialects.driver_error(error))
                await asyncio.sleep(RETRY_PAUSE)

    async def _poll(self, connection: AsyncConnection) -> None:
        seen = None
        while self._started:
            version = await connection.run_sync(self._data_version)
            self._hears = True
            self._note_connected()
            self._note_hearing(True)
            if version != seen:
                seen = version
                self.wake_all()
            await asyncio.sleep(self.interval)

    def _data_version(self, connection: Connection) -> int:
        # Past SQLAlchemy's transaction, for whose begin the application's event handler can take a lock.
        cursor = connection.connection.cursor()
        cursor.execute("PRAGMA data_version")
        (version,) = cursor.fetchone() or (0,)
        cursor.close()
        if self.database.dialect.in_transaction(connection):
            # With autocommit=False, the driver is always in one, in which the number would stay the same.
            connection.connection.rollback()
        return int(version)
