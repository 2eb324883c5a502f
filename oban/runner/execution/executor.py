"""One attempt of one job: find the worker, run it, and turn any ending into an `Ack`."""

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import backoff, encoding, fields
from oban.errors import InvalidJob, UnknownWorker
from oban.models import Job
from oban.repository.acknowledge import Ack
from oban.repository.runs import RunKey
from oban.runner.execution import outcome
from oban.runner.execution.given import given
from oban.runner.execution.job_session import Stored
from oban.runner.execution.job_session_threads import JobSessions
from oban.runner.execution.outcome import AttemptFailed, Ending
from oban.runner.processes.pool import ProcessPool
from oban.runner.processes.worker_process import ProcessRun
from oban.worker import Worker, registry, running

logger = logging.getLogger("oban.executor")

_MAX_COUNT = 2**31


class _Over(NamedTuple):
    """What a job keeps of a run that is over."""

    cancelled: bool


_OVER = (_Over(False), _Over(True))


class Run:
    """One attempt that is under way on this node."""

    __slots__ = (
        *("_cancelled", "held", "job", "max_attempts", "on_cancel", "releasing", "snoozed"),
        *("task", "timed_out", "worker"),
    )

    def __init__(self, job: Job, owner: str) -> None:
        self.job = job
        # Of a job that was just loaded; its attributes would be asked through SQLAlchemy's.
        loaded = job.__dict__
        # What is needed when the run is over is not asked of the job then: the worker may have changed
        # the instance, or an update through it may have shown a later attempt.
        #: What an acknowledgement is guarded by.
        self.held: RunKey = (loaded["id"], loaded["attempt"], owner)
        self.worker: str = loaded["worker"]
        self.max_attempts: int = loaded["max_attempts"]
        meta = loaded["meta"]
        self.snoozed = meta.get("snoozed") if isinstance(meta, dict) else None
        self._cancelled = False
        #: Called when `cancelled` becomes true, from whichever thread says so.
        self.on_cancel: Callable[[], None] | None = None
        #: Whether a cancelled task means that the node stops, so that the job goes back.
        self.releasing = False
        #: The limit that it has run into, in seconds, while it cannot be ended.
        self.timed_out: float | None = None
        self.task: asyncio.Task[None] | None = None
        loaded["_run"] = self

    @property
    def cancelled(self) -> bool:
        """What `job.cancelled()` answers."""
        return self._cancelled

    @cancelled.setter
    def cancelled(self, value: bool) -> None:
        self._cancelled = value
        if value and self.on_cancel is not None:
            self.on_cancel()

    def end(self) -> None:
        """Let go of the job and the task, which hold this run: freed now, not by a collection."""
        self.job.__dict__["_run"] = _OVER[self.cancelled]
        self.task = self.on_cancel = None

    def time_out(self, limit: float) -> None:
        """Tell the job, which cannot be ended, that its time is over."""
        self.timed_out = limit
        self.cancelled = True
        logger.error("%s; it goes on in its thread: job %s", _too_long(self, limit), self.held[0])

    def release(self) -> None:
        """Stop the job because the node stops: it will run again elsewhere."""
        self.cancelled = self.releasing = True
        if self.task is not None:
            self.task.cancel()


async def execute(run: Run, threads: Executor, processes: ProcessPool, sessions: JobSessions) -> Ack | None:
    """Run the job. Never raises: how it ended, whatever it did, is in the `Ack`.

    None if that is stored already, or is of no use any more.
    """
    job = run.job
    running.set(job)
    worker: Worker | None = None
    try:
        _check(job)
        worker = _class_of(run.worker)()
        limit = _limit(worker, job)
        if worker.in_process:
            ending = await _in_process(run, worker, limit, processes)
        elif worker.is_async and limit is None and not worker.takes:
            # As below; but most jobs are such, and each call more is felt.
            result = await worker.process(job)
            if result is None:
                return Ack(*run.held, "completed")
            ending = outcome.from_result(result)
        else:
            begin = _on_loop if worker.is_async else partial(_in_thread, threads=threads)
            result = await begin(run, worker, limit, sessions)
            if type(result) is Stored:
                return result.ack
            ending = outcome.from_result(result)
    except asyncio.CancelledError as error:
        if run.timed_out is not None:
            ending = outcome.from_error(AttemptFailed(_too_long(run, run.timed_out)))
        elif run.releasing:
            return Ack(*run.held, "released")
        else:
            ending = outcome.from_error(error)
    except AttemptFailed as failure:
        logger.error("job %s: %s", run.held[0], failure.text.rpartition("\n")[2])
        ending = outcome.from_error(failure)
    # Also KeyboardInterrupt and SystemExit: a job must not take the node with it.
    except BaseException as error:
        ending = outcome.from_error(error)
    return _ack(run, worker, ending)


def _check(job: Job) -> None:
    """Refuse what no worker expects, and what only a hand or another language can have stored."""
    for field in ("args", "meta"):
        value = job.__dict__[field]
        if type(value) is dict:
            continue
        if isinstance(value, encoding.Undecodable):
            raise AttemptFailed(f"InvalidJob: {field} {value.problem}")
        if not isinstance(value, dict):
            raise AttemptFailed(f"InvalidJob: {field} must be an object, not {encoding.json_type(value)}")


def _class_of(name: str) -> type[Worker]:
    try:
        return registry.get(name)
    except UnknownWorker as error:
        raise AttemptFailed(f"UnknownWorker: {error}") from None


async def _in_process(run: Run, worker: Worker, limit: float | None, processes: ProcessPool) -> Ending:
    process_run = ProcessRun(type(worker), run.job, limit)
    run.on_cancel = process_run.cancel
    running = asyncio.create_task(processes.run(process_run))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        # Told by now, it may end in peace before the node kills it; its row goes back in any case, as
        # nobody can tell a job that has noticed from one that has finished.
        if not run.releasing:
            running.cancel()
        await asyncio.wait({running})
        if not running.cancelled():
            running.exception()
        raise


def _judged(run: Run, worker: Worker, result: object) -> Ack | None:
    """What to store of a result in the job's own transaction; None if that is to be rolled back."""
    if run.timed_out is not None:
        return None
    if not worker.is_async and inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise AttemptFailed("TypeError: process has a session, and returned an awaitable: let it be async")
    return _ack(run, worker, outcome.from_result(result))


def _process(worker: Worker[Any], job: Job, **session: object) -> Any:
    return worker.process(job, **given(worker, job), **session)


async def _on_loop(run: Run, worker: Worker, limit: float | None, sessions: JobSessions) -> Any:
    if "session" not in worker.takes:
        return await _awaited(run, _process(worker, run.job), limit)

    async def work(session: AsyncSession) -> Any:
        return await _awaited(run, _process(worker, run.job, session=session), limit)

    return await sessions.on_loop.run(work, partial(_judged, run, worker))


async def _in_thread(
    run: Run, worker: Worker, limit: float | None, sessions: JobSessions, threads: Executor
) -> Any:
    loop = asyncio.get_running_loop()
    call = partial(_process, worker, run.job)
    if "session" in worker.takes:

        def work(session: Session) -> Any:
            return _process(worker, run.job, session=session)

        call = partial(sessions.in_thread, loop, work, partial(_judged, run, worker))
    began = loop.time()
    timer = None if limit is None else loop.call_later(limit, run.time_out, limit)
    context = contextvars.copy_context()
    try:
        result = await loop.run_in_executor(threads, context.run, _guarded, call)
    finally:
        if timer is not None:
            timer.cancel()
    if type(result) is Stored:
        return result
    if run.timed_out is not None:
        if inspect.iscoroutine(result):
            result.close()
        raise _timeout(run, run.timed_out, result.error if type(result) is _Raised else None)
    if type(result) is _Raised:
        raise result.error
    if inspect.isawaitable(result):
        return await _awaited(run, result, limit, began)
    return result


async def _awaited(run: Run, work: Awaitable[Any], limit: float | None, began: float | None = None) -> Any:
    if limit is None:
        return await work
    if began is None:
        began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(began + limit) as deadline:
            return await work
    except BaseException as error:
        # What the job raises by itself, a TimeoutError for instance, is not mistaken for the limit.
        if not deadline.expired():
            raise
        run.cancelled = True
        raise _timeout(run, limit, error) from None


def _too_long(run: Run, limit: float) -> str:
    return f"TimeoutError: {run.worker} timed out after {limit:g} s"


def _timeout(run: Run, limit: float, during: BaseException | None) -> AttemptFailed:
    # What was raised meanwhile shows where the time went.
    where = "" if during is None else encoding.error_text(during) + "\n\n"
    return AttemptFailed(where + _too_long(run, limit))


class _Raised:
    """An exception carried out of a thread: as a result, since a future refuses StopIteration."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _guarded(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except BaseException as error:
        return _Raised(error)


def _limit(worker: Worker, job: Job) -> float | None:
    try:
        limit = worker.timeout(job)
        return None if limit is None else fields.timeout(limit)
    except InvalidJob as error:
        logger.error("%s, in %s; it runs without a limit", error, job.worker)
    # Code of the user that runs outside of the job: it must not cost the job anything.
    except BaseException:
        logger.exception("timeout of %s failed; it runs without a limit", job.worker)
    return None


def _delay(run: Run, worker: Worker | None) -> float:
    if worker is not None:
        try:
            return fields.delay(worker.backoff(run.job), "backoff")
        except InvalidJob as error:
            logger.error("%s, in %s; the default is used", error, run.worker)
        # As above; nor may it end the node.
        except BaseException:
            logger.exception("backoff of %s failed; the default is used", run.worker)
    return backoff.default(run.held[1], run.max_attempts)


def _ack(run: Run, worker: Worker | None, ending: Ending) -> Ack:
    match ending["outcome"]:
        case "failed":
            name = encoding.log_safe(run.worker)
            logger.warning("job %s (%s) failed, attempt %s", run.held[0], name, run.held[1])
            ending["delay"] = _delay(run, worker)
        case "snoozed":
            before = run.snoozed
            ending["snoozed"] = before + 1 if isinstance(before, int) and 0 <= before < _MAX_COUNT else 1
    return Ack(*run.held, **ending)
