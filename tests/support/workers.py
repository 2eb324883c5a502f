"""Workers for tests: one that does nothing, and one whose runs the test directs."""

import asyncio
from typing import Any

from oban import Job, Worker
from tests.support.waiting import eventually


class Noop(Worker):
    """Does nothing, successfully."""

    async def process(self, job: Job) -> None:
        return None


class Runs:
    """A worker each of whose runs goes on until the test says how it ends. Runs count from 1."""

    def __init__(self) -> None:
        #: The job that each run was given, in the order in which they began.
        self.jobs: list[Job] = []
        #: Runs whose task was cancelled.
        self.interrupted: list[int] = []
        self.ended: list[int] = []
        self._endings: list[asyncio.Future[Any]] = []
        runs = self

        class Directed(Worker):
            async def process(self, job: Job) -> Any:
                return await runs._run(job)

        self.worker = Directed

    async def _run(self, job: Job) -> Any:
        ending = asyncio.get_running_loop().create_future()
        self.jobs.append(job)
        self._endings.append(ending)
        number = len(self.jobs)
        try:
            return await ending
        except asyncio.CancelledError:
            self.interrupted.append(number)
            raise
        finally:
            self.ended.append(number)

    async def begun(self, number: int) -> Job:
        """Wait until that many runs have begun; the job of the last of them."""
        await eventually(lambda: len(self.jobs) >= number)
        return self.jobs[number - 1]

    async def over(self, *numbers: int) -> None:
        """Wait until just these runs have ended."""
        await eventually(lambda: sorted(self.ended) == sorted(numbers))

    def finish(self, number: int, result: object = None) -> None:
        """Let a run return."""
        self._endings[number - 1].set_result(result)

    def fail(self, number: int, error: Exception) -> None:
        """Let a run raise."""
        self._endings[number - 1].set_exception(error)

    def finish_all(self) -> None:
        """Let every run that has begun return, all at the same moment."""
        for ending in self._endings:
            if not ending.done():
                ending.set_result(None)
