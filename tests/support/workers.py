"""Workers for tests: one does nothing, and the test decides how each run of the other ends."""

import asyncio
from typing import Any

from oban import Job, Worker
from tests.support.waiting import eventually


class Noop(Worker):
    """Does nothing and succeeds."""

    async def process(self, job: Job) -> None:
        return None


class Runs:
    """A worker whose runs continue until the test ends them. Runs are numbered from 1."""

    def __init__(self) -> None:
        #: The job of each run, in the order in which the runs began.
        self.jobs: list[Job] = []
        #: The runs whose tasks were cancelled.
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
        """Wait until this many runs have begun, and return the job of the last one."""
        await eventually(lambda: len(self.jobs) >= number)
        return self.jobs[number - 1]

    async def over(self, *numbers: int) -> None:
        """Wait until exactly these runs have ended."""
        await eventually(lambda: sorted(self.ended) == sorted(numbers))

    def finish(self, number: int, result: object = None) -> None:
        """Let a run return."""
        self._endings[number - 1].set_result(result)

    def fail(self, number: int, error: Exception) -> None:
        """Let a run raise."""
        self._endings[number - 1].set_exception(error)

    def finish_all(self) -> None:
        """Let every run that has begun return, all at once."""
        for ending in self._endings:
            if not ending.done():
                ending.set_result(None)
