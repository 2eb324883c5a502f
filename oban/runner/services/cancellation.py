"""Tells running jobs that they were cancelled, or have lost their row in another way."""

from collections.abc import Callable, Iterable

from oban.database.aio import Database
from oban.repository import acknowledge, runs
from oban.repository.acknowledge import Ack
from oban.runner.execution.executor import Run
from oban.runner.services.base import Service

#: Most jobs that wait here to be cancelled.
MAX_ASKED = 10_000


class CancellationChecker(Service):
    """Asks the database which runs are still current: when told to look, and every `interval`.

    A signal of ours is never believed by itself: it may be about an earlier run of a job that was
    retried. Other implementations leave the row of a running job to the node that runs it: here it is
    cancelled for them.
    """

    def __init__(
        self,
        database: Database,
        interval: float,
        runs: Callable[[], Iterable[Run]],
        owners: Callable[[], Iterable[str]],
    ) -> None:
        super().__init__("watcher", interval)
        self.database = database
        self._runs = runs
        self._owners = owners
        #: Jobs that others have asked to cancel.
        self._asked: set[int] = set()

    async def tick(self) -> float | None:
        if asked := list(self._asked):
            # Asked of the database, as what a fetch has just claimed has no run here yet.
            owners = set(self._owners())
            executing = await self.database.read(runs.current_runs, asked)
            if acks := [Ack(*run, "cancelled") for run in executing if run[2] in owners]:
                await self.database.write(acknowledge.acknowledge, acks)
            self._asked.difference_update(asked)
        running = {run.held: run for run in self._runs() if not run.cancelled}
        if running:
            for held in await self.database.read(runs.lost_runs, list(running)):
                running[held].cancelled = True
        return None

    def wake_for(self, job_id: int, *, done: bool) -> None:
        """Look now, if the job may run here; unless that is `done`, cancel it first."""
        if not done and len(self._asked) < MAX_ASKED and 0 < job_id < 2**63:
            self._asked.add(job_id)
            self.wake()
        elif any(run.held[0] == job_id for run in self._runs()):
            self.wake()
