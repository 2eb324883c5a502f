"""Waiting for conditions instead of sleeping. Limits are generous, and stretch on a busy machine."""

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_CORES = os.cpu_count() or 1
#: By how much each limit is multiplied, for a virtual machine that is slow without being busy.
_PATIENCE = 4
_LOAD = Path("/proc/loadavg")


def slowdown() -> float:
    """How many tasks share a core at this moment, at least 1, which is how much each is slowed down."""
    if _LOAD.exists():
        # The fourth field, "running/all", is current; the three before it are averages.
        return max(1.0, int(_LOAD.read_text().split()[3].partition("/")[0]) / _CORES)
    return max(1.0, os.getloadavg()[0] / _CORES)


class Deadline:
    """Passes after this many seconds of a fast machine: later on a slow one, and on a busy one.

    Only a test that fails waits for it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = self._left = seconds * _PATIENCE
        self._looked = time.monotonic()

    def extend(self) -> None:
        """Start again, since there was progress."""
        self._left = self._seconds

    def passed(self) -> bool:
        """Whether the time is up. Call it often, as each call measures the load."""
        now = time.monotonic()
        self._left -= (now - self._looked) / slowdown()
        self._looked = now
        return self._left < 0


async def eventually(
    condition: Callable[[], Any], timeout: float = 10.0, progress: Callable[[], Any] | None = None
) -> Any:
    """Wait until `condition()` (async or not) is true, and return its value.

    Fails after `timeout` seconds of a `Deadline`. With `progress` it fails when the value of
    `progress()` has not changed for that long, however long the condition takes to become true.
    """
    deadline = Deadline(timeout)
    seen = progress() if progress else None
    pause = 0.005
    while True:
        result = condition()
        value = await result if inspect.isawaitable(result) else result
        if value:
            return value
        if progress and (now := progress()) != seen:
            seen = now
            deadline.extend()
        if deadline.passed():
            shown = f", stuck at {seen!r}" if progress else ""
            raise AssertionError(f"not within {timeout} s{shown}: {condition}")
        await asyncio.sleep(pause)
        # Many conditions query the database: the longer one takes, the less often it is checked.
        pause = min(pause * 1.25, 0.04)


async def within(awaitable: Awaitable[T], seconds: float = 10.0) -> T:
    """Await an awaitable, and cancel it after this many seconds of a `Deadline`."""
    task = asyncio.ensure_future(awaitable)
    deadline = Deadline(seconds)
    try:
        while not task.done():
            if deadline.passed():
                raise AssertionError(f"not within {seconds} s: {awaitable}")
            await asyncio.wait({task}, timeout=0.05)
        return task.result()
    finally:
        task.cancel()


async def quiet() -> None:
    """Let pending wake-ups arrive, so that only later ones can start a job."""
    # A sleep, as there is no condition for "nothing happens any more".
    await asyncio.sleep(0.15)
