"""`ProgressWriter`: stores the progress of the jobs of a node while they run."""

import asyncio
import contextlib
import logging
import math
import threading
from collections.abc import Sequence

from oban import clock, dialects, forks
from oban.config import Options
from oban.database.aio import Database
from oban.database.engines import has_level
from oban.progress import Progress
from oban.registry import registry
from oban.repository.progress import store_progress
from oban.runner.bisection import bisect_failures
from oban.runner.execution.run import Run
from oban.runner.services.base import Service
from oban.telemetry import ProgressStored

logger = logging.getLogger("oban.runner")

#: The most jobs whose progress one statement stores.
MAX_BATCH = 1000


class ProgressWriter(Service):
    """Stores the last progress of all runs that have reported any, in one statement per `progress_interval`.

    It sleeps until a run reports something. If the database is away, progress waits here, and newer progress
    takes its place. The outcome of a run has its last progress, so that nothing depends on this.
    """

    def __init__(self, database: Database, options: Options) -> None:
        super().__init__("progress", math.inf, database.telemetry)
        self.database = database
        self._pause = options.progress_interval
        self._event_loop = asyncio.get_running_loop()
        #: Guards `_noted`, which threads add to.
        self._lock = threading.Lock()
        #: The runs that have reported since the last statement.
        self._noted: list[Run] = []
        #: When the next statement is due, by the monotonic clock.
        self._due_at = -math.inf

    def note(self, run: Run) -> None:
        """Store the progress of a run soon. Call it in any thread; it does not wait."""
        report = run.report
        # A forked child has a copy of the lock, which another thread may have had.
        if report is None or report.is_noted or forks.is_child:
            return
        report.is_noted = True
        with self._lock:
            self._noted.append(run)
            is_first = len(self._noted) == 1
        if is_first:
            # The loop may have been closed just now.
            with contextlib.suppress(RuntimeError):
                self._event_loop.call_soon_threadsafe(self.wake)

    async def tick(self) -> float | None:
        if (pause := self._due_at - clock.monotonic()) > 0:
            return pause
        if not (runs := self._take()):
            return math.inf
        self._due_at = clock.monotonic() + self._pause
        try:
            while runs:
                await self._store(runs[:MAX_BATCH])
                del runs[:MAX_BATCH]
        finally:
            # After a failure, they are tried again, unless the jobs have ended by then.
            for run in runs:
                self.note(run)
        return self._pause

    def _take(self) -> list[Run]:
        with self._lock:
            noted, self._noted = self._noted, []
        for run in noted:
            if run.report is not None:
                # From here on, newer progress is noted again.
                run.report.is_noted = False
        running = [run for run in noted if not (run.has_ended or run.cancelled or run.is_isolated)]
        if self._are_writable_beside_sessions():
            return running
        return [run for run in running if not _has_session(run)]

    def _are_writable_beside_sessions(self) -> bool:
        """Whether the row of a job can be changed while the transaction of its session is open.

        The job could not store its outcome in a transaction that sees the row as it was before. On SQLite, it
        could not write anything once it has read.
        """
        dialect = self.database.dialect
        return not dialect.single_writer and has_level(self.database.engine.sync_engine, dialect.isolation)

    async def _store(self, runs: Sequence[Run]) -> None:
        reported = [(run, run.progress) for run in runs]
        unstored = [(run, progress) for run, progress in reported if progress is not None]
        try:
            await self._store_part(unstored)
        except Exception as error:
            if not self._is_about_a_row(error):
                raise
            for (run, _), refused in await bisect_failures(
                unstored, self._store_part, lambda error: not self._is_about_a_row(error)
            ):
                cause = dialects.driver_error(refused)
                logger.warning("the progress of job %s cannot be stored: %s", run.key[0], cause)

    def _is_about_a_row(self, error: Exception) -> bool:
        dialect = self.database.dialect
        return not (dialect.is_connection_error(error) or dialect.is_retryable(error))

    async def _store_part(self, part: Sequence[tuple[Run, Progress]]) -> None:
        texts = {run.key: progress.document() for run, progress in part}
        started_at = clock.monotonic()
        changed = await self.database.write(store_progress, texts)
        if changed:
            duration = clock.monotonic() - started_at
            self.telemetry.emit(ProgressStored, count=len(changed), duration=duration)
        for run, _ in part:
            if run.key[0] not in changed:
                # Its row is locked now, or the run has lost it, which another service will tell.
                self.note(run)


def _has_session(run: Run) -> bool:
    worker = registry.get(run.worker)
    return worker is not None and "session" in worker.takes
