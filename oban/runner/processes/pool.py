"""The child processes of a node, in which workers with `executor="process"` run.

A process is started when a job needs one, serves one job after the other, and is killed when a job does not
end in time. Nothing is pickled: jobs and outcomes are sent as JSON, and the worker's module and name come
from the registry, not from the row.
"""

import asyncio
import logging

from oban.runner.execution.outcome import AttemptFailed, Result
from oban.runner.processes.worker_process import ProcessRun, WorkerProcess
from oban.telemetry import ChildProcessEnded, ChildProcessStarted, Telemetry

#: Seconds that the operating system has to end the processes that were killed.
KILL_TIMEOUT = 5.0

logger = logging.getLogger("oban.executor")


class ProcessPool:
    """The child processes of one node. There are as many as jobs have run in them at once."""

    def __init__(self, telemetry: Telemetry | None = None) -> None:
        self._telemetry = telemetry or Telemetry()
        self._idle: list[WorkerProcess] = []
        self._processes: set[WorkerProcess] = set()
        self._closed = False

    async def run(self, run: ProcessRun) -> Result:
        """Run a job in an idle process or a new one; returns what `process` returned or raised.

        Raises `AttemptFailed` if the process cannot tell how, because it was killed or ended on its own. A
        process in which this was cancelled is killed.
        """
        while True:
            is_new = not self._idle
            process = await self._start() if is_new else self._idle.pop()
            try:
                ending = await process.run(run)
            except BaseException as error:
                process.kill()
                await process.ended.wait()
                # A process that died while it was idle, and was still listed, has not touched the job.
                if isinstance(error, AttemptFailed) and not (run.begun or is_new or self._closed):
                    continue
                raise
            if self._closed:
                process.kill()
            elif process.is_usable:
                self._idle.append(process)
            return ending

    async def stop(self) -> None:
        """End all processes; those that run a job are killed."""
        self._closed = True
        for process in self._processes - set(self._idle):
            process.kill()
        for process in self._idle:
            process.close()
        self._idle.clear()
        try:
            async with asyncio.timeout(KILL_TIMEOUT):
                for process in list(self._processes):
                    await process.ended.wait()
        except TimeoutError:
            logger.error("%s child processes were killed, but have not ended", len(self._processes))

    async def _start(self) -> WorkerProcess:
        if self._closed:
            raise AttemptFailed(ChildProcessError("the node is stopping"))
        process = WorkerProcess(self._remove)
        self._processes.add(process)
        try:
            await process.start()
        except BaseException:
            self._processes.discard(process)
            raise
        self._telemetry.emit(ChildProcessStarted, count=len(self._processes))
        return process

    def _remove(self, process: WorkerProcess) -> None:
        self._processes.discard(process)
        if process in self._idle:
            self._idle.remove(process)
        self._telemetry.emit(ChildProcessEnded, count=len(self._processes), reason=process.how_it_ended or "")
