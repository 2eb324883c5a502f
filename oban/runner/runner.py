"""`Runner`: the parts of a node, and the order in which they start and stop."""

import asyncio
import contextlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from oban import clock, forks, notifier
from oban.config import Options
from oban.database.aio import Database
from oban.registry import registry
from oban.repository.queue_settings import QueueState
from oban.resources import Resources
from oban.runner import deadlines
from oban.runner.deadlines import ShutdownBudget
from oban.runner.execution.executor import Executor
from oban.runner.execution.job_session import JobSessions
from oban.runner.execution.job_session_threads import ThreadSessions
from oban.runner.execution.producer import Producer
from oban.runner.execution.session_factory import SessionFactory
from oban.runner.execution.session_pool import SessionPool
from oban.runner.heartbeat_thread import HeartbeatThread
from oban.runner.lifespan import Lifespan
from oban.runner.loop_watchdog import LoopWatchdog
from oban.runner.node_events import NodeEvents
from oban.runner.node_facts import node_facts
from oban.runner.processes import child
from oban.runner.processes.pool import ProcessPool
from oban.runner.queues import Queues
from oban.runner.services.base import Service
from oban.runner.services.cancellation import CancellationChecker
from oban.runner.services.controller import Controller
from oban.runner.services.leader import Leader
from oban.runner.services.lifeline import Lifeline
from oban.runner.services.progress import ProgressWriter
from oban.runner.services.pruner import Pruner
from oban.runner.services.scheduler import Scheduler
from oban.runner.services.stager import Stager
from oban.worker_entries import declared_entries

logger = logging.getLogger("oban.runner")

#: Seconds for all that comes after the grace period: cancelled jobs end, the last outcomes are stored, and
#: connections are closed.
SHUTDOWN_TIMEOUT = 5.0
#: Connections of a runner's pool: two for each queue and these for the services, up to a limit. Two more are
#: outside of the pool, for the notifier and the heartbeats.
SERVICE_CONNECTIONS = 2
MAX_CONNECTIONS = 10
#: The limits of the queues, which can change, decide how many threads there are.
MAX_THREADS = 1_000_000


class Runner:
    """Runs the queues of a node, from one start until its stop. `Node` makes one for each start."""

    def __init__(self, database: Database, options: Options, lifespan: Lifespan) -> None:
        connections = min(2 * len(options.queues) + SERVICE_CONNECTIONS, MAX_CONNECTIONS)
        self.database = database.with_own_pool(connections, options.statement_timeout)
        self.options = options
        if self.database is not database:
            self.database.on_full = self._make_room_for_services
        self._events = NodeEvents(self)
        self._loop = asyncio.get_running_loop()
        self._budget = ShutdownBudget(self.database, SHUTDOWN_TIMEOUT)
        self._hurried = asyncio.Event()
        self._unfinished = False
        self.lifespan = lifespan
        self._exit_error: Exception | None = None
        self._abandoning = threading.Lock()
        self._is_abandoned = False
        #: What is left of the grace period when the last job has ended.
        self._grace_left = 0.0
        self._threads = ThreadPoolExecutor(max_workers=MAX_THREADS, thread_name_prefix="oban")
        self._processes = ProcessPool(database.telemetry)
        factory = SessionFactory(options.session, database.engine)
        self._session_pool = SessionPool(
            database, options.session_connections, lambda: self._thread_sessions.count
        )
        self._thread_sessions = ThreadSessions(
            database,
            options.statement_timeout,
            factory,
            max_connections=options.session_connections,
            make_room=partial(self._session_pool.make_room, include_own=True),
        )
        sessions = JobSessions(
            self._session_pool.database, options.statement_timeout, factory, make_room=self._make_room
        )
        self._executor = Executor(
            self._threads,
            self._processes,
            sessions,
            self._thread_sessions,
            options.middleware,
            options.timeout,
        )
        self.notifier = notifier.make(self.database, options.notifier, options.listen_url)
        # It calls the functions once it has started, when the queues and the watchdog exist.
        self.heartbeat_thread = HeartbeatThread(
            database,
            options,
            lambda: self.queues.heartbeats(),
            lambda: self.watchdog.answered_at,
            self._make_room_for_services,
            partial(node_facts, self.notifier),
        )
        self.queues = Queues(
            options, self._make_producer, self.heartbeat_thread, self._budget, self._open_ahead
        )
        self.watchdog = LoopWatchdog(self.queues.runs, self._on_loop_closed, telemetry=database.telemetry)
        self.controller = Controller(self.database, options, self.queues)
        self.stager = Stager(self.database, options, self.queues, self.controller)
        self.cancellation = CancellationChecker(self.database, options, self.queues)
        self.progress = ProgressWriter(self.database, options)
        self.leader = Leader(self.database, options)
        self.lifeline = Lifeline(self.database, options, self.leader, self.heartbeat_thread.is_steady)
        self.pruner = Pruner(self.database, options, self.leader)
        entries = partial(declared_entries, options.name, options.periodic)
        self.scheduler = Scheduler(self.database, options, self.leader, entries)
        self.leader.on_elected = self.scheduler.wake
        self.stager.on_periodic = self.scheduler.on_poll

    def _make_producer(self, queue: str, state: QueueState) -> Producer:
        may_fetch, note = self.heartbeat_thread.may_fetch, self.progress.note
        return Producer(self.database, self.options, queue, state, self._executor, may_fetch, note)

    def _make_room(self) -> bool:
        """Close an idle connection soon, other than those of async jobs. Returns False: not closed yet."""
        if not self._thread_sessions.close_idle_session_in(self._threads):
            self._session_pool.make_room(include_own=False)
        return False

    def _make_room_for_services(self) -> None:
        """Close an idle connection of job sessions soon. Called from any thread.

        Such connections stay open, so that the node would not get another one to replace one that was lost.
        """

        def make_room() -> None:
            if not self._thread_sessions.close_idle_session_in(self._threads):
                self._session_pool.make_room(include_own=True)

        # The loop may have been closed just now.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(make_room)

    def _open_ahead(self) -> None:
        """Open connections ahead of the async jobs with a session that this node can run at once."""
        workers = (worker for worker in registry.values() if worker.is_async and "session" in worker.takes)
        by_worker = registry.queues()
        queues = {by_worker[worker.worker_name] for worker in workers}
        running = (producer for producer in self.producers.values() if producer.queue in queues)
        self._session_pool.open_ahead(sum(producer.limit for producer in running if not producer.paused))

    @property
    def producers(self) -> dict[str, Producer]:
        """The producers of this node, by queue."""
        return self.queues.producers

    def _services(self) -> list[Service]:
        of_leader = (self.lifeline, self.pruner) if self.options.leadership else ()
        services = (self.controller, self.stager, self.cancellation, self.progress, self.scheduler)
        # The leader is elected last, so that a node that starts neither rescues nor prunes at once.
        return [*self.producers.values(), *of_leader, *services, self.leader]

    async def start(self) -> None:
        """Start everything. Raises `SchemaMissing`, and the driver's error if the database is unreachable."""
        child.refuse_to_start()
        forks.guard(asyncio.get_running_loop())
        try:
            await self.database.prepare()
            await self._enter_lifespan()
            self.watchdog.start()
            await self.heartbeat_thread.start()
            self.notifier.subscribe("insert", self._on_insert)
            self.notifier.subscribe("signal", self._on_signal)
            self.notifier.subscribe("signal", self.controller.on_signal)
            self.notifier.subscribe("signal", self.leader.on_signal)
            self.notifier.subscribe("signal", self.scheduler.on_signal)
            clock.subscribe(self._on_clock_moved)
            await self.notifier.start()
            # Makes and starts the producers.
            await self.controller.begin()
            for service in self._services():
                await service.start()
        except BaseException:
            try:
                await self.stop()
            except Exception:
                logger.exception("the lifespan of a node that did not start has failed when it was exited")
            raise
        self._events.started()

    async def _enter_lifespan(self) -> None:
        resources = Resources(await self.lifespan.enter())
        for name, queue in registry.queues().items():
            if queue in self.options.queues:
                resources.of(registry[name])
        self._executor.resources = resources

    async def stop(self) -> None:
        """Stop fetching, let jobs finish, put back those that do not, store every outcome, and disconnect.

        Raises what the lifespan raises when it is exited, at the end.
        """
        self._events.stopping()
        self.queues.retire()
        steps = (
            self._let_jobs_finish,
            self._put_jobs_back,
            self._store_outcomes,
            self._exit_lifespan,
            self._disconnect,
        )
        for step in steps:
            try:
                await step()
            except asyncio.CancelledError:
                # A second Ctrl-C under asyncio.run() cancels every task, this one as well as the jobs. The
                # step is repeated, so that nothing is left behind, but it waits for no job any more.
                self.hurry()
                await step()
        self._events.stopped()
        if self._exit_error is not None:
            raise self._exit_error

    def hurry(self) -> None:
        """Cut the grace period short, at a second request to stop."""
        self._hurried.set()

    async def _let_jobs_finish(self) -> None:
        grace = self.options.shutdown_grace_period
        started_at = clock.monotonic()
        self._unfinished = not await self._jobs_end(grace, until_hurried=True)
        self._grace_left = max(0.0, started_at + grace - clock.monotonic())
        self._budget.start()

    async def _put_jobs_back(self) -> None:
        if self._unfinished:
            self._events.released(self.queues.release_jobs())
            await self._jobs_end(self._budget.left / (10 if self._hurried.is_set() else 2))
        # Before the rows go back: a job in a process ends only now.
        await self._processes.stop()
        if self._unfinished:
            self.queues.abandon_jobs()

    async def _store_outcomes(self) -> None:
        seconds = self._budget.left * 0.4
        stopping = (
            self._budget.attempt(f"stopping {service.name}", service.stop(seconds))
            for service in self._services()
        )
        await asyncio.gather(*stopping)
        await asyncio.gather(
            self._budget.attempt("giving up the lead", self.leader.resign()), self.queues.close()
        )

    async def _exit_lifespan(self) -> None:
        # It can use what the jobs have left of the grace period.
        started_at = clock.monotonic()
        try:
            await self.lifespan.exit(self._grace_left, self._budget.left * 0.5, self._hurried)
        except Exception as error:
            self._exit_error = error
        self._budget.extend(min(self._grace_left, clock.monotonic() - started_at))

    async def _disconnect(self) -> None:
        seconds = self._budget.left * 0.4
        await asyncio.gather(
            self._budget.attempt("stopping the heartbeats", self.heartbeat_thread.stop(seconds)),
            self._budget.attempt("stopping the notifier", self.notifier.stop()),
            self._budget.attempt("closing job sessions", self._thread_sessions.close(self._threads, seconds)),
            self._budget.attempt("closing the pool of job sessions", self._session_pool.close(seconds)),
        )
        self.watchdog.stop()
        await self._stop_threads()
        await deadlines.close(self.database, self._budget.left)

    async def _stop_threads(self) -> None:
        # Idle threads end at once. A thread whose job does not end can only be left behind.
        shut_down = partial(self._threads.shutdown, cancel_futures=True)
        stopping = threading.Thread(target=shut_down, daemon=True)
        stopping.start()
        for _ in range(20):
            if stopping.is_alive():
                await asyncio.sleep(0.01)

    async def _jobs_end(self, seconds: float, *, until_hurried: bool = False) -> bool:
        """Wait up to `seconds` until no job runs, or until `hurry` is called. Returns whether no job runs."""
        ended = asyncio.create_task(self.queues.wait_for_jobs())
        tasks = {ended, asyncio.create_task(self._hurried.wait())} if until_hurried else {ended}
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        have_ended = ended.done()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return have_ended

    def _on_loop_closed(self) -> None:
        # Called by the watchdog's thread. Without heartbeats, another node can rescue the jobs.
        self.abandon()

    def abandon(self) -> None:
        """Give up everything after the event loop was closed without a stop. Call it from any thread."""
        with self._abandoning:
            if self._is_abandoned:
                return
            self._is_abandoned = True
        self._events.lost()
        self.heartbeat_thread.abort()
        self._thread_sessions.abandon(self._threads)
        self._threads.shutdown(wait=False)
        self._session_pool.drop_idle()
        self.database.drop_idle()

    def _on_clock_moved(self) -> None:
        # Called from any thread, and also once the loop is closed.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake_services)

    def _wake_services(self) -> None:
        for service in self._services():
            service.wake()

    def _on_insert(self, payload: dict[str, Any]) -> None:
        # An empty payload stands for notifications that may have been missed: look for all of them.
        if not payload:
            self.stager.wake()
            self.queues.wake()
        elif isinstance(queue := payload.get("queue"), str) and queue in self.producers:
            self.producers[queue].wake()

    def _on_signal(self, payload: dict[str, Any]) -> None:
        match payload:
            case {"action": "pkill", "job_id": int(job_id)} if job_id is not True:
                self.cancellation.wake_for(job_id, done=payload.get("done") is True)
            case {"action": "stage", "in": int(seconds) | float(seconds)}:
                self.stager.wake_within(seconds)
            case {"action": "stage"}:
                self.stager.wake()
            case {} if not payload:  # Signals may have been missed.
                self.cancellation.wake()
