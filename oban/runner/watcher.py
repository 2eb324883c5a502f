"""Tells running jobs that they were cancelled, or have lost their row in another way."""

from collections.abc import Callable, Iterable

from oban.repository import ownership
from oban.repository.transaction import Database
from oban.runner.executor import Run
from oban.runner.service import Service


class Watcher(Service):
    """Asks the database which runs are still current: when told to look, and every `interval`.

    A signal is never believed by itself: it may be about an earlier run of a job that was retried.
    """

    def __init__(self, database: Database, interval: float, runs: Callable[[], Iterable[Run]]) -> None:
        super().__init__("watcher", interval)
        self.database = database
        self._runs = runs

    async def tick(self) -> float | None:
        runs = {run.held: run for run in self._runs() if not run.cancelled}
        if runs:
            for held in await self.database.read(ownership.lost, list(runs)):
                runs[held].cancelled = True
        return None

    def wake_for(self, job_id: int) -> None:
        """Look now, if the job runs here."""
        if any(run.held[0] == job_id for run in self._runs()):
            self.wake()
