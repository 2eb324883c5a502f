"""The heart of a node: the refresher on an event loop, a thread and a connection of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from oban.config import Options
from oban.database.aio import Database
from oban.repository.cluster import Heartbeat
from oban.runner import deadlines
from oban.runner.services.refresher import Refresher

T = TypeVar("T")


class HeartbeatThread:
    """Keeps the node's producers alive in the eyes of others, whatever blocks the loop of the jobs.

    A database in memory has one connection, and nobody else to look: there it beats on the same loop.
    """

    def __init__(
        self,
        database: Database,
        options: Options,
        heartbeats: Callable[[], Sequence[Heartbeat]],
        last_seen: Callable[[], float],
    ) -> None:
        timeout = min(options.statement_timeout, options.lease / 4)
        self._database = database.with_own_pool(1, timeout, own_loop=True)
        self._thread = None if self._database is database else _Thread("oban-refresher")
        self._refresher = Refresher(
            self._database,
            lease=options.lease,
            interval=options.heartbeat_interval,
            heartbeats=heartbeats,
            last_seen=last_seen,
        )

    def is_alive(self) -> bool:
        """Whether the producers count as alive, so that they may fetch."""
        return self._refresher.is_alive

    def is_steady(self) -> bool:
        """Whether the heart has beaten without a gap for so long that those of others would, too."""
        return self._refresher.steady

    async def start(self) -> None:
        """Write the producers' rows, and go on doing so. Raises what the first time raises."""
        if self._thread is not None:
            self._thread.start()
        await self.beat()
        await self._on_thread(self._refresher.start())

    async def beat(self) -> None:
        """Write the producers' rows now, as there is news."""
        await self._on_thread(self._refresher.tick())

    async def withdraw(self, uuids: Iterable[UUID]) -> None:
        """Remove the rows of producers that have ended. Does nothing before the start."""
        if self._thread is None or self._thread.is_alive:
            await self._on_thread(self._refresher.withdraw(uuids))

    async def stop(self, seconds: float = 5.0) -> None:
        """Stop the heart, in so many seconds; rows that were not withdrawn grow old.

        Does nothing if it does not beat.
        """
        if self._thread is None:
            await self._refresher.stop(seconds)
        elif self._thread.is_alive:
            try:
                await self._thread.run(self._stop(seconds))
            finally:
                await self._thread.stop()

    def end(self) -> None:
        """Stop the heart from any thread, at once. Does nothing where it has no thread."""
        if self._thread is not None:
            self._thread.end()

    async def _stop(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await deadlines.within(seconds * 0.7, self._refresher.stop(seconds / 2))
        await deadlines.close(self._database, seconds * 0.3)

    async def _on_thread(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await (coroutine if self._thread is None else self._thread.run(coroutine))


class _Thread:
    """An event loop in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    def end(self) -> None:
        """Have the loop and the thread end. Called from any thread."""
        with contextlib.suppress(RuntimeError):
            # Ended just now.
            self._loop.call_soon_threadsafe(self._loop.stop)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._wind_up())
        self._loop.close()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await a coroutine there, from another loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    async def stop(self) -> None:
        """End the loop and the thread, even if this is interrupted. What still runs there is cancelled."""
        self.end()
        for _ in range(400):
            if not self.is_alive:
                return
            await asyncio.sleep(0.005)

    async def _wind_up(self) -> None:
        await deadlines.end(asyncio.all_tasks() - {asyncio.current_task()})
        await self._loop.shutdown_default_executor()
