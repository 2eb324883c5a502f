"""Reading the rows of jobs, and waiting for their states."""

from oban import Job, JobState, Oban
from tests.support.waiting import eventually
from tests.support.workers import Noop


async def reaches(oban: Oban, job: Job | int, *states: JobState, timeout: float = 10.0) -> Job:
    """Wait until a job is in one of these states, and return its row."""
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
    """The current row of a job."""
    row = await oban.get_job(job if isinstance(job, int) else job.id)
    assert row is not None
    return row


async def acknowledged(oban: Oban, queue: str = "default") -> None:
    """Wait until every run of a queue that has ended is acknowledged.

    A producer stores outcomes before, or in the same transaction as, the next fetch.
    """
    marker = await oban.enqueue(Noop.new(queue=queue))
    await reaches(oban, marker, JobState.COMPLETED)
