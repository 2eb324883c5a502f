"""Sends heartbeats from a thread with its own event loop and its own connection."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from oban.config import Options
from oban.database.aio import Database
from oban.repository.cluster import Heartbeat
from oban.runner import deadlines
from oban.runner.services.refresher import Refresher

T = TypeVar("T")


class HeartbeatThread:
    """Runs the refresher where no job can block it.

    An in-memory database has one connection and no other node: there it runs on the loop of the jobs.
    """

    def __init__(
        self,
        database: Database,
        options: Options,
        heartbeats: Callable[[], Sequence[Heartbeat]],
        loop_answered_at: Callable[[], float],
        on_full: Callable[[], None] | None = None,
        facts: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        timeout = min(options.statement_timeout, options.lease / 4)
        self._database = database.with_own_pool(1, timeout, own_loop=True)
        self._thread = None if self._database is database else _LoopThread()
        if self._thread is not None:
            self._database.on_full = on_full
        self._refresher = Refresher(self._database, options, heartbeats, loop_answered_at, facts)
        self.may_fetch = self._refresher.may_fetch
        self.is_steady = self._refresher.is_steady
        self.failing_for = self._refresher.failing_for

    async def start(self) -> None:
        """Send the first heartbeat, and go on with one every interval. Raises what the first one raises."""
        if self._thread is not None:
            self._thread.start()
        await self.send()
        await self._on_thread(self._refresher.start())

    async def send(self) -> None:
        """Send a heartbeat now, with the present state of all producers."""
        await self._on_thread(self._refresher.tick())

    async def delete_producers(self, uuids: Iterable[UUID]) -> None:
        """Delete the rows of producers that have ended. Does nothing before the start."""
        if self._thread is None or self._thread.is_alive():
            await self._on_thread(self._refresher.delete_producers(uuids))

    async def stop(self, seconds: float = 5.0) -> None:
        """Stop the heartbeats within `seconds`, and close the connection; does nothing before the start."""
        if self._thread is None:
            await self._refresher.stop(seconds)
        elif self._thread.is_alive():
            try:
                await self._thread.call(self._stop(seconds))
            finally:
                await self._thread.stop()

    def abort(self) -> None:
        """Stop the heartbeats at once, from any thread. Does nothing where they have no thread."""
        if self._thread is not None:
            self._thread.request_stop()

    async def _stop(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await deadlines.within(seconds * 0.7, self._refresher.stop(seconds / 2))
        await deadlines.close(self._database, seconds * 0.3)

    async def _on_thread(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await (coroutine if self._thread is None else self._thread.call(coroutine))


class _LoopThread(threading.Thread):
    """A thread that runs an event loop."""

    def __init__(self) -> None:
        super().__init__(name="oban-refresher", daemon=True)

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        super().start()

    def run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._wind_up())
        self._loop.close()

    async def _wind_up(self) -> None:
        await deadlines.cancel_all(asyncio.all_tasks() - {asyncio.current_task()})
        await self._loop.shutdown_default_executor()

    async def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await a coroutine on the thread's loop, from another loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def request_stop(self) -> None:
        """Let the loop and the thread end soon. Call it from any thread."""
        # The loop may have been closed just now.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)

    async def stop(self) -> None:
        """End the loop and the thread, even if this is interrupted. What still runs there is cancelled."""
        self.request_stop()
        for _ in range(400):
            if self.is_alive():
                await asyncio.sleep(0.005)
