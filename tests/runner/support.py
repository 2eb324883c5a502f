"""What the tests of the runner share: workers whose runs a test directs, and waiting for jobs."""

import asyncio
from typing import Any

from oban import Job, JobState, Oban, Worker
from tests.waiting import eventually

#: A test that fails while its jobs run should not wait long for them.
BRIEF: dict[str, Any] = {"shutdown_grace_period": 0.5}
#: Intervals so long that whatever happens within a test was not found by looking again.
NO_POLLING: dict[str, Any] = {"poll_interval": 30.0, "stage_interval": 30.0, "watch_interval": 30.0, **BRIEF}
#: Intervals so short that a test need not wait for what is found by looking again.
FAST_POLLING: dict[str, Any] = {
    "poll_interval": 0.05,
    "stage_interval": 0.05,
    "watch_interval": 0.05,
    **BRIEF,
}


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


def runner_database(oban: Oban) -> Any:
    """The database as the runner of a started instance reaches it: through a pool of its own."""
    assert oban._runner is not None
    return oban._runner.database


async def reaches(oban: Oban, job: Job | int, *states: JobState, timeout: float = 10.0) -> Job:
    """Wait until the row is in one of some states; the row."""
    id_ = job if isinstance(job, int) else job.id
    seen: list[Job | None] = [None]

    async def arrived() -> Job | None:
        seen[0] = await oban.get_job(id_)
        return seen[0] if seen[0] is not None and seen[0].state in states else None

    try:
        row: Job | None = await eventually(arrived, timeout)
    except AssertionError:
        errors = seen[0].errors if seen[0] else None
        wanted = ", ".join(states)
        raise AssertionError(f"not {wanted} within {timeout} s: {seen[0]}, errors {errors}") from None
    assert row is not None
    return row


async def row_of(oban: Oban, job: Job | int) -> Job:
    """The row as it is now."""
    row = await oban.get_job(job if isinstance(job, int) else job.id)
    assert row is not None
    return row


async def acknowledged(oban: Oban, queue: str = "default") -> None:
    """Wait until every run of a queue that has ended is acknowledged.

    A producer stores what has ended before, or together with, anything that it fetches.
    """
    marker = await oban.enqueue(Noop.new(queue=queue))
    await reaches(oban, marker, JobState.COMPLETED)


async def quiet() -> None:
    """Let wake-ups that are still under way arrive, so that only later ones can explain a start."""
    # That nothing happens any more is no condition that could be waited for.
    await asyncio.sleep(0.15)
