"""Runs a job in a child process."""

import asyncio

from oban.models import Job
from oban.runner.execution.outcome import AttemptFailed, Result
from oban.runner.execution.run import Run
from oban.runner.processes.pool import ProcessPool
from oban.runner.processes.worker_process import UNSURE, ProcessRun
from oban.worker import Worker


async def process_in_child(
    processes: ProcessPool, run: Run, worker: Worker, timeout: float | None, job: Job
) -> object:
    """Return what `process` of a worker returns in a child process, or raise what it raises."""
    while True:
        result = await _run(processes, run, ProcessRun(type(worker), job, timeout, run))
        if result.value is not UNSURE:
            return result.unwrap()
        # It took long until the child process was ready for the job.
        if run.confirm is not None and not await run.confirm(run):
            run.cancelled = True
            raise AttemptFailed(RuntimeError("another node has taken over the job before it began"))


async def _run(processes: ProcessPool, run: Run, process_run: ProcessRun) -> Result:
    run.on_cancel = process_run.cancel
    task = asyncio.create_task(processes.run(process_run))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # A released job has been told to stop, and has until the node kills its process. It is put back
        # in any case, because nobody can tell whether it has finished its work.
        if not run.releasing:
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            # Retrieved, so that the loop does not report it as never retrieved.
            task.exception()
        raise
