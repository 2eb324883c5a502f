"""`Background`: a value that takes long to compute, kept for all pages and renewed in the background."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from oban.error_texts import error_line
from oban.log_limits import LogLimit
from oban.web.sampler import DUTY, NO_ANSWER

T = TypeVar("T")

_log = logging.getLogger("oban.web")

#: Seconds that a request waits for the first value.
PATIENCE = 0.2
#: Seconds before the next try if the value took too long to compute.
PAUSE = 30.0
#: Seconds before the next try if the database was away or had no tables.
SHORT_PAUSE = 5.0


class Background(Generic[T]):
    """A value that is computed when somebody asks for it, once for all who ask.

    Args:
        compute: Computes the value.
        max_age: Seconds for which a value is kept; longer, where it takes long to compute.
        name: What it is, for the log.
    """

    def __init__(self, compute: Callable[[], Awaitable[T]], max_age: float, name: str) -> None:
        self._compute, self._max_age, self._name = compute, max_age, name
        self._task: asyncio.Task[None] | None = None
        self._next = 0.0
        self._expired = False
        self._log_limit = LogLimit()
        #: The last value; None before the first.
        self.value: T | None = None
        #: Whether the last try failed.
        self.failed = False

    async def get(self) -> T | None:
        """The last value, which can be old, or None if there is none yet. Starts to compute a new one."""
        if (self._task is None or self._task.done()) and time.monotonic() >= self._next:
            self._task = asyncio.create_task(self._run())
        if self.value is None and self._task is not None and not self._task.done():
            await asyncio.wait({self._task}, timeout=PATIENCE)
        return self.value

    async def _run(self) -> None:
        started = time.monotonic()
        try:
            self.value = await self._compute()
        except NO_ANSWER as error:
            self.failed = True
            pause = PAUSE if isinstance(error, TimeoutError) else SHORT_PAUSE
            if self._log_limit.count():
                _log.warning("the dashboard cannot compute %s: %s", self._name, error_line(error))
        else:
            self.failed = False
            pause = self._max_age
        if self._expired:
            pause = min(pause, SHORT_PAUSE)
        self._expired = False
        now = time.monotonic()
        self._next = now + max(pause, (now - started) / DUTY)

    def expire(self) -> None:
        """Compute the value again soon, as it is known to be out of date."""
        # The one that is being computed may be out of date, too.
        self._expired = True
        self._next = min(self._next, time.monotonic() + SHORT_PAUSE)

    async def close(self) -> None:
        """Stop computing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
