"""Middleware: functions that run around each attempt of a job.

A middleware gets the job and `call_next`, which runs the rest: the next middleware, and `process` in the end.
It can be async or plain, whatever `process` is. `around_on_loop` and `around_in_thread` build the chain.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias

from greenlet import getcurrent

from oban import callables, compat, forks
from oban.models import Job
from oban.outcomes import Cancel, Discard, Record, Snooze

#: The second argument of a middleware. An async middleware awaits what it returns.
CallNext: TypeAlias = Callable[[Job], Any]
#: A function for the option `middleware`, async or plain.
Middleware: TypeAlias = Callable[[Job, CallNext], Any]

OUTCOMES = (Cancel, Discard, Snooze, Record)


class Layer:
    """A middleware, and what its calls need to know about it."""

    __slots__ = ("function", "is_async")

    def __init__(self, function: Middleware) -> None:
        self.function: Middleware = function
        self.is_async: bool = callables.is_async(function)

    @property
    def name(self) -> str:
        return callables.name(self.function)


Layers: TypeAlias = tuple[Layer, ...]


def layers(functions: Iterable[Middleware]) -> Layers:
    """The layers of checked middleware, of which the first is the outermost."""
    return tuple(map(Layer, functions))


def around_on_loop(
    chain: Sequence[Layer], call: Callable[[Job], Awaitable[Any]]
) -> Callable[[Job], Awaitable[Any]]:
    """Put layers around an async call. All of them run on the event loop."""
    for layer in reversed(chain):
        call = partial(_run_async if layer.is_async else _run_in_greenlet, layer, call)
    return call


def around_in_thread(chain: Sequence[Layer], call: Callable[[Job], Any]) -> Callable[[Job], Any]:
    """Put plain layers around a plain call. All of them run in the thread of the caller."""
    for layer in reversed(chain):
        call = partial(_run_plain, layer, call)
    return call


async def _run_async(layer: Layer, call: Callable[[Job], Awaitable[Any]], job: Job) -> Any:
    step = _Step(layer, call)
    result = await layer.function(job, step.call_async)
    # Most middleware returns what it has got, and then nothing is lost.
    if not step.ended or result is not step.result:
        step.end(result)
    return result


async def _run_in_greenlet(layer: Layer, call: Callable[[Job], Awaitable[Any]], job: Job) -> Any:
    # Its `call_next` switches out of the greenlet to wait, so that the event loop goes on meanwhile.
    step = _Step(layer, call)
    result = await compat.run_sync(lambda: layer.function(job, step.call_in_greenlet))
    step.end(result)
    return result


def _run_plain(layer: Layer, call: Callable[[Job], Any], job: Job) -> Any:
    step = _Step(layer, call)
    result = layer.function(job, step.call_plain)
    step.end(result)
    return result


class _Step:
    """One call of a middleware: provides its `call_next`, and checks what it did with it."""

    __slots__ = ("_begun", "_call", "_layer", "ended", "result")

    def __init__(self, layer: Layer, call: Callable[[Job], Any]) -> None:
        self._layer = layer
        self._call = call
        self._begun = self.ended = False
        self.result: Any = None

    async def call_async(self, job: Job) -> Any:
        self._begin()
        try:
            self.result = result = await self._call(job)
        finally:
            self.ended = True
            if forks.is_child:
                forks.leave()
        return result

    def call_in_greenlet(self, job: Job) -> Any:
        if getcurrent().parent is None:
            raise RuntimeError(f"middleware {self._layer.name} must call call_next in its own thread")
        self._begin()
        try:
            self.result = result = compat.wait_for(self._call(job))
        finally:
            self.ended = True
            if forks.is_child:
                forks.leave()
        return result

    def call_plain(self, job: Job) -> Any:
        self._begin()
        try:
            self.result = result = self._call(job)
        finally:
            self.ended = True
            if forks.is_child:
                forks.leave()
        return result

    def _begin(self) -> None:
        if self._begun:
            raise RuntimeError(f"middleware {self._layer.name} can call call_next once, before it returns")
        self._begun = True

    def end(self, returned: Any) -> None:
        """Raise `RuntimeError` if the middleware has lost the job or its outcome."""
        begun, self._begun = self._begun, True
        if not begun:
            if not isinstance(returned, OUTCOMES):
                self._refuse(
                    returned,
                    "without running the job: return await call_next(job) (a plain function does not await),"
                    " or an outcome such as Cancel(…)",
                )
        elif not self.ended:
            self._refuse(returned, "while call_next was still running: await it")
        elif returned is None:
            if isinstance(self.result, OUTCOMES):
                self._refuse(None, f"instead of what call_next returned, {type(self.result).__name__}(…)")
        elif returned is not self.result and inspect.isawaitable(returned):
            self._refuse(returned, "which nobody awaits: await it, or define the middleware with async def")

    def _refuse(self, returned: Any, problem: str) -> None:
        if inspect.iscoroutine(returned) and inspect.getcoroutinestate(returned) == inspect.CORO_CREATED:
            # Closed, so that Python does not warn about it in addition.
            returned.close()
        what = "None" if returned is None else f"an object of the type {type(returned).__name__}"
        raise RuntimeError(f"middleware {self._layer.name} returned {what} {problem}")
