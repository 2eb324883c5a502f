"""Owns the services of one node: in which order they start and stop, and the deadlines."""

import asyncio
import contextvars
import logging
import threading
import uuid
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from oban import clock, dialects, notifier
from oban.config import Options
from oban.database.aio import Database
from oban.repository.cluster import Heartbeat
from oban.repository.queue_settings import QueueInfo, QueueState
from oban.runner import deadlines
from oban.runner.execution.executor import Run
from oban.runner.execution.job_session_threads import JobSessions
from oban.runner.execution.producer import Producer
from oban.runner.heartbeat_thread import HeartbeatThread
from oban.runner.loop_watchdog import LoopWatchdog
from oban.runner.processes import child
from oban.runner.processes.pool import ProcessPool
from oban.runner.services.base import Service
from oban.runner.services.cancellation import CancellationChecker
from oban.runner.services.controller import Controller
from oban.runner.services.leader import Leader
from oban.runner.services.lifeline import Lifeline
from oban.runner.services.pruner import Pruner
from oban.runner.services.stager import Stager

logger = logging.getLogger("oban.runner")

#: How long everything may take that comes after the grace period, in seconds: the end of cancelled jobs,
#: the last outcomes, the goodbyes. Each step gets a part of what is left.
LAST_MOMENTS = 5.0
#: Connections of a runner: two for each queue and these for the other services, up to a limit; beside
#: them one to listen and one for heartbeats.
SERVICE_CONNECTIONS = 2
MAX_CONNECTIONS = 10
#: No more threads are started than jobs run at once: that the limits see to, which may change.
MAX_THREADS = 1_000_000


class Runner:
    """One node at work. `start` it once, `stop` it once."""

    def __init__(self, database: Database, options: Options) -> None:
        connections = min(2 * len(options.queues) + SERVICE_CONNECTIONS, MAX_CONNECTIONS)
        self.database = database.with_own_pool(connections, options.statement_timeout)
        self.options = options
        self._threads = ThreadPoolExecutor(max_workers=MAX_THREADS, thread_name_prefix="oban")
        self._processes = ProcessPool()
        self._sessions = JobSessions(database, options.statement_timeout)
        self.notifier = notifier.make(self.database, options.notifier, options.listen_url)
        self.leader = Leader(
            self.database,
            name=options.name,
            identity=f"{options.node}/{uuid.uuid4()}",
            lease=options.lease,
            interval=options.election_interval,
        )
        self.pruner = Pruner(
            self.database, self.leader, retention=options.retention, interval=options.prune_interval
        )
        self.stager = Stager(self.database, options.stage_interval, self._wake_producers)
        self.cancellation = CancellationChecker(
            self.database, options.watch_interval, self.runs, self._owners
        )
        self.watchdog = LoopWatchdog(self.runs, self._on_closed)
        self.heartbeat_thread = HeartbeatThread(
            database, options, self._heartbeats, lambda: self.watchdog.last_seen
        )
        self.lifeline = Lifeline(
            self.database,
            self.leader,
            lease=options.lease,
            max_age=options.rescue_after,
            interval=options.rescue_interval,
            is_steady=self.heartbeat_thread.is_steady,
        )
        self.controller = Controller(self.database, options, self.arrange)
        #: By queue. Replaced, never changed, when one comes or goes.
        self.producers: dict[str, Producer] = {}
        self._context = contextvars.Context()
        self._stopping = False
        self._hurry = asyncio.Event()
        #: When the last moments are over, by the monotonic clock; set when they begin.
        self._until: float | None = None
        self._unfinished = False

    def _producer(self, queue: str, wanted: QueueState) -> Producer:
        return Producer(
            self.database,
            name=self.options.name,
            queue=queue,
            wanted=wanted,
            node=self.options.node,
            interval=self.options.poll_interval,
            check_interval=self.options.heartbeat_interval,
            threads=self._threads,
            processes=self._processes,
            sessions=self._sessions,
            node_alive=self.heartbeat_thread.is_alive,
        )

    def _heartbeats(self) -> list[Heartbeat]:
        return [producer.heartbeat() for producer in self.producers.values()]

    def check(self) -> list[QueueInfo]:
        """Every queue of this node as it is now."""
        return [producer.check() for producer in self.producers.values()]

    async def arrange(self, wanted: Mapping[str, QueueState]) -> None:
        """Run these queues in these ways, and no others; in effect on return.

        A queue that is not among them fetches no more. It is gone once its last jobs have ended, by
        a later call.
        """
        if self._stopping:
            return
        adjusted = (producer.adjust(wanted.get(queue)) for queue, producer in self.producers.items())
        news = await asyncio.gather(*adjusted)
        ended = [producer for producer in self.producers.values() if producer.stopped and producer.idle]
        come = {
            queue: self._producer(queue, how) for queue, how in wanted.items() if queue not in self.producers
        }
        await self._replace(come, ended)
        if any(news):
            await self._last("telling the news", self.heartbeat_thread.send())

    async def _replace(self, come: dict[str, Producer], ended: list[Producer]) -> None:
        if self._stopping:
            return
        kept = {queue: producer for queue, producer in self.producers.items() if producer not in ended}
        self.producers = {**kept, **come}
        for producer in ended:
            await producer.stop()
            await self._withdraw(producer)
        if come:
            try:
                # Before anything is fetched: a job of a producer without a row is one of nobody.
                async with asyncio.timeout(self.options.statement_timeout):
                    await self.heartbeat_thread.send()
            except BaseException:
                self.producers = kept
                # Written they may have been all the same.
                await self._withdraw(*come.values())
                raise
        if self._stopping:
            # Meanwhile: what is started now, nobody would stop.
            await self._withdraw(*come.values())
            return
        for producer in come.values():
            # Not in the context of whoever asked for the queue: of a request, say, or a job.
            await producer.start(self._context.copy())

    def runs(self) -> Iterator[Run]:
        """Every attempt that is under way on this node."""
        for producer in self.producers.values():
            yield from producer.runs

    def _owners(self) -> Iterator[str]:
        return (producer.owner for producer in self.producers.values())

    async def start(self) -> None:
        """Start everything. Raises `SchemaMissing`, and the driver's error when there is no database."""
        child.refuse_to_start()
        self._context = contextvars.copy_context()
        try:
            await self.database.prepare()
            self.notifier.subscribe("insert", self._on_insert)
            self.notifier.subscribe("signal", self._on_signal)
            self.notifier.subscribe("signal", self.controller.on_signal)
            self.watchdog.start()
            await self.heartbeat_thread.start()
            await self.notifier.start()
            await self.controller.sync()
            for service in self._services():
                await service.start()
        except BaseException:
            # Interrupted half-way, it leaves nothing running.
            await self.stop()
            raise
        queues = ", ".join(f"{p.queue}:{p.limit}" for p in self.producers.values())
        logger.info("node %s runs %s", self.options.node, queues)

    def hurry(self) -> None:
        """Cut the grace period short: a second request to stop."""
        self._hurry.set()

    async def stop(self) -> None:
        """Stop fetching, let jobs finish, put back those that do not, store every outcome."""
        self._stopping = True
        for producer in self.producers.values():
            producer.retire()
        for step in (self._let_finish, self._put_back, self._store, self._let_go):
            try:
                await step()
            except asyncio.CancelledError:
                # A second Ctrl-C under asyncio.run() cancels every task, this one and the jobs', too:
                # nobody is waited for any more, and all the same nothing is left behind.
                self._hurry.set()
                await step()

    async def _let_finish(self) -> None:
        self._unfinished = not await self._finished(self.options.shutdown_grace_period)
        self._until = clock.monotonic() + LAST_MOMENTS

    async def _put_back(self) -> None:
        if self._unfinished:
            left = list(self.runs())
            ids = ", ".join(str(run.held[0]) for run in left)
            logger.warning("put back, not finished in the grace period: jobs %s", ids or "none")
            for producer in self.producers.values():
                producer.closed = True
            for run in left:
                run.release()
            hurried = self._hurry.is_set()
            await self._finished(LAST_MOMENTS / 10 if hurried else LAST_MOMENTS / 2, hurried=False)
            # Before rows go back: those of jobs in processes, which end now.
            await self._processes.stop()
            for producer in self.producers.values():
                for run in list(producer.runs):
                    producer.abandon(run)
        await self._processes.stop()

    async def _store(self) -> None:
        await asyncio.gather(*(self._end(service) for service in self._services()))
        await asyncio.gather(*(self._close(producer) for producer in self.producers.values()))

    async def _let_go(self) -> None:
        seconds = self._left() / 2
        await asyncio.gather(
            self._last("giving up the lead", self.leader.resign()),
            self._last("the last heartbeat", self.heartbeat_thread.stop(seconds * 0.8)),
            self._last("the end of listening", self.notifier.stop()),
            self._last("closing connections of jobs", self._sessions.close(self._threads, seconds * 0.8)),
        )
        self.watchdog.stop()
        await self._end_threads()
        await deadlines.close(self.database, self._left())

    async def _end(self, service: Service) -> None:
        seconds = self._left() / 2
        await self._last(f"the end of {service.name}", service.stop(seconds * 0.8))

    async def _close(self, producer: Producer) -> None:
        """Store the last outcomes of a producer, and take its row back, if there is nothing left of it."""
        if not await self._last(f"storing the last outcomes of {producer.queue}", producer.finish(), 0.8):
            logger.error("%s outcomes could not be stored", len(producer.acknowledger))
        else:
            await self._withdraw(producer)

    async def _withdraw(self, *producers: Producer) -> None:
        uuids = [producer.uuid for producer in producers]
        await self._last("taking rows of producers back", self.heartbeat_thread.delete_producers(uuids))

    def _left(self) -> float:
        """Seconds that are left of the last moments."""
        return LAST_MOMENTS if self._until is None else max(0.0, self._until - clock.monotonic())

    async def _last(self, what: str, action: Coroutine[Any, Any, None], part: float = 0.5) -> bool:
        """Await what is done on the way out, for a part of what is left at most; whether it was done."""
        patient = not self.database.dialect.interruptible
        try:
            await deadlines.within(self._left() * part, action, patient=patient)
        # Whatever the database says now, the node ends; the others mend what it leaves behind.
        except Exception as error:
            logger.warning("%s failed: %s", what, str(dialects.driver_error(error)) or type(error).__name__)
            return False
        return True

    async def _end_threads(self) -> None:
        # Idle threads end at once. One whose job goes on can only be left behind.
        ending = threading.Thread(target=self._threads.shutdown, kwargs={"cancel_futures": True}, daemon=True)
        ending.start()
        for _ in range(20):
            if not ending.is_alive():
                return
            await asyncio.sleep(0.01)

    def _services(self) -> list[Service]:
        return [
            *self.producers.values(),
            *(self.controller, self.stager, self.cancellation, self.leader, self.lifeline, self.pruner),
        ]

    async def _finished(self, seconds: float, hurried: bool = True) -> bool:
        """Wait until no job runs, for some seconds at most; whether none does."""
        ended = asyncio.create_task(self._ended())
        hurry = asyncio.create_task(self._hurry.wait())
        awaited = {ended, hurry} if hurried else {ended}
        await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        done = ended.done()
        for task in (ended, hurry):
            task.cancel()
        await asyncio.wait({ended, hurry})
        return done

    async def _ended(self) -> None:
        for producer in self.producers.values():
            await producer.settled()
        # A task that was cancelled before its first step is done, though its run is still listed.
        while tasks := {run.task for run in self.runs() if run.task and not run.task.done()}:
            await asyncio.wait(tasks)

    def _on_closed(self) -> None:
        # Called by the watchdog's thread. Nothing runs any more that the heart could vouch for.
        logger.error(
            "the event loop of node %s has ended without a stop: its jobs are lost", self.options.node
        )
        self.heartbeat_thread.abort()

    def _wake_producers(self) -> None:
        for producer in self.producers.values():
            producer.wake()

    def _on_insert(self, payload: dict[str, Any]) -> None:
        if not payload:
            self.stager.wake()
            self._wake_producers()
        elif isinstance(queue := payload.get("queue"), str) and queue in self.producers:
            self.producers[queue].wake()

    def _on_signal(self, payload: dict[str, Any]) -> None:
        match payload:
            case {"action": "pkill", "job_id": int(id_)} if id_ is not True:
                self.cancellation.wake_for(id_, done=payload.get("done") is True)
            case {"action": "stage", "in": int(seconds) | float(seconds)}:
                self.stager.wake_within(seconds)
            case {"action": "stage"}:
                self.stager.wake()
            case {} if not payload:
                self.cancellation.wake()
