"""The one shape of every background service: start, stop, wake, and a loop around `tick`."""

import asyncio
import contextlib
import contextvars
import logging
import math
from abc import ABC, abstractmethod

from sqlalchemy.exc import SQLAlchemyError

from oban import backoff, dialects

logger = logging.getLogger("oban.runner")


class Service(ABC):
    """Calls `tick` again and again: every `interval` seconds, sooner when woken.

    A tick that raises is logged and repeated, with growing, jittered pauses.
    """

    def __init__(self, name: str, interval: float) -> None:
        self.name = name
        self.interval = interval
        self.failures = 0
        #: Longest pause after a failure, in seconds.
        self.max_backoff = backoff.LONGEST_PAUSE
        self._next_tick = 0.0
        self._woken = asyncio.Event()
        #: The loop that runs, and what tells it to end: each has its own, so that one that is stopped
        #: ends even if the next is started meanwhile.
        self._running: tuple[asyncio.Task[None], asyncio.Event] | None = None

    @abstractmethod
    async def tick(self) -> float | None:
        """Do what is to be done now. Returns the seconds until the next tick; None: `interval`."""

    async def start(self, context: contextvars.Context | None = None) -> None:
        """Start the loop, in the caller's context without another; does nothing if it runs."""
        if self._running is None:
            stopping = asyncio.Event()
            task = asyncio.create_task(self._loop(stopping), name=f"oban-{self.name}", context=context)
            self._running = task, stopping

    async def stop(self, timeout: float = 5.0) -> None:
        """Let the current tick end, for `timeout` seconds at most, and stop the loop."""
        if self._running is None:
            return
        (task, stopping), self._running = self._running, None
        stopping.set()
        self.wake()
        try:
            done, _ = await asyncio.wait({task}, timeout=timeout)
            if not done:
                task.cancel()
                await asyncio.wait({task})
        finally:
            # Nobody else knows of it any more, should this be interrupted.
            task.cancel()

    def wake(self) -> None:
        """Tick as soon as possible. Called on the event loop."""
        self._woken.set()

    def wake_within(self, seconds: float) -> None:
        """Wake now, unless the next tick comes within so many seconds anyway."""
        if self._next_tick > asyncio.get_running_loop().time() + seconds:
            self.wake()

    async def _loop(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            self._woken.clear()
            # What comes up while it ticks, the tick may have overlooked.
            self._next_tick = math.inf
            try:
                pause = await self.tick()
                self.failures = 0
            # The loop must outlive whatever a tick meets: a restart, a failover, a full disk.
            except Exception as error:
                self.failures += 1
                pause = backoff.pause(self.failures, self.max_backoff)
                self._report(error, pause)
                # Not ended by wake-ups, which go on while the database is away.
                await self._pause(pause, stopping)
                continue
            if stopping.is_set():
                # The wake-up that told so may have gone to the loop that was started since.
                return
            pause = self.interval if pause is None else pause
            self._next_tick = asyncio.get_running_loop().time() + pause
            await self._pause(pause, self._woken)

    async def _pause(self, seconds: float, event: asyncio.Event) -> None:
        if seconds <= 0 or event.is_set():
            # Even a service that is never idle lets the others have their turn.
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()

    def _report(self, error: Exception, pause: float) -> None:
        text = str(dialects.driver_error(error))
        # The last is of a driver, as SQLAlchemy 2.0 passes it on when it connects.
        known = isinstance(error, (SQLAlchemyError, OSError)) or hasattr(error, "sqlstate")
        logger.log(
            logging.WARNING if known else logging.ERROR,
            "%s failed, trying again in %.1f s: %s: %s",
            *(self.name, pause, type(error).__name__, text or "no message"),
            exc_info=None if known else error,
        )
