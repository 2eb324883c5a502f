"""Runs a job: finds its worker, calls `process`, and turns whatever comes of that into an `Ack`."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor as Threads
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from oban import backoff, clock, encoding, error_texts, fields, forks, redaction
from oban.database.job_scope import job_session
from oban.error_rules import Rules
from oban.errors import ConfigError, InvalidJob, UnknownWorker
from oban.middleware import Middleware, around_on_loop, layers
from oban.models import DEFAULT_MAX_ATTEMPTS, Job
from oban.redaction import META_KEY
from oban.registry import registry
from oban.repository.acknowledge import Ack
from oban.resources import Resources
from oban.runner.execution import attempt_events, attempt_log
from oban.runner.execution.outcome import (
    AttemptFailed,
    Outcome,
    from_error,
    from_result,
    hide_own_frames,
    is_outcome,
    open_args,
)
from oban.runner.execution.process_call import call_process, process_async, process_with_session
from oban.runner.execution.process_run import process_in_child
from oban.runner.execution.run import Run
from oban.runner.execution.session_sources import AsyncSessions, SyncSessions
from oban.runner.execution.thread_run import Process, ThreadRun
from oban.runner.processes.pool import ProcessPool
from oban.running_job import running
from oban.worker import Worker

logger = logging.getLogger("oban.executor")

_MAX_COUNT = 2**31


class Executor:
    """Runs the jobs of a node: on the event loop, in threads, and in child processes."""

    def __init__(
        self,
        threads: Threads,
        processes: ProcessPool,
        sessions: AsyncSessions,
        thread_sessions: SyncSessions,
        middleware: Sequence[Middleware] = (),
        timeout: float | None = None,
    ) -> None:
        #: For workers that set no timeout.
        self._default_timeout = timeout
        self._middleware = layers(middleware)
        #: What the lifespan has yielded.
        self.resources = Resources()
        self._threads = threads
        self._processes = processes
        self._sessions = sessions
        self._thread_sessions = thread_sessions

    async def execute(self, run: Run) -> Ack | None:
        """Run the job and return how that ended, or None if there is nothing left to store. Never raises."""
        job = run.job
        running.set(job)
        run.started_at = clock.monotonic()
        is_observed = run.reporting.telemetry.observes_attempts or logger.isEnabledFor(logging.DEBUG)
        if is_observed:
            attempt_events.started(run)
        worker: Worker | None = None
        try:
            _check_documents(job)
            worker = _worker_class(run)()
            meta = job.__dict__["meta"]
            if worker._has_secrets or (meta and META_KEY in meta):
                if worker._encryption is not None:
                    open_args(worker, job)
                run.secrets = redaction.secrets(job)
            timeout = _timeout(worker, run)
            if timeout is None and worker._uses_default_timeout:
                timeout = self._default_timeout
            if worker.in_process:
                return _end(run, worker, await self._in_process(run, worker, timeout))
            if not worker.is_async:
                return await self._in_thread(run, worker, timeout)
            if worker.takes or timeout is not None:
                return await self._on_loop(run, worker, timeout)
            # Most jobs get here. It is what `_on_loop` does, without calls that they do not need.
            if self._middleware or worker.own_middleware:
                chain = self._middleware + worker.own_middleware
                result = await around_on_loop(chain, worker.process)(job)
            else:
                result = await worker.process(job)
            if result is None and run.report is None and not (is_observed or run.is_lost):
                return Ack(*run.key, "completed")
            return _end(run, worker, result)
        except asyncio.CancelledError as error:
            if run.timed_out is not None:
                return _fail(run, worker, AttemptFailed(run.timeout_error(run.timed_out)))
            if not run.releasing:
                return _fail(run, worker, error)
            # asyncio.run() has cancelled the task at a second Ctrl-C: a thread of the job does not notice.
            run.cancelled = True
            ack = run.ack("released")
            attempt_events.ended(run, ack)
            return ack
        # KeyboardInterrupt and SystemExit as well: a job must not stop the node.
        except BaseException as error:
            if forks.is_child:
                forks.leave()
            return _fail(run, worker, error)
        finally:
            # The job has forked this process: its parent goes on with the node.
            if forks.is_child:
                forks.leave()

    async def _on_loop(self, run: Run, worker: Worker[Any], timeout: float | None) -> Ack | None:
        chain, found = self._middleware + worker.own_middleware, self._found(worker)
        if "session" not in worker.takes:
            work = around_on_loop(chain, partial(process_async, worker, **found))(run.job)
            return _end(run, worker, await _with_timeout(run, work, timeout))
        session = self._sessions.make()
        try:
            with job_session(session.sync_session):
                process = partial(process_async, worker, session=session, **found)
                work = around_on_loop(chain, process)(run.job)
                ack = _ack_result(run, worker, await _with_timeout(run, work, timeout))
                return _end_with_session(run, ack, await self._sessions.commit_with_outcome(session, ack))
        finally:
            await self._sessions.close(session)

    async def _in_thread(self, run: Run, worker: Worker[Any], timeout: float | None) -> Ack | None:
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        thread_run = ThreadRun(run, self._middleware + worker.own_middleware)
        timer = None if timeout is None else loop.call_later(timeout, _time_out, run, thread_run, timeout)
        has_session = "session" in worker.takes
        found = self._found(worker)
        if has_session:
            call = partial(self._call_with_session, run, worker, found)
        else:
            call = partial(call_process, worker, found)
        try:
            ended = await thread_run.execute(self._threads, call)
        finally:
            if timer is not None:
                timer.cancel()
        if has_session and ended.error is None:
            ack: Ack | None = ended.value
            return ack
        if run.timed_out is not None and type(ended.error) is not AttemptFailed:
            if inspect.iscoroutine(ended.value):
                ended.value.close()
            raise _timeout_error(run, run.timed_out, ended.error)
        if ended.error is not None and issubclass(type(ended.error), StopIteration):
            # A coroutine cannot raise it: Python makes it a RuntimeError.
            return _fail(run, worker, ended.error)
        result = ended.unwrap()
        if inspect.isawaitable(result):
            result = await _with_timeout(run, result, timeout, started_at)
        return _end(run, worker, result)

    def _call_with_session(
        self, run: Run, worker: Worker[Any], found: dict[str, Any], process_within: Callable[[Process], Any]
    ) -> Ack | None:
        """As `call_process`, but commits what `process` writes; returns what is left to be stored."""

        def work(session: Session) -> Ack:
            result = process_within(partial(process_with_session, worker, session, found))
            if run.timed_out is not None:
                raise _timeout_error(run, run.timed_out, None)
            return _ack_result(run, worker, result)

        with self._thread_sessions.acquire() as thread_session:
            return _end_with_session(run, *thread_session.run(work))

    def _found(self, worker: Worker[Any]) -> dict[str, Any]:
        """The resources that `process` takes. Raises `AttemptFailed` if one is missing."""
        if not worker.resource_parameters:
            return {}
        try:
            return self.resources.of(type(worker))
        except ConfigError as error:
            raise AttemptFailed(error) from None

    async def _in_process(self, run: Run, worker: Worker, timeout: float | None) -> object:
        process = partial(process_in_child, self._processes, run, worker, timeout)
        result: object = await around_on_loop(self._middleware + worker.own_middleware, process)(run.job)
        return result


def _check_documents(job: Job) -> None:
    """Refuse args and meta that are not JSON objects. Only another program can have stored them."""
    for field in ("args", "meta"):
        value = job.__dict__[field]
        if not isinstance(value, dict):
            if isinstance(value, encoding.Undecodable):
                raise AttemptFailed(InvalidJob(field, value.problem))
            problem = f"must be an object, not {encoding.json_type(value)}"
            raise AttemptFailed(InvalidJob(field, problem))


def _worker_class(run: Run) -> type[Worker]:
    try:
        return registry[run.worker]
    except UnknownWorker as error:
        raise AttemptFailed(error) from None


def _timeout(worker: Worker, run: Run) -> float | None:
    try:
        timeout = worker.timeout(run.job)
        return None if timeout is None else fields.timeout(timeout)
    # Whatever the worker's method raises, even SystemExit, must not fail the job or stop the node.
    except BaseException as error:
        attempt_log.ignored(run, "timeout", "runs without a limit", error)
    return None


def _time_out(run: Run, thread_run: ThreadRun, timeout: float) -> None:
    """Tell a job in a thread that its timeout has passed."""
    run.time_out(timeout)
    if not thread_run.interrupt():
        attempt_log.timed_out(run, timeout)


async def _with_timeout(
    run: Run, work: Awaitable[Any], timeout: float | None, started_at: float | None = None
) -> Any:
    """Await `work` until `timeout` seconds after `started_at`, which is now by default."""
    if timeout is None:
        return await work
    if started_at is None:
        started_at = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(started_at + timeout) as deadline:
            return await work
    except BaseException as error:
        # The job itself can raise a TimeoutError, which is not this one. If it is interrupted, it can still
        # raise an outcome.
        if not deadline.expired() or is_outcome(error):
            raise
        run.time_out(timeout)
        raise _timeout_error(run, timeout, error) from None


def _timeout_error(run: Run, timeout: float, error: BaseException | None) -> AttemptFailed:
    """The failure of a run that exceeded its timeout. The traceback of `error` shows where it was then."""
    reason = run.timeout_error(timeout)
    if error is None:
        return AttemptFailed(reason)
    hide_own_frames(error)
    reason.__cause__ = error
    return AttemptFailed(reason, error_texts.error_text(error) + "\n\n")


def _end(run: Run, worker: Worker[Any], result: object) -> Ack:
    """The end of a run whose `process` returned `result`."""
    ack = _ack_result(run, worker, result)
    attempt_events.ended(run, ack)
    return ack


def _end_with_session(run: Run, ack: Ack, is_committed: bool) -> Ack | None:
    """The end of a run whose outcome was committed with its session, or rolled back because it is lost."""
    attempt_events.ended(run, ack, is_committed=is_committed)
    # A job that was cancelled stores the reason that its worker returned, and what it has reported.
    return None if is_committed or (ack.error is None and run.report is None) else ack


def _fail(run: Run, worker: Worker[Any] | None, error: BaseException) -> Ack:
    """The end of a run that raised `error`."""
    hide_own_frames(error)
    run.error = reason = error.error if type(error) is AttemptFailed else error
    ack = _ack(run, worker, from_error(error, _rules(worker)), reason)
    attempt_events.ended(run, ack, reason)
    return ack


def _rules(worker: Worker[Any] | None) -> Rules:
    # `__new__` of a worker class can return anything.
    return worker.error_rules if worker is not None and issubclass(type(worker), Worker) else {}


def _ack_result(run: Run, worker: Worker[Any], result: object) -> Ack:
    run.result = result
    return _ack(run, worker, from_result(result))


def _ack(run: Run, worker: Worker[Any] | None, outcome: Outcome, error: BaseException | None = None) -> Ack:
    match outcome["outcome"]:
        case "failed" if outcome.get("delay") is None:
            outcome["delay"] = delay = _backoff(run, worker, error)
            if delay is None:
                outcome["outcome"] = "discarded"
        case "snoozed":
            before = run.snoozed
            count = before + 1 if isinstance(before, int) and 0 <= before < _MAX_COUNT else 1
            outcome["snoozed"] = count
            if meta := outcome.get("meta"):
                # A worker may copy the old count from the meta that it has seen.
                outcome["meta"] = encoding.dumps({**meta, "snoozed": count})
    return run.ack(**outcome)


def _backoff(run: Run, worker: Worker[Any] | None, error: BaseException | None) -> float | None:
    """Seconds until the next attempt, or None if the worker wants no more."""
    if worker is not None:
        try:
            match worker._passes_error:
                case "position":
                    delay = worker.backoff(run.job, error)
                case "keyword":
                    delay = worker.backoff(run.job, error=error)
                case _:
                    delay = worker.backoff(run.job)
            return None if delay is None else fields.delay(delay, "backoff")
        # As in `_timeout`.
        except BaseException as failure:
            attempt_log.ignored(run, "backoff", "uses the default backoff", failure)
    # SQLite stores anything that another program writes.
    max_attempts = run.max_attempts if isinstance(run.max_attempts, int) else DEFAULT_MAX_ATTEMPTS
    return backoff.default(run.key[1], max_attempts)
