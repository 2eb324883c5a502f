"""Decides whether a claimed job is still this node's own when it starts.

A node that was frozen for longer than its lease, by SIGSTOP, a paused machine or a suspend, has sent no
heartbeats meanwhile. Other nodes have rescued its jobs, and may have completed them. If the claim of a job
was sent three quarters of a lease ago or earlier, the database is therefore asked before the job starts.
"""

import asyncio
import logging

from oban import clock, dialects
from oban.database.aio import Database
from oban.repository import runs as repository
from oban.runner.execution.run import Run

logger = logging.getLogger("oban.producer")

#: For how much of the lease a claim is sure to be this node's own.
SURE_SHARE = 0.75
#: Seconds until the database is asked again, if it could not answer.
PAUSE = 0.5


class Claims:
    """The claims of one producer, whose runs are in `runs`. A run that loses its job is removed from it."""

    def __init__(self, database: Database, queue: str, lease: float, runs: set[Run]) -> None:
        self._database = database
        self._queue = queue
        self._sure_seconds = lease * SURE_SHARE
        self._runs = runs
        self._asking = asyncio.Lock()

    def sure_until(self) -> float:
        """Until when, by `clock.boottime`, no node rescues what the database reports as ours from now on."""
        return clock.boottime() + self._sure_seconds

    async def confirm(self, run: Run) -> bool:
        """Whether a run whose worker has not begun still has its job.

        One statement asks for all runs that are unsure. While the database cannot answer, they wait.
        """
        while run in self._runs and clock.boottime() >= run.sure_until:
            async with self._asking:
                now = clock.boottime()
                # Another run may have asked for this one already.
                if now >= run.sure_until:
                    waiting = (each for each in self._runs if each.started_at is None or each is run)
                    await self._ask([each for each in waiting if now >= each.sure_until])
        return run in self._runs

    async def _ask(self, unsure: list[Run]) -> None:
        sure_until = self.sure_until()
        try:
            lost = await self._database.read(repository.lost_runs, [run.key for run in unsure])
        # Whatever it is, the jobs cannot start.
        except Exception as error:
            text = "asking whether jobs of queue %s still belong to this node failed: %s"
            logger.warning(text, self._queue, dialects.driver_error(error))
            await asyncio.sleep(PAUSE)
            return
        for run in unsure:
            run.sure_until = sure_until
            if run.key in lost:
                self._runs.discard(run)
                run.end()
        if lost:
            ids = ", ".join(str(key[0]) for key in sorted(lost))
            text = "did not start jobs of queue %s that this node has lost since it claimed them: %s"
            logger.warning(text, self._queue, ids)
