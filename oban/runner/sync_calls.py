"""Calls on a running node without `await`: from its plain workers, and from other threads."""

import asyncio
import concurrent.futures
import contextvars
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from oban import compat, display
from oban.database.aio import Database
from oban.database.loops import Loop, running_loop
from oban.errors import InstanceNotFound, WouldDeadlock

#: Seconds between two checks of a waiting thread whether the event loop still runs.
LOOP_CHECK_INTERVAL = 1.0


def wait_for(database: Database, name: str, call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Wait in sync code while the event loop of a node runs a call, such as one that enqueues a job.

    Args:
        database: The database of the node.
        name: The instance name, for the error.
        call: Makes the coroutine.

    Raises:
        InstanceNotFound: the node has stopped, or its event loop has ended.
        WouldDeadlock: this is the event loop, which would wait for itself.
    """
    here = running_loop()
    if here is not None:
        if here is not database.loop or not compat.in_greenlet():
            raise WouldDeadlock(
                "enqueue_sync would block the event loop: use `await ….enqueue(…)`, or move the code to a"
                " plain function in a thread"
            )
        compat.wait_for(call())
    elif (loop := database.loop) is None or not _run_on(loop, call):
        raise InstanceNotFound(
            f"the Oban named {display.shown(name)} has stopped, or its event loop has ended"
        )


def _run_on(loop: Loop, call: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
    """Run a call on a loop, in the context of this thread, and wait. Returns whether the loop has run it."""
    answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
    context = contextvars.copy_context()
    tasks = []

    def begin() -> None:
        task = loop.create_task(call(), context=context)
        task.add_done_callback(partial(_copy, answer))
        tasks.append(task)

    try:
        loop.call_soon_threadsafe(begin)
    except RuntimeError:
        return False
    stood_still = 0
    while not concurrent.futures.wait({answer}, LOOP_CHECK_INTERVAL).done:
        # Between two calls of `run_until_complete`, a loop stands still for a moment.
        stood_still = 0 if loop.is_running() else stood_still + 1
        if loop.is_closed() or stood_still > 1:
            return False
    if answer.cancelled():
        return False
    answer.result()
    return True


def _copy(answer: concurrent.futures.Future[Any], task: asyncio.Task[Any]) -> None:
    if task.cancelled():
        answer.cancel()
    elif (error := task.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(task.result())
