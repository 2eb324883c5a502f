"""Compares the runs of a node with the database: jobs that were cancelled, and jobs that run nowhere."""

from oban import clock
from oban.config import Options
from oban.database.aio import Database
from oban.repository import acknowledge, runs
from oban.repository.acknowledge import Ack
from oban.runner.queues import Queues
from oban.runner.services.base import Service
from oban.telemetry import JobsCancelled

#: How many requests to cancel a job can wait here.
MAX_REQUESTS = 10_000


class CancellationChecker(Service):
    """Asks the database which runs of this node are still current, every `watch_interval` and on a signal.

    A signal alone does not cancel a run: it may be about an earlier run of a job that was retried since.
    Other implementations send the signal and leave it to the node that runs the job to cancel its row; here,
    `tick` does that for them.

    Every `heartbeat_interval` it also asks which jobs this node executes by the database. The server may have
    executed a fetch whose connection broke, after the producer looked for the jobs of that fetch.
    """

    def __init__(self, database: Database, options: Options, queues: Queues) -> None:
        super().__init__("cancellation", options.watch_interval, database.telemetry)
        self.database = database
        self._queues = queues
        self._strays_interval = options.heartbeat_interval
        #: When to look for jobs that no producer knows, by the monotonic clock.
        self._strays_at = clock.monotonic() + self._strays_interval
        #: The ids of jobs that other implementations have asked this node to cancel.
        self._requested: set[int] = set()

    async def tick(self) -> float | None:
        if requested := list(self._requested):
            # The database knows all runs of this node; a job that was just claimed has no `Run` here yet.
            owners = {producer.owner for producer in self._queues.producers.values()}
            executing = await self.database.read(runs.current_runs, requested)
            if acks := [Ack(*run, "cancelled") for run in executing if run[2] in owners]:
                cancelled = await self.database.write(acknowledge.acknowledge, acks)
                if cancelled:
                    self.telemetry.emit(JobsCancelled, count=len(cancelled), in_transaction=False)
            self._requested.difference_update(requested)
        running = {run.key: run for run in self._queues.runs() if not run.cancelled}
        if running:
            for key in await self.database.read(runs.lost_runs, list(running)):
                running[key].cancelled = True
        if clock.monotonic() >= self._strays_at:
            await self._find_strays()
            self._strays_at = clock.monotonic() + self._strays_interval
        return max(0.0, min(self.interval, self._strays_at - clock.monotonic()))

    async def _find_strays(self) -> None:
        producers = list(self._queues.producers.values())
        executing = await self.database.read(runs.runs_of, [producer.owner for producer in producers])
        for producer in producers:
            producer.check_executing(run for run in executing if run[2] == producer.owner)

    def wake_for(self, job_id: int, *, done: bool) -> None:
        """Tick now if the job may run here. Unless its row is cancelled already (`done`), cancel it first."""
        if not done and len(self._requested) < MAX_REQUESTS and 0 < job_id < 2**63:
            self._requested.add(job_id)
            self.wake()
        elif any(run.key[0] == job_id for run in self._queues.runs()):
            self.wake()
