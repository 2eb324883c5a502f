"""Makes scheduled and retryable jobs available when they become due."""

from oban.config import Options
from oban.database.aio import Database
from oban.repository import stage
from oban.runner.queues import Queues
from oban.runner.services.base import Service

#: Seconds until the next tick while another node stages the jobs that are due.
_LOCKED_PAUSE = 0.05


class Stager(Service):
    """Sleeps until the next job is due by the database's clock, but not longer than `stage_interval`.

    All nodes do this; each skips the jobs that another one has locked. When jobs have become available, it
    wakes the queues of its node, which then fetch them even if no notification arrives.
    """

    def __init__(self, database: Database, options: Options, queues: Queues) -> None:
        super().__init__("stager", options.stage_interval)
        self.database = database
        self._queues = queues

    async def tick(self) -> float | None:
        due_in = await self.database.read(stage.seconds_until_due)
        if due_in is None or due_in > 0:
            return None if due_in is None else min(due_in, self.interval)
        if await self.database.write(stage.stage):
            self._queues.wake()
            return 0
        return min(_LOCKED_PAUSE, self.interval)
