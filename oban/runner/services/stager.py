"""Moves scheduled and retryable jobs to available, at the moment they become due."""

from collections.abc import Callable

from oban.database.aio import Database
from oban.repository import fetch
from oban.runner.services.base import Service


class Stager(Service):
    """Sleeps until the next job is due, by the database's clock; `interval` seconds at most.

    Every node may stage: rows that another one is staging are passed over. `on_staged` lets this node
    look for them at once even if it hears no notification.
    """

    def __init__(self, database: Database, interval: float, on_staged: Callable[[], None]) -> None:
        super().__init__("stager", interval)
        self.database = database
        self._on_staged = on_staged

    async def tick(self) -> float | None:
        due = await self.database.read(fetch.seconds_until_due)
        if due is None or due > 0:
            return None if due is None else min(due, self.interval)
        if await self.database.write(fetch.stage):
            self._on_staged()
            return 0
        # None, though some are due: another node has them under its lock.
        return min(0.05, self.interval)
