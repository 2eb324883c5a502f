"""Time limits for actions that may hang: on a broken network, even closing a connection may not return."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

from oban import clock, dialects
from oban.database.aio import Database

logger = logging.getLogger("oban.runner")

#: Seconds between two cancellations of a task that does not end, and how many there are.
_CANCEL_INTERVAL = 0.1
_CANCELLATIONS = 10


async def within(seconds: float, action: Coroutine[Any, Any, Any], *, uninterruptible: bool = False) -> None:
    """Await `action` for up to `seconds`; raises what it raises, or `TimeoutError`.

    A driver may swallow a cancellation while it closes its connection, so the action is cancelled repeatedly
    and finally abandoned. With `uninterruptible`, it is cancelled once and awaited.
    """
    task = asyncio.ensure_future(action)
    try:
        await asyncio.wait({task}, timeout=max(seconds, 0))
        if uninterruptible and not task.done():
            task.cancel()
            await asyncio.wait({task})
        else:
            await cancel_all({task})
    finally:
        task.cancel()
    if task.cancelled() or not task.done():
        raise TimeoutError
    task.result()


async def cancel_all(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they are done, repeatedly for about a second; then abandon them."""
    for _ in range(_CANCELLATIONS):
        tasks = {task for task in tasks if not task.done()}
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_CANCEL_INTERVAL)


async def close(database: Database, seconds: float) -> None:
    """Dispose of a database. Connections that are not closed within `seconds` are cut."""
    if not database.dialect.interruptible:
        await database.dispose()
        return
    until = clock.monotonic() + seconds
    while True:
        with contextlib.suppress(TimeoutError):
            # Each try that is cancelled has taken one more connection out of the pool.
            return await within(until - clock.monotonic(), database.dispose())


class ShutdownBudget:
    """The seconds that the steps of a shutdown share. Each step gets a share of what is left."""

    def __init__(self, database: Database, seconds: float) -> None:
        self._seconds = seconds
        self._uninterruptible = not database.dialect.interruptible
        self._ends_at: float | None = None

    def start(self) -> None:
        """Let the time run; until then, all of it is left."""
        self._ends_at = clock.monotonic() + self._seconds

    def extend(self, seconds: float) -> None:
        """Add seconds to those that are left."""
        if self._ends_at is not None:
            self._ends_at += seconds

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self._seconds if self._ends_at is None else max(0.0, self._ends_at - clock.monotonic())

    async def attempt(self, what: str, action: Coroutine[Any, Any, None], share: float = 0.5) -> bool:
        """Await `action` for a share of the seconds left; logs a failure. Returns whether it succeeded."""
        try:
            await within(self.left * share, action, uninterruptible=self._uninterruptible)
        # The node stops even if the database fails; other nodes repair what it leaves behind.
        except Exception as error:
            logger.warning("%s failed: %s", what, str(dialects.driver_error(error)) or type(error).__name__)
            return False
        return True
