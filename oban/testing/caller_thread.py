"""Runs an event loop beside a thread, which waits and runs what needs that thread.

In a sync test, async workers need a loop, while the connection of the test can belong to the test's thread.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class CallerThread(Executor):
    """An executor whose calls run in the thread that waits in `run`."""

    def __init__(self) -> None:
        #: None ends the waiting.
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        future: Future[T] = Future()
        self._calls.put(partial(_run, future, partial(function, *args, **kwargs)))
        return future

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on an event loop in another thread, and this executor's calls here meanwhile."""
        answer: Future[T] = Future()
        context = contextvars.copy_context()
        # A daemon, so that Python does not wait for it after this thread was interrupted and serves no calls.
        thread = threading.Thread(
            target=context.run, args=(self._run_loop, make, answer), name="oban-testing", daemon=True
        )
        thread.start()
        try:
            while (call := self._calls.get()) is not None:
                call()
        except BaseException:
            # Such as a KeyboardInterrupt, or the timeout of the test.
            if (loop := self._loop) is not None and not loop.is_closed():
                loop.call_soon_threadsafe(_cancel_all, loop)
            raise
        thread.join()
        return answer.result()

    def _run_loop(self, make: Callable[[], Coroutine[Any, Any, T]], answer: "Future[T]") -> None:
        async def main() -> T:
            self._loop = asyncio.get_running_loop()
            return await make()

        _run(answer, partial(asyncio.run, main()))
        self._calls.put(None)


def _run(future: "Future[T]", call: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
