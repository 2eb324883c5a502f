"""Ending in time what may hang: a network that loses packets answers nothing, not even a goodbye."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from oban import clock
from oban.database.aio import Database

#: Seconds between two cancellations of what does not end, and how many there are.
_NUDGE = 0.1
_NUDGES = 10


async def within(seconds: float, action: Coroutine[Any, Any, Any], *, patient: bool = False) -> None:
    """Await `action` for `seconds` at most; raises what it raises, or `TimeoutError`.

    What clings to its connection, as drivers do that want to cancel a statement or to say goodbye, is
    cancelled again and again, and left behind in the end. Not if `patient`: then it is cancelled once, and
    its end is awaited.
    """
    task = asyncio.ensure_future(action)
    try:
        await asyncio.wait({task}, timeout=max(seconds, 0))
        if patient and not task.done():
            task.cancel()
            await asyncio.wait({task})
        else:
            await end({task})
    finally:
        task.cancel()
    if task.cancelled() or not task.done():
        raise TimeoutError
    task.result()


async def end(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel tasks that are not done, and see to it that they end, if at all they do."""
    for _ in range(_NUDGES):
        tasks = {task for task in tasks if not task.done()}
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_NUDGE)


async def close(database: Database, seconds: float) -> None:
    """Dispose of a database: its connections say goodbye, for `seconds` at most, or are cut."""
    if not database.dialect.interruptible:
        await database.dispose()
        return
    until = clock.monotonic() + seconds
    while True:
        try:
            # Each time that it is interrupted, it has taken one more connection out of the pool.
            await within(until - clock.monotonic(), database.dispose())
        except TimeoutError:
            continue
        return
