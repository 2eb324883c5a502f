"""Calls `process` of a worker, on the event loop and in threads, with what it takes beside the job."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from oban import forks
from oban.database.job_scope import job_session
from oban.models import Job
from oban.runner.execution.outcome import AttemptFailed, process_arguments
from oban.runner.execution.thread_run import Process
from oban.worker import Worker


def _process(worker: Worker[Any], job: Job, /, **extra: Any) -> Any:
    try:
        return worker.process(job, **process_arguments(worker, job), **extra)
    finally:
        if forks.is_child:
            forks.leave()


async def process_async(worker: Worker[Any], job: Job, /, **extra: Any) -> Any:
    try:
        return await worker.process(job, **process_arguments(worker, job), **extra)
    finally:
        # Before a session of the parent, which is this child's as well, is committed or rolled back.
        if forks.is_child:
            forks.leave()


def process_with_session(worker: Worker[Any], session: Session, found: dict[str, Any], job: Job) -> Any:
    with job_session(session):
        result = _process(worker, job, session=session, **found)
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise AttemptFailed(TypeError("process with a session returned an awaitable; make it async"))
    return result


def call_process(worker: Worker[Any], found: dict[str, Any], process_within: Callable[[Process], Any]) -> Any:
    return process_within(partial(_process, worker, **found))
