"""The base of all background services: start, stop, wake, and a loop that calls `tick`."""

import asyncio
import contextlib
import contextvars
import logging
import math
from abc import ABC, abstractmethod
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from oban import backoff, clock, dialects
from oban.telemetry import ServiceFailed, ServiceRecovered, Telemetry
from oban.telemetry.errors import error_fields

logger = logging.getLogger("oban.runner")

#: The longest time that a start waits for the first tick, in seconds.
FIRST_TICK_TIMEOUT = 0.05


class Service(ABC):
    """Calls `tick` every `interval` seconds, sooner when woken. If that is infinite, only `wake` causes one.

    A tick that raises is logged and repeated after a jittered pause, which grows with each failure.
    """

    def __init__(self, name: str, interval: float, telemetry: Telemetry | None = None) -> None:
        self.name = name
        self.interval = interval
        self.telemetry = telemetry or Telemetry()
        self.failures = 0
        self._failing_since: float | None = None
        #: The longest pause after a failure, in seconds.
        self.max_backoff = backoff.LONGEST_PAUSE
        self._next_tick = 0.0
        self._woken = asyncio.Event()
        #: The loop's task, and the event that ends it. Each loop has its own event, so that one that was
        #: stopped ends even if another is started meanwhile.
        self._running: tuple[asyncio.Task[None], asyncio.Event] | None = None

    @abstractmethod
    async def tick(self) -> float | None:
        """Do the work that is due now. Returns the seconds until the next tick: None means `interval`, 0
        that there is more to do at once, and infinity that only `wake` causes the next tick."""

    async def start(self, context: contextvars.Context | None = None) -> None:
        """Start the loop, in `context` or in the caller's own; does nothing if it runs already.

        This waits a moment for the first tick, so that services that are started one after another use the
        same connection. Otherwise, each would open one.
        """
        if self._running is None:
            stopping, ticked = asyncio.Event(), asyncio.Event()
            loop = self._loop(stopping, ticked)
            task = asyncio.create_task(loop, name=f"oban-{self.name}", context=context)
            self._running = task, stopping
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_TICK_TIMEOUT):
                    await ticked.wait()

    async def stop(self, timeout: float = 5.0) -> None:
        """Stop the loop when the current tick has ended; cancel that after `timeout` seconds."""
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
            # If this stop is interrupted, no later one can end the task.
            task.cancel()

    def failing_for(self) -> float:
        """The seconds since the first of the failures in a row; 0 after a success. Called from any thread."""
        since = self._failing_since
        return 0.0 if since is None else clock.monotonic() - since

    def wake(self) -> None:
        """Tick as soon as possible. Call it on the event loop."""
        self._woken.set()

    def wake_within(self, seconds: float) -> None:
        """Wake now, unless the next tick comes within `seconds` anyway."""
        if self._next_tick > asyncio.get_running_loop().time() + seconds:
            self.wake()

    async def _loop(self, stopping: asyncio.Event, ticked: asyncio.Event) -> None:
        task: Any = asyncio.current_task()
        # A driver can raise an error of its own instead of a cancellation, or drop it.
        while not (stopping.is_set() or task.cancelling()):
            self._woken.clear()
            # A tick may overlook what happens while it works, so `wake_within` must wake it again.
            self._next_tick = math.inf
            try:
                pause = await self.tick()
                if self.failures:
                    self._note_recovery()
            # The loop must outlive whatever makes a tick fail: a restart, a failover, a full disk.
            except Exception as error:
                self.failures += 1
                if self._failing_since is None:
                    self._failing_since = clock.monotonic()
                pause = backoff.pause(self.failures, self.max_backoff)
                self._log_failure(error, pause)
                if self.telemetry.wants(ServiceFailed):
                    self.telemetry.emit(
                        ServiceFailed,
                        service=self.name,
                        failures=self.failures,
                        pause=pause,
                        **error_fields(error),
                    )
                ticked.set()
                # Wake-ups do not cut this pause short: they go on while the database is away.
                if not task.cancelling():
                    await self._wait(pause, stopping)
                continue
            ticked.set()
            if stopping.is_set() or task.cancelling():
                # A loop that was started since may have taken the wake-up that `stop` sent to this one.
                return
            pause = self.interval if pause is None else pause
            self._next_tick = asyncio.get_running_loop().time() + pause
            await self._wait(pause, self._woken)

    def _note_recovery(self) -> None:
        failures, duration = self.failures, self.failing_for()
        self.failures, self._failing_since = 0, None
        self.telemetry.emit(ServiceRecovered, service=self.name, failures=failures, duration=duration)

    async def _wait(self, seconds: float, event: asyncio.Event) -> None:
        if seconds <= 0 or event.is_set():
            # Even a service that is never idle lets other tasks run.
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await event.wait()

    def _log_failure(self, error: Exception, pause: float) -> None:
        # When SQLAlchemy 2.0 connects, it raises some of the driver's errors as they are, with a `sqlstate`.
        expected = isinstance(error, (SQLAlchemyError, OSError)) or hasattr(error, "sqlstate")
        message = str(dialects.driver_error(error)) or "no message"
        logger.log(
            logging.WARNING if expected else logging.ERROR,
            "%s failed, trying again in %.1f s: %s: %s",
            self.name,
            pause,
            type(error).__name__,
            message,
            exc_info=None if expected else error,
        )
