"""Batches of jobs for `enqueue_stream`, collected while the jobs are generated."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from itertools import islice

from oban.errors import ConfigError, InvalidTarget
from oban.models import Job
from oban.repository.insert import collect_jobs


def batches(jobs: Iterable[Job], size: int) -> Iterator[list[Job]]:
    """Yield new jobs as lists of `size`, of which only one is in memory at a time.

    Raises `ConfigError` for the size, and `InvalidTarget` for the jobs.
    """
    if isinstance(jobs, Job) or not isinstance(jobs, Iterable):
        raise InvalidTarget(f"an iterable of jobs is needed, not {type(jobs).__name__}")
    _check_size(size)
    remaining = iter(jobs)
    while batch := collect_jobs(islice(remaining, size)):
        yield batch
        del batch


async def async_batches(jobs: Iterable[Job] | AsyncIterable[Job], size: int) -> AsyncIterator[list[Job]]:
    """Do the same for an iterable or an async one."""
    if not isinstance(jobs, AsyncIterable):
        for batch in batches(jobs, size):
            yield batch
            del batch
        return
    _check_size(size)
    batch = []
    async for job in jobs:
        batch.append(job)
        if len(batch) == size:
            yield collect_jobs(batch)
            batch = []
    if batch:
        yield collect_jobs(batch)


def _check_size(size: object) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ConfigError(f"batch must be a positive number of jobs, not {size!r}")
