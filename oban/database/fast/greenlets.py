"""Sync code on top of a driver for asyncio: in a greenlet, out of which comes what is to be awaited.

`sqlalchemy.util.greenlet_spawn` does the same with a new greenlet each time, for which Python maps and
unmaps a stack of its own: that takes as long as all that the library does for an insert.
"""

import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from greenlet import GreenletExit, getcurrent

from oban.compat import ProviderGreenlet

T = TypeVar("T")

#: Idle greenlets that each thread keeps for reuse.
IDLE_GREENLETS = 16


class _Errand:
    """What a greenlet is to do next, and what came of it."""

    __slots__ = ("error", "function", "result")

    def __init__(self) -> None:
        #: None when it is done.
        self.function: Callable[[], Any] | None = None
        self.result: Any = None
        self.error: BaseException | None = None


class _Runner(ProviderGreenlet):
    """A bridge that is used again and again."""

    def __init__(self) -> None:
        self.errand = _Errand()
        super().__init__(_serve)


def _serve(errand: _Errand) -> None:
    # No name here for the greenlet itself: it would keep itself alive.
    while (function := errand.function) is not None:
        try:
            errand.result = function()
        except GreenletExit:
            # Given up by whoever waited: nobody is left to be told.
            return
        except BaseException as error:
            errand.error = error
        errand.function = function = None
        parent = getcurrent().parent
        assert parent is not None  # noqa: S101 - only the first greenlet of a thread has none
        parent.switch()


class _Kept(threading.local):
    """A greenlet stays in the thread that it began in."""

    def __init__(self) -> None:
        self.idle: list[_Runner] = []


_kept = _Kept()


async def run_sync(function: Callable[[], T]) -> T:
    """Run a sync function that uses SQLAlchemy on a driver for asyncio; its result, or what it raises."""
    idle = _kept.idle
    runner = idle.pop() if idle else _Runner()
    errand = runner.errand
    errand.function = function
    driver = getcurrent()
    runner.parent, runner.gr_context = driver, driver.gr_context
    awaited: Awaitable[Any] = runner.switch(errand)
    while errand.function is not None:
        try:
            value = await awaited
        except BaseException as error:
            # An eager task may have begun in another greenlet than it goes on in.
            runner.parent = getcurrent()
            awaited = runner.throw(type(error), error, error.__traceback__)
        else:
            runner.parent = getcurrent()
            awaited = runner.switch(value)
    # Not what the caller knows, nor what was said of a job, until the next one comes.
    runner.gr_context = None
    result, error, errand.result, errand.error = errand.result, errand.error, None, None
    if error is not None:
        # Not used again: one that began deep in a recursion would never be free of it.
        try:
            raise error
        finally:
            # It holds this frame.
            del error
    if len(idle) < IDLE_GREENLETS:
        idle.append(runner)
    return cast(T, result)
