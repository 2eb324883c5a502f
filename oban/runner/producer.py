"""One queue on one node: fetches jobs when there is room, runs them, acknowledges them."""

import asyncio
import uuid
from concurrent.futures import Executor

from oban.repository import execution
from oban.repository.transaction import Database
from oban.runner.acknowledger import Acknowledger
from oban.runner.executor import Run, execute
from oban.runner.service import Service


class Producer(Service):
    """Each tick is one transaction: acknowledge what has ended, fetch into the free places.

    Woken by insertions and by each job that ends, so that it idles without work and fills its
    transactions under load.
    """

    def __init__(
        self,
        database: Database,
        *,
        queue: str,
        limit: int,
        node: str,
        interval: float,
        threads: Executor,
    ) -> None:
        super().__init__(f"producer-{queue}", interval)
        self.database = database
        self.queue = queue
        self.limit = limit
        self.node = node
        #: Unique per start, so that no earlier life of this node can be taken for this one.
        self.owner = str(uuid.uuid4())
        self.fetching = True
        #: Whether jobs that a fetch still brings are put back instead of started.
        self.closed = False
        self.runs: set[Run] = set()
        self.acknowledger = Acknowledger(database)
        self._threads = threads
        self._turn = asyncio.Lock()

    async def tick(self) -> float | None:
        async with self._turn:
            await self.acknowledger.try_refused()
            demand = self.limit - len(self.runs) if self.fetching else 0
            acks = self.acknowledger.take()
            if not acks and demand <= 0:
                return None
            try:
                jobs = await self.database.write(
                    execution.turn, acks, self.queue, demand, self.node, self.owner
                )
            except Exception as error:
                if acks and not self.database.dialect.is_connection_error(error):
                    await self.acknowledger.isolate(acks)
                    return 0
                self.acknowledger.put_back(acks)
                raise
            except BaseException:
                self.acknowledger.put_back(acks)
                raise
            for job in jobs:
                run = Run(job, self.owner)
                if self.closed:
                    self.abandon(run)
                else:
                    self.runs.add(run)
                    run.task = asyncio.create_task(self._attempt(run))
            return None

    async def settled(self) -> None:
        """Wait until what is being fetched now has been started."""
        async with self._turn:
            pass

    def abandon(self, run: Run) -> None:
        """Put back a job that has not begun, or does not end, whatever it still does."""
        self.runs.discard(run)
        self.acknowledger.hold(execution.Ack(*run.held, "released"))

    async def _attempt(self, run: Run) -> None:
        ack = await execute(run, self._threads)
        # Not if the job was put back meanwhile, because it did not let itself be interrupted.
        if run in self.runs:
            self.runs.discard(run)
            self.acknowledger.hold(ack)
            run.end()
            self.wake()
