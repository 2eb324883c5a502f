"""Tells running jobs that they were cancelled, or have lost their row in another way."""

from collections.abc import Callable, Iterable

from oban.repository import execution, ownership
from oban.repository.execution import Ack, Held
from oban.repository.transaction import Database
from oban.runner.executor import Run
from oban.runner.service import Service


class Watcher(Service):
    """Asks the database which runs are still current: when told to look, and every `interval`.

    A signal of ours is never believed by itself: it may be about an earlier run of a job that was
    retried. Other implementations leave the row of a running job to the node that runs it: here it is
    cancelled for them.
    """

    def __init__(self, database: Database, interval: float, runs: Callable[[], Iterable[Run]]) -> None:
        super().__init__("watcher", interval)
        self.database = database
        self._runs = runs
        #: Runs that others have asked to cancel.
        self._asked: set[Held] = set()

    async def tick(self) -> float | None:
        if asked := sorted(self._asked):
            await self.database.write(execution.acknowledge, [Ack(*held, "cancelled") for held in asked])
            self._asked.difference_update(asked)
        runs = {run.held: run for run in self._runs() if not run.cancelled}
        if runs:
            for held in await self.database.read(ownership.lost, list(runs)):
                runs[held].cancelled = True
        return None

    def wake_for(self, job_id: int, *, done: bool) -> None:
        """Look now, if the job runs here; unless it is `done`, cancel it first."""
        if concerned := {run.held for run in self._runs() if run.held[0] == job_id}:
            if not done:
                self._asked |= concerned
            self.wake()
