"""Runs jobs of a test one by one, as a node runs them, in the test's transaction if there is one."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor as Threads
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from oban import compat, error_rules
from oban.client import Oban
from oban.config import Options
from oban.database.aio import Database
from oban.database.base import BaseDatabase
from oban.database.joined import joining
from oban.database.loops import Loop
from oban.database.transaction import Transaction
from oban.errors import UnknownWorker
from oban.models import Job
from oban.registry import registry
from oban.repository import acknowledge, drain, management
from oban.repository.acknowledge import Ack
from oban.resources import Resources
from oban.runner.execution import queue_events
from oban.runner.execution.acknowledger import log_replaced, replacements
from oban.runner.execution.executor import Executor
from oban.runner.execution.job_session import JobSessions
from oban.runner.execution.outcome import is_outcome
from oban.runner.execution.report import Reporting
from oban.runner.execution.run import Run
from oban.runner.execution.session_factory import SessionFactory
from oban.runner.execution.session_sources import AsyncSessions, SyncSessions
from oban.runner.processes.pool import ProcessPool
from oban.sync_client import SyncOban
from oban.testing.caller_thread import CallerThread
from oban.testing.sessions import BlockingSessions, LoopSessions, WithoutOutcome
from oban.testing.stand_ins import for_async_workers, for_plain_workers
from oban.testing.turns import turn

T = TypeVar("T")

#: The node in `attempted_by` of jobs that tests run.
NODE = "testing"
#: The loop of a database before the blocks of `_serving` that run now, which can overlap, and their number.
_serving_blocks: WeakKeyDictionary[Database, tuple[Loop | None, int]] = WeakKeyDictionary()


class InTransaction(Protocol):
    """Runs a repository function in the transaction of a client."""

    def __call__(self, function: Callable[..., Any], /, *args: Any) -> Awaitable[Any]: ...


class Attempt(NamedTuple):
    """How an attempt of a job has ended."""

    #: The row afterwards; None if it was deleted meanwhile.
    job: Job | None
    #: What the worker has raised, unless that is an outcome, or one of its options tells what to do then.
    error: BaseException | None

    def error_to_raise(self, safe: bool) -> BaseException | None:
        """What ends the test. With safety, only Ctrl+C does, which interrupts a plain job of a sync test."""
        return self.error if not safe or isinstance(self.error, KeyboardInterrupt) else None


class JobRunner:
    """Runs jobs of a client, one after another.

    Args:
        executor: Executes them.
        run_in_transaction: Runs a repository function.
        database: The client's.
        options: Those of the client.
    """

    def __init__(
        self, executor: Executor, run_in_transaction: InTransaction, database: BaseDatabase, options: Options
    ) -> None:
        self.executor = executor
        self.run_in_transaction = run_in_transaction
        self._dialect = database.dialect
        #: Where progress and log lines of the jobs go, and the handlers of their events.
        self.reporting = Reporting(options.kept_lines, telemetry=database.telemetry)
        self._owner = str(uuid.uuid4())

    async def run(self, job_id: int) -> Attempt | None:
        """Run a stored job, due or not, and store how that ended; None if it does not wait for a run."""
        job = await self.run_in_transaction(drain.claim_job, job_id, NODE, self._owner)
        if job is None:
            return None
        run = Run(job, self._owner, NODE, reporting=self.reporting)
        ack = await execute(self.executor, run)
        if ack is not None:
            await self._store(ack)
        attempt = Attempt(await self.run_in_transaction(management.get_job, job_id), _unhandled(run))
        run.end()
        return attempt

    async def _store(self, ack: Ack) -> None:
        try:
            await self.run_in_transaction(acknowledge.acknowledge, [ack])
        except Exception as error:
            if not self._dialect.is_bad_value(error):
                raise
            for replacement in replacements(ack, error):
                try:
                    await self.run_in_transaction(acknowledge.acknowledge, [replacement])
                except Exception as refused:
                    if not self._dialect.is_bad_value(refused):
                        raise
                else:
                    log_replaced(ack, replacement, error)
                    queue_events.replaced(self.reporting.telemetry, ack, replacement, error)
                    return
            raise


async def execute(executor: Executor, run: Run) -> Ack | None:
    """Execute a run in a task, which its timeout can cancel."""
    run.task = asyncio.create_task(executor.execute(run))
    try:
        return await asyncio.shield(run.task)
    except asyncio.CancelledError:
        run.release()
        await asyncio.wait({run.task})
        raise


def _unhandled(run: Run) -> BaseException | None:
    if run.error is None or is_outcome(run.error):
        return None
    try:
        rules = registry[run.worker].error_rules
    except UnknownWorker:
        return run.error
    return run.error if error_rules.rule_for(rules, run.error) is None else None


@asynccontextmanager
async def on_loop(client: Oban, session: Any = None, *, has_rows: bool = True) -> AsyncIterator[JobRunner]:
    """Run jobs of an `Oban` on this event loop.

    With a session, or if the client was created with one, everything happens in its transaction. Without
    `has_rows`, the outcomes of jobs are not stored.
    """
    database, options = client._database, client.options
    async with turn(database):
        with ExitStack() as stack:
            connection = None
            if session is not None:
                connection = await run_in(database, session, _connection)
                stack.enter_context(joining(database, connection))
            elif database.joined is not None:
                connection = await database.run(None, _connection)
            factory = SessionFactory(options.session, database.engine)
            kind = JobSessions if has_rows else WithoutOutcome
            sessions = kind(database, options.statement_timeout, factory, connection=connection)
            threads = ThreadPoolExecutor(1, "oban-testing")
            stack.callback(threads.shutdown, wait=False)
            stack.enter_context(_serving(database))
            stack.enter_context(for_plain_workers(client))
            async with executing(threads, sessions, LoopSessions(sessions), client) as executor:
                yield JobRunner(executor, partial(database.run, None), database, options)


async def run_in(database: Database, session: Any, function: Callable[..., Any], *args: Any) -> Any:
    """Run a repository function in a caller's transaction. A plain worker's session is a sync one."""
    if isinstance(session, Session):
        return await compat.run_sync(partial(database.join_sync, session, True, function, *args))
    return await database.run(session, function, *args)


@contextmanager
def _serving(database: Database) -> Iterator[None]:
    """Let plain workers use `enqueue_sync`, which needs the event loop of a node."""
    before, blocks = _serving_blocks.get(database, (database.loop, 0))
    _serving_blocks[database] = before, blocks + 1
    database.loop = asyncio.get_running_loop()
    try:
        yield
    finally:
        before, blocks = _serving_blocks.pop(database)
        if blocks == 1:
            database.loop = before
        else:
            _serving_blocks[database] = before, blocks - 1


def beside_thread(
    client: SyncOban,
    use: Callable[[JobRunner], Awaitable[T]],
    session: Any = None,
    *,
    has_rows: bool = True,
) -> T:
    """Run jobs of a `SyncOban`: `use` runs on an event loop, and its database calls run in this thread."""
    database = client._database
    thread = CallerThread()

    def run_in_transaction(function: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        call = partial(database.run, None, function, *args)
        return asyncio.get_running_loop().run_in_executor(thread, call)

    async def run() -> T:
        connection = await run_in_transaction(_connection) if database.joined is not None else None
        sessions = BlockingSessions(database, connection or database.engine, has_rows=has_rows)
        with for_async_workers(client, thread):
            async with executing(thread, sessions, sessions, client) as executor:
                runner = JobRunner(executor, run_in_transaction, database, client.options)
                return await use(runner)

    with nullcontext() if session is None else joining(database, database.run(session, _connection)):
        return thread.run(run)


def _connection(tx: Transaction) -> Connection:
    return tx.connection()


@asynccontextmanager
async def executing(
    threads: Threads, sessions: AsyncSessions, thread_sessions: SyncSessions, client: Oban | SyncOban | None
) -> AsyncIterator[Executor]:
    """Make an executor with the middleware, timeout and lifespan of a client, as those of a node."""
    options = client.options if client is not None else Options()
    processes = ProcessPool(None if client is None else client.telemetry)
    executor = Executor(threads, processes, sessions, thread_sessions, options.middleware, options.timeout)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(processes.stop)
        if options.lifespan is not None:
            executor.resources = Resources(await stack.enter_async_context(options.lifespan(client)))
        yield executor
