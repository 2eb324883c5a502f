"""Runs a job in a thread, with plain middleware in that thread and async middleware on the event loop."""

import asyncio
import contextvars
import inspect
from collections.abc import Callable
from concurrent.futures import Executor as Threads
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from oban.middleware import Layers, around_in_thread, around_on_loop
from oban.models import Job
from oban.runner.execution.outcome import Result
from oban.runner.execution.run import Run

Process: TypeAlias = Callable[[Job], Any]

#: Seconds between two checks of a waiting thread whether the event loop still exists.
LOOP_CHECK_INTERVAL = 1.0


class ThreadRun:
    """The run of one job in a thread.

    While async middleware runs around the job, the thread waits, so that a session stays open in it.
    """

    def __init__(self, run: Run, chain: Layers) -> None:
        self._run = run
        self._outer = [layer for layer in chain if layer.is_async]
        self._inner = [layer for layer in chain if not layer.is_async]
        self._loop = asyncio.get_running_loop()
        #: What the thread runs next, in which context; None ends its waiting.
        self._calls: SimpleQueue[tuple[contextvars.Context, Job] | None] = SimpleQueue()
        #: How that call has ended.
        self._answer: asyncio.Future[Result] = self._loop.create_future()
        #: How the middleware has ended.
        self._end = Result()
        #: Whether async middleware runs now, which the timeout can interrupt.
        self._in_middleware = False

    async def execute(self, threads: Threads, call: Callable[[Callable[[Process], Any]], Any]) -> Result:
        """Call `call(process_within)` in a thread.

        It calls `process_within(process)`, which runs the middleware around `process` and returns the result.
        """
        process_within = self._serve if self._outer else self._run_here
        context = contextvars.copy_context()
        thread = self._loop.run_in_executor(threads, context.run, Result.of, call, process_within)
        if not self._outer:
            return await thread
        thread.add_done_callback(self._on_thread_end)
        self._in_middleware = True
        try:
            self._end = Result(await around_on_loop(self._outer, self._call)(self._run.job))
        except BaseException as error:
            self._end = Result(error=error)
            if isinstance(error, asyncio.CancelledError) and (
                self._run.timed_out is None or self._run.releasing
            ):
                # The thread is left behind, and rolls back.
                raise
        finally:
            # The thread may store the outcome now: a timeout comes too late.
            self._in_middleware = False
            self._answer.cancel()
            self._calls.put(None)
        return await thread

    def interrupt(self) -> bool:
        """Interrupt async middleware because the timeout has passed, unless the job itself runs now.

        Returns:
            Whether it is interrupted.
        """
        if self._in_middleware and self._run.task is not None:
            return self._run.task.cancel()
        return False

    def _run_here(self, process: Process) -> Any:
        return around_in_thread(self._inner, process)(self._run.job)

    # -- with async middleware: the event loop ---------------------------------------------------

    async def _call(self, job: Job) -> Any:
        # The job sees the context variables that the middleware has set.
        self._calls.put((contextvars.copy_context(), job))
        self._in_middleware = False
        try:
            answer = await self._answer
        finally:
            self._in_middleware = True
        if self._run.timed_out is not None:
            if inspect.iscoroutine(answer.value):
                answer.value.close()
            raise asyncio.CancelledError from answer.error
        result = answer.unwrap()
        return await result if inspect.isawaitable(result) else result

    def _on_thread_end(self, thread: "asyncio.Future[Result]") -> None:
        """Answer a call that the thread does not get to, because it has failed before."""
        if not thread.cancelled():
            ended = thread.result()
            self._set_answer(Result(ended.value, ended.error))

    def _set_answer(self, answer: Result) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)

    # -- with async middleware: the thread -------------------------------------------------------

    def _serve(self, process: Process) -> Any:
        function = around_in_thread(self._inner, process)
        while (call := self._next_call()) is not None:
            context, job = call
            self._loop.call_soon_threadsafe(self._set_answer, Result.of(context.run, function, job))
        return self._end.unwrap()

    def _next_call(self) -> tuple[contextvars.Context, Job] | None:
        while True:
            try:
                return self._calls.get(timeout=LOOP_CHECK_INTERVAL)
            except Empty:
                # Python waits for this thread before it ends.
                if self._loop.is_closed():
                    raise RuntimeError("the event loop was closed while middleware ran") from None
