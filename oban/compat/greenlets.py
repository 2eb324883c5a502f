"""Private names for sync code that waits for asyncio drivers."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet
from sqlalchemy import util

T = TypeVar("T")


class ProviderGreenlet(greenlet):
    """A greenlet in which SQLAlchemy's asyncio drivers may wait: they switch to its parent.

    SQLAlchemy recognizes it by the attribute. Without support for that, a sync session of a job in a thread
    fails with SQLAlchemy's `MissingGreenlet`.
    """

    __sqlalchemy_greenlet_provider__ = True


async def spawn(function: Callable[[], T]) -> T:
    """Run a sync function in a greenlet, and await what it waits for with `wait_for` or a driver."""
    worker = ProviderGreenlet(function, getcurrent())
    worker.gr_context = getcurrent().gr_context
    awaited: Any = worker.switch()
    while not worker.dead:
        try:
            value = await awaited
        except BaseException as error:
            awaited = worker.throw(type(error), error, error.__traceback__)
        else:
            awaited = worker.switch(value)
    result: T = awaited
    return result


def drive(function: Callable[[], T], wait: Callable[[Any], Any]) -> T:
    """Run a sync function in a greenlet of a thread without a running event loop.

    `wait` gets each awaitable that a driver waits for there, and returns its value.
    """
    worker = ProviderGreenlet(function)
    worker.gr_context = getcurrent().gr_context
    awaited: Any = worker.switch()
    while not worker.dead:
        try:
            value = wait(awaited)
        except BaseException as error:
            awaited = worker.throw(type(error), error, error.__traceback__)
        else:
            awaited = worker.switch(value)
    result: T = awaited
    return result


#: Runs sync code that uses SQLAlchemy on an asyncio driver. Without `greenlet_spawn`, `spawn` does the same.
run_sync: Callable[[Callable[[], T]], Awaitable[T]] = getattr(util, "greenlet_spawn", spawn)


def in_greenlet() -> bool:
    """Return whether SQLAlchemy runs this code for an asyncio driver, so that `wait_for` works."""
    return bool(getattr(getcurrent(), "__sqlalchemy_greenlet_provider__", False))


def wait_for(awaitable: Awaitable[Any]) -> Any:
    """Wait in sync code that SQLAlchemy runs for an asyncio driver, while the event loop goes on."""
    parent = getcurrent().parent
    if parent is None:
        raise RuntimeError("not in a greenlet of an asyncio driver")
    return parent.switch(awaitable)
