"""Notices that the event loop is blocked, and says by which job."""

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable

from oban import clock
from oban.runner.execution.executor import Run
from oban.worker import running

logger = logging.getLogger("oban.watchdog")

#: How many lines of the loop's stack are shown, counted from where it is.
_DEPTH = 6


class LoopWatchdog:
    """A thread that asks the event loop for a sign of life, four times per `threshold` seconds.

    A loop that has not answered for longer than `threshold` is reported once while it is blocked, with the
    job and the place in its code, and once more when it is free again. Times in which the whole process
    stood still (stopped by a signal, a suspended machine, no processor to run on) do not count. `closed` is
    called, in the thread, which ends then, when the loop was closed without a stop.
    """

    def __init__(
        self,
        runs: Callable[[], Iterable[Run]],
        closed: Callable[[], object] = bool,
        *,
        threshold: float = 1.0,
    ) -> None:
        self.threshold = threshold
        #: The loop's last sign of life, as `clock.monotonic()`.
        self.last_seen = clock.monotonic()
        self._runs = runs
        self._closed = closed
        #: Written by the loop alone once it has been asked.
        self._answered = True
        self._asked_at = 0.0
        #: Who blocks the loop, once that has been reported.
        self._culprit: str | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch the loop that runs now, from its own thread; does nothing if it is watched."""
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._watched = threading.get_ident()
            self._stopping.clear()
            self._answer()
            self._thread = threading.Thread(target=self._watch, name="oban-watchdog", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread; returns when it has ended."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None

    def _watch(self) -> None:
        interval = self.threshold / 4
        while True:
            before, worked = clock.monotonic(), time.process_time()
            stopped = self._stopping.wait(interval)
            now = clock.monotonic()
            overslept = now - before - interval
            held = 0.0
            if overslept > interval:
                # Where the process was at work meanwhile, a call held the interpreter's lock, and that is a
                # blockage; where it was not, it stood still, this thread like the loop.
                held = min(overslept, time.process_time() - worked)
                self._asked_at += overslept - held
            if self._answered:
                self._report_freed()
                if not stopped and not self._ask(now - held):
                    return
            if not self._answered and now - self._asked_at > self.threshold and self._culprit is None:
                self._report_blocked(now - self._asked_at)
            if stopped:
                return

    def _ask(self, asked_at: float) -> bool:
        self._answered, self._asked_at = False, asked_at
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:
            self._closed()
            return False
        return True

    def _answer(self) -> None:
        self.last_seen = clock.monotonic()
        self._answered = True

    def _report_blocked(self, seconds: float) -> None:
        self._culprit = self._find_culprit()
        frame = sys._current_frames().get(self._watched)
        stack = traceback.format_list(traceback.extract_stack(frame, _DEPTH)) if frame else []
        logger.warning(
            "the event loop has been blocked for %.1f s by %s; nothing else can run on it. It is at\n%s",
            *(seconds, self._culprit, "".join(stack).rstrip()),
        )

    def _report_freed(self) -> None:
        if self._culprit is not None:
            seconds = self.last_seen - self._asked_at
            logger.warning("the event loop was blocked for %.1f s by %s", seconds, self._culprit)
            self._culprit = None

    def _find_culprit(self) -> str:
        task = asyncio.current_task(self._loop)
        job = None
        if sys.version_info >= (3, 12) and task is not None:
            # A task that the job made is the job's too.
            job = task.get_context().get(running)
        for run in self._listed():
            if task is not None and (run.task is task or run.job is job):
                # Not by its attribute, which may be expired, and would then be loaded.
                return f"job {run.held[0]} ({run.job.__dict__.get('worker')})"
        return "no job, but code of the application or of a library"

    def _listed(self) -> list[Run]:
        try:
            return list(self._runs())
        except RuntimeError:
            # The loop went on just now, and changed the set.
            return []
