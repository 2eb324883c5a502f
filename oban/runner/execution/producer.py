"""One queue on one node: fetches jobs when there is room, runs them, acknowledges them."""

import asyncio
import logging
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import Executor

from oban import clock, dialects
from oban.database.aio import Database
from oban.models import Job
from oban.repository import fetch, runs
from oban.repository.acknowledge import Ack
from oban.repository.cluster import Heartbeat
from oban.repository.queue_settings import QueueInfo, QueueState
from oban.repository.runs import RunKey
from oban.runner.execution.acknowledger import Acknowledger
from oban.runner.execution.executor import Run, execute
from oban.runner.execution.job_session_threads import JobSessions
from oban.runner.processes.pool import ProcessPool
from oban.runner.services.base import Service

logger = logging.getLogger("oban.producer")

#: Of a limit below this, half is too little for a turn: two of them cost more than they gain.
OVERLAPPED_LIMIT = 100


class Producer(Service):
    """Each turn is one transaction: acknowledge what has ended, fetch into the free places.

    Woken by insertions and by each job that ends, so that it idles without work and fills its
    transactions under load. While the queue holds more than fits, two turns of half the limit each are
    under way at once: the jobs of one run while the database is busy with the other. `vouched` says
    whether the node counts as alive: what is fetched while it does not would be rescued. What a fetch
    claimed without the answer arriving, or being readable, is looked for after a failure, and every
    `check_interval` seconds.
    """

    def __init__(
        self,
        database: Database,
        *,
        name: str,
        queue: str,
        wanted: QueueState,
        node: str,
        interval: float,
        check_interval: float,
        threads: Executor,
        node_alive: Callable[[], bool],
        processes: ProcessPool,
        sessions: JobSessions,
    ) -> None:
        super().__init__(f"producer-{queue}", interval)
        self.database = database
        self.instance = name
        self.queue = queue
        self.limit, self.paused = wanted
        self.node = node
        #: Unique per start, so that no earlier life of this node can be taken for this one.
        self.uuid = uuid.uuid4()
        self.owner = str(self.uuid)
        self.started_at = clock.now()
        self.fetching = True
        #: Whether the queue was stopped: it is gone once its last jobs have ended.
        self.stopped = False
        #: Whether jobs that a fetch still brings are put back instead of started.
        self.closed = False
        self.runs: set[Run] = set()
        self.acknowledger = Acknowledger(database)
        self.check_interval = check_interval
        self._check_at = clock.monotonic() + check_interval
        #: Whether the last turn may have claimed jobs that were not given to it; whether it failed
        #: because of what it read.
        self._may_have_strays = False
        self._unreadable = False
        self._threads = threads
        self._node_alive = node_alive
        self._processes = processes
        self._sessions = sessions
        self._ticking = asyncio.Lock()
        #: Turns that are under way beside the ticks, and why one of them failed.
        self._turns: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        #: Places for which jobs are being fetched.
        self._claiming = 0
        #: Whether the last fetch brought all that was asked for, so that there is more.
        self._has_backlog = False

    def heartbeat(self) -> Heartbeat:
        """What to say of this producer now. Called from another thread."""
        now = self.check()
        meta = {"limit": now.limit, "local_limit": now.limit, "paused": now.paused, "running": now.running}
        return Heartbeat(self.uuid, self.instance, self.node, self.queue, meta)

    def check(self) -> QueueInfo:
        """How the queue is doing now. Called from other threads, too."""
        return QueueInfo(
            queue=self.queue,
            node=self.node,
            limit=self.limit,
            paused=self.paused or self.stopped,
            running=tuple(sorted(run.held[0] for run in self.runs.copy())),
            started_at=self.started_at,
            updated_at=None,
            uuid=self.owner,
        )

    async def adjust(self, wanted: QueueState | None) -> bool:
        """Go on with another limit, paused or not, or stop (None): what runs goes on. Whether that is new.

        Returns once nothing is fetched any more that could not be fetched now.
        """
        before = (self.limit, self.paused, self.stopped)
        self.stopped = wanted is None
        if wanted is not None:
            self.limit, self.paused = wanted
        if before == (self.limit, self.paused, self.stopped):
            return False
        self.wake()
        await self.settled()
        return True

    @property
    def idle(self) -> bool:
        """Whether nothing runs, is being fetched or may have been, and every outcome is stored."""
        busy = self.runs or len(self.acknowledger) or self._ticking.locked() or self._turns
        return not (busy or self._may_have_strays)

    async def tick(self) -> float | None:
        async with self._ticking:
            await self.acknowledger.try_refused()
            if self._may_have_strays or clock.monotonic() >= self._check_at:
                await self._join_turns()
                await self._recover()
            if self._has_backlog and self._may_overlap:
                await self._overlap()
                if self._turns:
                    return None
            await self._join_turns()
            await self._serialize_writers()
            return 0 if self._may_have_strays else self.acknowledger.due

    @property
    def _may_overlap(self) -> bool:
        return self.limit >= OVERLAPPED_LIMIT and not self.database.dialect.single_writer

    async def _overlap(self) -> None:
        """Begin as many turns as are worth it, two at most; the end of each wakes the producer."""
        share = self._share
        while len(self._turns) < 2:
            demand = self._demand()
            # The second one waits until it does half as much as it could.
            enough = demand > 0 or len(self.acknowledger) if not self._turns else demand >= share // 2
            if not enough:
                return
            turn = asyncio.create_task(self._serialize_writers(share))
            self._turns.add(turn)
            turn.add_done_callback(self._on_turn_done)
            # It takes its outcomes and places now.
            await asyncio.sleep(0)

    @property
    def _share(self) -> int:
        return (self.limit + 1) // 2

    def _on_turn_done(self, turn: asyncio.Task[None]) -> None:
        self._turns.discard(turn)
        if not turn.cancelled() and (error := turn.exception()) is not None:
            self._failure = error
        self.wake()

    async def _join_turns(self) -> None:
        """Wait for the turns that are under way; raises what one of them has raised."""
        if self._turns:
            try:
                await asyncio.wait(self._turns)
            except asyncio.CancelledError:
                for turn in self._turns:
                    turn.cancel()
                await asyncio.wait(self._turns)
                raise
        if (failure := self._failure) is not None:
            self._failure = None
            raise failure

    async def _serialize_writers(self, most: int = sys.maxsize) -> None:
        """Store outcomes and fetch jobs, no more than `most` of each."""
        demand = min(self._demand(), most)
        acks = self.acknowledger.take(most)
        if not acks and demand <= 0:
            return
        self._claiming += demand
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
            elif self._unreadable:
                # No row was found that explains it.
                raise
            else:
                self._unreadable = True
        else:
            # What another turn could not read, or may have claimed, is looked for first.
            if not self._may_have_strays:
                self._unreadable = False
                self._has_backlog = 0 < demand == len(jobs)
            for job in jobs:
                self._start(job)
        finally:
            self._claiming -= demand

    def _demand(self) -> int:
        if not self.fetching or self.paused or self.stopped:
            return 0
        if self.acknowledger.is_full or not self._node_alive():
            return 0
        return max(0, self.limit - len(self.runs) - self._claiming)

    def _start(self, job: Job, *, is_stray: bool = False) -> None:
        run = Run(job, self.owner)
        run.releasing = not self.fetching
        if self.closed or (is_stray and not self.fetching):
            self.abandon(run)
        else:
            self.runs.add(run)
            run.task = asyncio.create_task(self._attempt(run))

    async def _recover(self) -> None:
        """Take up what was claimed for this producer and did not arrive, one job at a time."""
        if self._unreadable and not await self._strays() and (demand := self._demand()) > 0:
            await self.database.write(fetch.claim, self.queue, demand, self.node, self.owner)
        for held in await self._strays():
            self._unreadable = False
            try:
                job = await self.database.read(runs.load_run, held)
            except Exception as error:
                if self.database.dialect.is_connection_error(error):
                    raise
                cause = dialects.driver_error(error)
                reason = f"the row cannot be read: {type(cause).__name__}: {cause}"
                logger.error("job %s is discarded, %s", held[0], reason)
                self.acknowledger.hold(Ack(*held, "discarded", error=reason))
            else:
                if job is not None:
                    self._start(job, is_stray=True)
        self._may_have_strays = False
        self._check_at = clock.monotonic() + self.check_interval

    async def _strays(self) -> list[RunKey]:
        known = {run.held for run in self.runs} | {ack[:3] for ack in self.acknowledger}
        return await self.database.read(runs.unknown_runs, self.owner, known)

    def retire(self) -> None:
        """Fetch no more, as the node stops. A job that is interrupted from now on goes back."""
        self.fetching = False
        for run in self.runs:
            run.releasing = True

    async def settled(self) -> None:
        """Wait until what is being fetched now has been started."""
        async with self._ticking:
            under_way = set(self._turns)
        if under_way:
            await asyncio.wait(under_way)

    async def finish(self) -> None:
        """Store every outcome, and put back what was claimed and never arrived, however long it takes."""
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

    def abandon(self, run: Run) -> None:
        """Put back a job that has not begun, or does not end, whatever it still does."""
        self.runs.discard(run)
        self.acknowledger.hold(Ack(*run.held, "released"))

    async def _attempt(self, run: Run) -> None:
        ack = await execute(run, self._threads, self._processes, self._sessions)
        # Not if the job was put back meanwhile, because it did not let itself be interrupted.
        if run in self.runs:
            self.runs.discard(run)
            if ack is not None:
                self.acknowledger.hold(ack)
            run.end()
            # What is under way wakes when it ends; before, only what is worth a turn beside it.
            if not self._turns or len(self.acknowledger) >= self._share // 2:
                self.wake()
