"""Logs when the event loop is blocked, and by which job."""

import asyncio
import logging
import selectors
import sys
import threading
import time
import traceback
from asyncio import base_events
from collections.abc import Callable, Iterable
from types import FrameType

from oban import clock
from oban.runner.execution.run import Run
from oban.running_job import running
from oban.telemetry import LoopBlocked, LoopUnblocked, Telemetry

logger = logging.getLogger("oban.watchdog")

#: How many lines of the loop's stack are logged, counted from its innermost call.
_DEPTH = 6


class LoopWatchdog:
    """A thread that asks the event loop for an answer, four times per `threshold` seconds.

    A loop that does not answer for `threshold` seconds is reported while it is blocked, with the job and the
    line of its code, and again when it answers. Time during which the whole process stood still does not
    count: it was stopped by a signal, say, or the machine was suspended. If the loop is closed without a
    `stop`, the thread calls `on_closed` and ends.
    """

    def __init__(
        self,
        runs: Callable[[], Iterable[Run]],
        on_closed: Callable[[], object] = bool,
        *,
        threshold: float = 1.0,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.threshold = threshold
        self._telemetry = telemetry or Telemetry()
        #: When the loop last answered, by the monotonic clock.
        self.answered_at = clock.monotonic()
        self._runs = runs
        self._on_closed = on_closed
        #: Set to True by the loop alone, once it has been asked.
        self._answered = True
        self._asked_at = 0.0
        #: Whether a block of the loop has been reported, and the run that blocks it, if it is a job.
        self._is_reported = False
        self._culprit: Run | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch the event loop that calls this; does nothing if it is watched already."""
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._loop_thread_id = threading.get_ident()
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

    def unanswered_for(self) -> float:
        """The seconds for which the loop has not answered, 0 if it has. Called from any thread."""
        # Other than by the time of the last answer, a process that stood still is not taken to be blocked.
        return 0.0 if self._answered else clock.monotonic() - self._asked_at

    def _watch(self) -> None:
        interval = self.threshold / 4
        while True:
            before, cpu_before = clock.monotonic(), time.process_time()
            stopped = self._stopping.wait(interval)
            now = clock.monotonic()
            overslept = now - before - interval
            blocked = 0.0
            if overslept > interval:
                # This thread did not run in time. While the process used the processor, a call held the
                # interpreter's lock, which blocks the loop as well; the rest of the time, the process stood
                # still.
                blocked = min(overslept, time.process_time() - cpu_before)
                self._asked_at += overslept - blocked
            if self._answered:
                self._report_end()
                if not stopped and not self._ask(now - blocked):
                    return
            if not self._answered and now - self._asked_at > self.threshold and not self._is_reported:
                frame = sys._current_frames().get(self._loop_thread_id)
                if not _waits_for_events(frame):
                    self._report_blocked(now - self._asked_at, frame)
            if stopped:
                return

    def _ask(self, asked_at: float) -> bool:
        self._answered, self._asked_at = False, asked_at
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:
            self._on_closed()
            return False
        return True

    def _answer(self) -> None:
        self.answered_at = clock.monotonic()
        self._answered = True

    def _report_blocked(self, seconds: float, frame: FrameType | None) -> None:
        self._is_reported, self._culprit = True, self._find_culprit()
        stack = traceback.format_list(traceback.extract_stack(frame, _DEPTH)) if frame else []
        logger.warning(
            "the event loop has been blocked for %.1f s by %s; nothing else can run on it. It is at\n%s",
            seconds,
            _described(self._culprit),
            "".join(stack).rstrip(),
        )
        self._emit(LoopBlocked, seconds)

    def _report_end(self) -> None:
        if self._is_reported:
            seconds = self.answered_at - self._asked_at
            culprit = _described(self._culprit)
            logger.warning("the event loop was blocked for %.1f s by %s", seconds, culprit)
            self._emit(LoopUnblocked, seconds)
            self._is_reported, self._culprit = False, None

    def _emit(self, event: type[LoopBlocked | LoopUnblocked], seconds: float) -> None:
        job_id, worker = (None, None) if (run := self._culprit) is None else (run.key[0], run.worker)
        self._telemetry.emit(event, seconds=seconds, job_id=job_id, worker=worker)

    def _find_culprit(self) -> Run | None:
        task = asyncio.current_task(self._loop)
        job = None
        if sys.version_info >= (3, 12) and task is not None:
            # The job's context variable also tells a task that the job created.
            job = task.get_context().get(running)
        try:
            runs = list(self._runs())
        except RuntimeError:
            # The loop went on just now, and changed the set of runs.
            runs = []
        for run in runs:
            if task is not None and (run.task is task or run.job is job):
                return run
        return None


def _described(culprit: Run | None) -> str:
    if culprit is None:
        return "no job, but code of the application or of a library"
    return f"job {culprit.key[0]} ({culprit.worker})"


def _waits_for_events(frame: FrameType | None) -> bool:
    """Whether the loop is in its selector: nothing blocks it, a busy machine has not let it run yet."""
    return (
        frame is not None
        and frame.f_globals.get("__name__") == selectors.__name__
        and frame.f_back is not None
        and frame.f_back.f_globals.get("__name__") == base_events.__name__
    )
