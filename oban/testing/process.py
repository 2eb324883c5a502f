"""`process_job`: runs one job without storing anything about it."""

import itertools
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, overload

from oban import clock, display, encoding
from oban.client import Oban
from oban.database.loops import running_loop
from oban.errors import InstanceNotFound, InvalidTarget
from oban.models import COLUMN_KEYS, DEFAULT_MAX_ATTEMPTS, Job
from oban.runner.execution.executor import Executor
from oban.runner.execution.outcome import is_outcome
from oban.runner.execution.report import Reporting
from oban.runner.execution.run import Run
from oban.sync_client import SyncOban
from oban.testing import clients, runs
from oban.testing.caller_thread import CallerThread
from oban.testing.sessions import NoSessions
from oban.types import JobState

_ids = itertools.count(1)


@overload
def process_job(job: Job, *, oban: Oban | str = "Oban") -> Coroutine[Any, Any, Any]: ...
@overload
def process_job(job: Job, *, oban: SyncOban) -> Any: ...
def process_job(job: Job, *, oban: Oban | SyncOban | str = "Oban") -> Any:
    """Run a job as a node does, with its session, typed args, middleware, resources and timeout.

    Nothing is stored about the job, which is usually a new one, such as `MyWorker.new({"id": 1})`. The worker
    gets a copy of it in the state "executing", in its first attempt unless `job.attempt` has another number.
    What the worker writes with its session is committed if the job completes, and else rolled back, as on a
    node.

    Await it with an `Oban`; with a `SyncOban`, it returns at once. A worker without a session needs no
    client: without one, await it where an event loop runs.

    Args:
        job: The job.
        oban: A client, or the name of one (default "Oban").

    Returns:
        What `process` has returned, or the `Cancel`, `Discard` or `Snooze` that it has raised.

    Raises:
        InvalidTarget: `job` is not a `Job`.
        InvalidJob: The args or the meta of the job are not JSON values, or do not fit the declared type.
        UnknownWorker: No worker of this process has the job's worker name.
        ConfigError: The worker takes a session, and there is no client.
        InstanceNotFound: There is no client of this name in this process, and it is not the default one.
        TimeoutError: The job has exceeded its timeout.
        Exception: What `process` or a middleware has raised.

    Example:
        ::

            assert await process_job(Report.new({"day": "2026-01-31"})) == Record(2)
    """
    if not isinstance(job, Job):
        raise InvalidTarget(f"a Job is needed, not {display.shown(job)}; MyWorker.new(…) makes one")
    executing = _executing(job)
    client = _client(oban)
    if isinstance(client, Oban) or (client is None and running_loop() is not None):
        return clients.named(_process(client, executing), "process_job")
    return _process_sync(client, executing)


def _client(oban: Oban | SyncOban | str) -> Oban | SyncOban | None:
    try:
        return clients.resolve(oban)
    except InstanceNotFound:
        if oban != "Oban":
            raise
        return None


def _executing(job: Job) -> Job:
    """A copy of a job as it would be loaded while it executes."""
    now = clock.now()
    values = {key: getattr(job, key, None) for key in COLUMN_KEYS}
    for key in ("args", "meta"):
        values[key] = encoding.json_object(values[key] or {}, key)
    values["id"] = next(_ids) if values["id"] is None else values["id"]
    values["attempt"] = values["attempt"] or 1
    values["max_attempts"] = values["max_attempts"] or DEFAULT_MAX_ATTEMPTS
    values["inserted_at"] = values["inserted_at"] or now
    values["scheduled_at"] = values["scheduled_at"] or now + timedelta(seconds=job._schedule_in or 0)
    values |= {"state": JobState.EXECUTING, "attempted_at": now, "attempted_by": [runs.NODE, ""]}
    return Job._from_row([values[key] for key in COLUMN_KEYS])


async def _process(client: Oban | None, job: Job) -> Any:
    if client is not None:
        async with runs.on_loop(client, has_rows=False) as runner:
            return await _execute(runner.executor, job, runner.reporting)
    threads = ThreadPoolExecutor(1, "oban-testing")
    try:
        async with runs.executing(threads, NoSessions(), NoSessions(), None) as executor:
            return await _execute(executor, job, Reporting())
    finally:
        threads.shutdown(wait=False)


def _process_sync(client: SyncOban | None, job: Job) -> Any:
    if client is not None:
        return runs.beside_thread(
            client, lambda runner: _execute(runner.executor, job, runner.reporting), has_rows=False
        )
    thread = CallerThread()

    async def process() -> Any:
        async with runs.executing(thread, NoSessions(), NoSessions(), None) as executor:
            return await _execute(executor, job, Reporting())

    return thread.run(process)


async def _execute(executor: Executor, job: Job, reporting: Reporting) -> Any:
    run = Run(job, "", runs.NODE, reporting=reporting)
    await runs.execute(executor, run)
    try:
        if run.error is None or is_outcome(run.error):
            return run.result if run.error is None else run.error
        raise run.error
    finally:
        run.end()
