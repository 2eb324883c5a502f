"""`Producer`: fetches the jobs of one queue, runs them, and stores how they ended. Its loop:

1. The producer wakes when jobs are inserted, when a job has ended, and when the stager's poll finds jobs.
2. `tick` takes a turn: one transaction stores the outcomes that wait, and fetches jobs for the free slots.
   While the queue holds more jobs than fit, two turns of half the limit overlap, so that the jobs of one run
   while the database works on the other.
3. `_start` starts a task for each job. If the claim was sent long ago, `Claims` asks whether the job is still
   this producer's. When the job has ended, its outcome waits in the acknowledger, and the producer wakes.
4. A job with a session stores its outcome itself, and leaves only a free slot. While the queue holds more
   jobs than fit, the next fetch is delayed by up to the time that a turn takes, so that it fills several
   slots.

A turn that fails may have claimed jobs all the same, if the connection broke before the answer arrived or a
row could not be read. `_recover_strays` finds these jobs by their owner, the uuid of the producer. A broken
connection's statement can also claim jobs later: `CancellationChecker` looks for those.
"""

import asyncio
import logging
import math
import sys
import uuid
from collections.abc import Callable, Iterable

from oban import clock, dialects
from oban.config import Options
from oban.database.aio import Database
from oban.models import Job
from oban.repository import fetch, runs
from oban.repository.cluster import Heartbeat, QueueInfo
from oban.repository.queue_settings import QueueState
from oban.repository.runs import RunKey
from oban.runner.execution import attempt_events, queue_events
from oban.runner.execution.acknowledger import Acknowledger
from oban.runner.execution.claims import Claims
from oban.runner.execution.executor import Executor
from oban.runner.execution.fetch_delay import FetchDelay
from oban.runner.execution.report import Reporting
from oban.runner.execution.run import Run
from oban.runner.services.base import Service

logger = logging.getLogger("oban.producer")

#: Below this limit, two overlapping half-size fetches cost more than they save.
OVERLAPPED_LIMIT = 100


class Producer(Service):
    """Runs the jobs of one queue, which begins in `state`.

    It fetches only while `node_alive()`, which tells whether the heartbeats of this node arrive. Without
    them, other nodes would rescue the jobs.
    """

    def __init__(
        self,
        database: Database,
        options: Options,
        queue: str,
        state: QueueState,
        executor: Executor,
        node_alive: Callable[[], bool],
        on_progress: Callable[[Run], None] = lambda run: None,
    ) -> None:
        super().__init__(f"producer-{queue}", math.inf, database.telemetry)
        self.database = database
        self.queue = queue
        self.node = options.node
        self.limit, self.paused = state
        #: New for each producer, so that it does not take the jobs of an earlier one for its own.
        self.uuid = uuid.uuid4()
        self.owner = str(self.uuid)
        self.started_at = clock.now()
        #: False once the node begins to stop.
        self.fetching = True
        #: Whether the queue was stopped. The producer is removed when its last job has ended.
        self.stopped = False
        #: Whether jobs that a fetch still returns are put back instead of started.
        self.closed = False
        self.runs: set[Run] = set()
        self.acknowledger = Acknowledger(database, queue, database.telemetry)
        self._claims = Claims(database, queue, options.lease, self.runs)
        self._confirm = self._claims.confirm
        self._options = options
        self._executor = executor
        self._node_alive = node_alive
        self._reporting = Reporting(options.kept_lines, on_progress, database.telemetry)
        self._ticking = asyncio.Lock()
        #: The overlapping turns, and the error of one that failed.
        self._turns: set[asyncio.Task[None]] = set()
        self._turn_error: BaseException | None = None
        #: Slots that the turns under way can fill.
        self._reserved = 0
        #: Whether the last fetch returned as many jobs as it could, so that there may be more.
        self._has_backlog = False
        self._fetch_delay = FetchDelay(self.wake)
        self._may_have_strays = False
        #: Whether a fetch failed, but not for the connection, so that one of its rows may be unreadable.
        self._fetch_failed = False

    async def tick(self) -> float | None:
        async with self._ticking:
            await self.acknowledger.retry_refused()
            if self._may_have_strays:
                await self._join_turns()
                await self._recover_strays()
            if self._has_backlog:
                await self._overlap_turns()
                if self._turns:
                    # Each of them wakes the producer when it ends.
                    return None
            await self._join_turns()
            await self._turn()
            return 0 if self._may_have_strays else self.acknowledger.due_in

    async def _turn(self, limit: int = sys.maxsize) -> None:
        """Store up to `limit` outcomes and fetch up to `limit` jobs in one transaction; start the jobs."""
        demand = min(self._demand(), limit)
        acks = self.acknowledger.take(limit)
        if not acks and demand <= 0:
            return
        self._fetch_delay.cancel()
        self._reserved += demand
        sure_until = self._claims.sure_until()
        started_at = clock.monotonic()
        try:
            jobs = await self.database.write(
                fetch.acknowledge_and_fetch, acks, self.queue, demand, self.node, self.owner
            )
        except BaseException as error:
            self._may_have_strays, self._has_backlog = True, False
            if not isinstance(error, Exception) or self.database.dialect.is_connection_error(error):
                self.acknowledger.put_back(acks)
                raise
            if acks:
                await self.acknowledger.isolate(acks)
            elif self._fetch_failed:
                # It failed before, and no row explained it.
                raise
            else:
                self._fetch_failed = True
        else:
            # After a failure of the other turn, the strays have to be recovered first.
            if not self._may_have_strays:
                self._fetch_failed = False
                self._has_backlog = 0 < demand == len(jobs)
            for job in jobs:
                self._start(job, sure_until)
            queue_events.turn_ended(self.telemetry, self.queue, demand, len(jobs), len(acks), started_at)
        finally:
            self._reserved -= demand
            self._fetch_delay.turn_duration = clock.monotonic() - started_at

    def _demand(self) -> int:
        """How many jobs to fetch: the free slots, or none for now."""
        may_fetch = self.fetching and not (self.paused or self.stopped)
        if not may_fetch or self.acknowledger.is_full or not self._node_alive():
            return 0
        # If an outcome waits, there is a turn anyway.
        if self._fetch_delay.is_running and self._may_delay() and not len(self.acknowledger):
            return 0
        return self._free()

    def _free(self) -> int:
        return max(0, self.limit - len(self.runs) - self._reserved)

    def _may_delay(self) -> bool:
        """Whether slots can stay free for a moment: jobs wait for them, and more than half are taken."""
        return self._has_backlog and 2 * self._free() < self.limit

    def _start(self, job: Job, sure_until: float, *, is_stray: bool = False) -> None:
        run = Run(job, self.owner, self.node, sure_until, self._confirm, self._reporting)
        run.releasing = not self.fetching
        if self.closed or (is_stray and not self.fetching):
            self.abandon(run)
        else:
            self.runs.add(run)
            run.task = asyncio.create_task(self._execute(run))

    async def _execute(self, run: Run) -> None:
        if clock.boottime() >= run.sure_until and not await self._confirm(run):
            self.wake()
            return
        ack = await self._executor.execute(run)
        # An abandoned job has been put back already: its outcome does not count.
        if run in self.runs:
            self.runs.discard(run)
            if ack is not None:
                self.acknowledger.add(ack)
            run.end()
            if ack is None and self._may_delay():
                self._fetch_delay.start()
                return
            # A turn under way wakes the producer when it ends. Until then, only enough for a second one does.
            if not self._turns or len(self.acknowledger) >= (self.limit + 1) // 4:
                self.wake()

    # -- overlapping turns -----------------------------------------------------------------------

    async def _overlap_turns(self) -> None:
        """Start turns of half the limit until two are under way, if that is worthwhile."""
        if self.limit < OVERLAPPED_LIMIT or self.database.dialect.single_writer:
            return
        while len(self._turns) < 2:
            demand = self._demand()
            # The second one waits until it can fetch half of what it is allowed to.
            enough = demand >= (self.limit + 1) // 4 if self._turns else demand > 0 or len(self.acknowledger)
            if not enough:
                return
            turn = asyncio.create_task(self._turn((self.limit + 1) // 2))
            self._turns.add(turn)
            turn.add_done_callback(self._on_turn_done)
            # Let it take its outcomes and slots before the next one counts what is left.
            await asyncio.sleep(0)

    def _on_turn_done(self, turn: asyncio.Task[None]) -> None:
        self._turns.discard(turn)
        if not turn.cancelled() and (error := turn.exception()) is not None:
            self._turn_error = error
        self.wake()

    async def _join_turns(self) -> None:
        """Wait until no overlapping turn is under way; raises what one of them has raised."""
        if self._turns:
            # If this is cancelled, gather() cancels the turns and waits until they have ended.
            await asyncio.gather(*self._turns, return_exceptions=True)
        if (error := self._turn_error) is not None:
            self._turn_error = None
            raise error

    # -- strays ----------------------------------------------------------------------------------

    async def _recover_strays(self) -> None:
        """Start the jobs that were claimed for this producer and did not reach it."""
        strays = await self._find_strays()
        if self._fetch_failed and not strays and (demand := self._demand()) > 0:
            # Claim jobs without reading them. Below, they are read one at a time, to find the unreadable one.
            await self.database.write(fetch.claim, self.queue, demand, self.node, self.owner)
            strays = await self._find_strays()
        for key in strays:
            self._fetch_failed = False
            sure_until = self._claims.sure_until()
            try:
                job = await self.database.read(runs.load_run, key)
            except Exception as error:
                if self.database.dialect.is_connection_error(error):
                    raise
                self.acknowledger.add(queue_events.unreadable(self.telemetry, self.queue, key, error))
            else:
                if job is not None:
                    self._start(job, sure_until, is_stray=True)
        self._may_have_strays = False

    async def _find_strays(self) -> list[RunKey]:
        return await self.database.read(runs.unknown_runs, self.owner, self._known_runs())

    def _known_runs(self) -> set[RunKey]:
        return {run.key for run in self.runs} | {ack[:3] for ack in self.acknowledger}

    def check_executing(self, executing: Iterable[RunKey]) -> None:
        """Look for strays if this producer does not know one of the runs that it owns in the database."""
        if not self._known_runs().issuperset(executing):
            self._may_have_strays = True
            self.wake()

    # -- for the node ----------------------------------------------------------------------------

    def check(self) -> QueueInfo:
        """The queue on this node as it is now. Can be called from any thread."""
        return QueueInfo(
            queue=self.queue,
            node=self.node,
            limit=self.limit,
            paused=self.paused or self.stopped,
            running=tuple(sorted(run.key[0] for run in self.runs.copy())),
            started_at=self.started_at,
            updated_at=None,
            uuid=self.owner,
        )

    def heartbeat(self) -> Heartbeat:
        """The row that the next heartbeat stores. Can be called from any thread."""
        now = self.check()
        meta = {"limit": now.limit, "local_limit": now.limit, "paused": now.paused, "running": now.running}
        return Heartbeat(self.uuid, self._options.name, self.node, self.queue, meta)

    @property
    def idle(self) -> bool:
        """Whether nothing runs or is being fetched, and every outcome is stored."""
        busy = self.runs or len(self.acknowledger) or self._ticking.locked() or self._turns
        return not (busy or self._may_have_strays)

    async def adjust(self, state: QueueState | None) -> bool:
        """Scale, pause, resume, or stop (None) the queue. Running jobs continue.

        Returns whether that was a change, as soon as all jobs fetched before it have been started.
        """
        before = (self.limit, self.paused, self.stopped)
        self.stopped = state is None
        if state is not None:
            self.limit, self.paused = state
        if before == (self.limit, self.paused, self.stopped):
            return False
        self.wake()
        await self.settled()
        return True

    async def settled(self) -> None:
        """Wait until the jobs that are being fetched now have been started."""
        async with self._ticking:
            turns = set(self._turns)
        if turns:
            await asyncio.wait(turns)

    def retire(self) -> None:
        """Fetch no more, because the node stops. From now on, a job that is interrupted is put back."""
        self.fetching = False
        for run in self.runs:
            run.releasing = True

    def abandon(self, run: Run) -> None:
        """Put back a job that was not started, or that continues after it was interrupted."""
        self.runs.discard(run)
        ack = run.ack("released")
        self.acknowledger.add(ack)
        attempt_events.ended(run, ack)

    async def finish(self) -> None:
        """Put back all jobs, strays included, and store all outcomes, however long that takes."""
        self.retire()
        self.closed = self._may_have_strays = True
        self._has_backlog = False
        for run in list(self.runs):
            run.release()
            self.abandon(run)
        while self._may_have_strays or len(self.acknowledger):
            try:
                pause = await self.tick()
            except Exception as error:
                logger.warning("storing the last outcomes failed: %s", dialects.driver_error(error))
                pause = 0.2
            await asyncio.sleep(pause or 0)
