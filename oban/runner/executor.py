"""One attempt of one job: find the worker, run it, and turn any ending into an `Ack`."""

import asyncio
import contextvars
import inspect
import logging
from concurrent.futures import Executor
from typing import Any, NamedTuple

from oban import backoff, encoding, fields
from oban.errors import InvalidJob, UnknownWorker
from oban.models import Job
from oban.outcomes import Cancel, Record, Snooze
from oban.repository.execution import Ack, Held
from oban.worker import Worker, registry, running

logger = logging.getLogger("oban.executor")

_MAX_COUNT = 2**31


class _Over(NamedTuple):
    """What a job keeps of a run that is over."""

    cancelled: bool


_OVER = (_Over(False), _Over(True))


class Run:
    """One attempt that is under way on this node."""

    __slots__ = ("cancelled", "held", "job", "releasing", "task")

    def __init__(self, job: Job, owner: str) -> None:
        self.job = job
        #: What an acknowledgement is guarded by. Not asked of the job later: the worker may have
        #: changed the instance, or an update through it may have shown a later attempt.
        self.held: Held = (job.id, job.attempt, owner)
        #: What `job.cancelled()` answers.
        self.cancelled = False
        #: Whether a cancelled task means that the node stops, so that the job goes back.
        self.releasing = False
        self.task: asyncio.Task[None] | None = None
        job.__dict__["_run"] = self

    def end(self) -> None:
        """Let go of the job and the task, which hold this run: freed now, not by a collection."""
        self.job.__dict__["_run"] = _OVER[self.cancelled]
        self.task = None

    def release(self) -> None:
        """Stop the job because the node stops: it will run again elsewhere."""
        self.cancelled = self.releasing = True
        if self.task is not None:
            self.task.cancel()


async def execute(run: Run, threads: Executor) -> Ack:
    """Run the job. Never raises: how it ended, whatever it did, is in the `Ack`."""
    job = run.job
    running.set(job)
    worker: Worker | None = None
    try:
        worker = registry.get(job.worker)()
        return _returned(run, await _process(worker, job, threads))
    except asyncio.CancelledError as error:
        return _ack(run, "released") if run.releasing else _failed(run, worker, error)
    # Also KeyboardInterrupt and SystemExit: a job must not take the node with it.
    except BaseException as error:
        return _failed(run, worker, error)


async def _process(worker: Worker, job: Job, threads: Executor) -> Any:
    if worker.is_async:
        return await worker.process(job)
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    result = await loop.run_in_executor(threads, context.run, _guarded, worker, job)
    if isinstance(result, _Raised):
        raise result.error
    return await result if inspect.isawaitable(result) else result


class _Raised:
    """An exception carried out of a thread: as a result, since a future refuses StopIteration."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _guarded(worker: Worker, job: Job) -> Any:
    try:
        return worker.process(job)
    except BaseException as error:
        return _Raised(error)


def _returned(run: Run, result: Any) -> Ack:
    match result:
        case Cancel():
            return _ack(run, "cancelled", error=encoding.storable(str(result.reason)))
        case Snooze():
            before = run.job.meta.get("snoozed")
            count = before + 1 if isinstance(before, int) and 0 <= before < _MAX_COUNT else 1
            return _ack(run, "snoozed", delay=result.delay, snoozed=count)
        case Record():
            return _ack(run, "completed", value=encoding.dumps(result.value))
        case _:
            return _ack(run, "completed")


def _failed(run: Run, worker: Worker | None, error: BaseException) -> Ack:
    job = run.job
    if isinstance(error, UnknownWorker):
        text = f"UnknownWorker: {error}"
        logger.error("job %s failed: %s", run.held[0], error)
    else:
        text = encoding.error_text(error)
        logger.warning("job %s (%s) failed, attempt %s", run.held[0], job.worker, run.held[1])
    return _ack(run, "failed", error=text, delay=_delay(worker, job))


def _delay(worker: Worker | None, job: Job) -> float:
    if worker is not None:
        try:
            return fields.delay(worker.backoff(job), "backoff")
        except InvalidJob as error:
            logger.error("%s of %s; the default is used", error, job.worker)
        # Code of the user that runs outside of the job: it must not cost the job its outcome, nor
        # end the node.
        except BaseException:
            logger.exception("backoff of %s failed; the default is used", job.worker)
    return backoff.default(job.attempt, job.max_attempts)


def _ack(run: Run, outcome: str, **how: Any) -> Ack:
    return Ack(*run.held, outcome, **how)
