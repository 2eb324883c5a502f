"""Runs a job in a thread, with plain middleware in that thread and async middleware on the event loop."""

import asyncio
import contextvars
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeAlias

from oban.middleware import Layers, around_in_thread, around_on_loop
from oban.models import Job
from oban.runner.execution.outcome import is_outcome
from oban.runner.execution.run import Run

#: A result, or the exception instead of it, because a future cannot raise StopIteration.
Result: TypeAlias = tuple[Any, BaseException | None]
Process: TypeAlias = Callable[[Job], Any]


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
        self._answer: asyncio.Future[Result] | None = None
        self._end: Result = (None, None)
        self._left: Result | None = None

    async def execute(
        self, threads: ThreadPoolExecutor, call: Callable[[Callable[[Process], Any]], Result]
    ) -> Result:
        """Call `call(process_within)` in a thread, and return what it returns.

        It calls `process_within(process)`, which runs the middleware around `process` and returns the result.
        """
        process_within = self._serve if self._outer else self._run_here
        context = contextvars.copy_context()
        thread = self._loop.run_in_executor(threads, context.run, call, process_within)
        if not self._outer:
            return await thread
        thread.add_done_callback(self._leave)
        try:
            self._end = await around_on_loop(self._outer, self._call)(self._run.job), None
        except BaseException as error:
            self._end = None, error
            if isinstance(error, asyncio.CancelledError) and (
                self._run.timed_out is None or self._run.releasing
            ):
                # The thread is left behind, and rolls back.
                raise
        finally:
            self._calls.put(None)
        return await thread

    def interrupt(self) -> bool:
        """Interrupt async middleware because the timeout has passed, unless the job itself runs now.

        Returns:
            Whether it is interrupted.
        """
        if self._outer and self._answer is None and self._run.task is not None:
            return self._run.task.cancel()
        return False

    def _run_here(self, process: Process) -> Any:
        return around_in_thread(self._inner, process)(self._run.job)

    # -- with async middleware: the event loop ---------------------------------------------------

    async def _call(self, job: Job) -> Any:
        if self._left is not None:
            result, error = self._left
        else:
            self._answer = self._loop.create_future()
            # The job sees the context variables that the middleware has set.
            self._calls.put((contextvars.copy_context(), job))
            result, error = await self._answer
            self._answer = None
        if self._run.timed_out is not None and not (error is not None and is_outcome(error)):
            if inspect.iscoroutine(result):
                result.close()
            raise asyncio.CancelledError from error
        if error is not None:
            raise error
        return await result if inspect.isawaitable(result) else result

    def _leave(self, thread: "asyncio.Future[Result]") -> None:
        """Answer a call that the thread will not get to, because it has failed before."""
        if not thread.cancelled():
            self._left = thread.result()
            self._set_answer(self._left)

    def _set_answer(self, result: Result) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(result)

    # -- with async middleware: the thread -------------------------------------------------------

    def _serve(self, process: Process) -> Any:
        function = around_in_thread(self._inner, process)
        while (call := self._calls.get()) is not None:
            context, job = call
            try:
                result: Result = context.run(function, job), None
            except BaseException as error:
                result = None, error
            self._loop.call_soon_threadsafe(self._set_answer, result)
        value, failure = self._end
        if failure is not None:
            raise failure
        return value
