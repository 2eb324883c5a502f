"""The jobs around a job: the one before and after it, duplicates, and those with its worker or its tags.

No index finds jobs by worker or tag, so only those whose ids are near are searched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only

from oban import filters
from oban.client import Oban
from oban.errors import InvalidArgument, InvalidJob
from oban.models import Job

#: How many jobs are shown of each kind.
SHOWN = 6
#: How far from that of the job the ids of jobs with the same worker, or a tag, can be.
WINDOW = 2_000
#: How many jobs with the same unique key are looked at.
_DUPLICATES = 200
#: How many tags are searched for.
_TAGS = 20

_columns: Any = (
    *(Job.id, Job.state, Job.worker, Job.queue, Job.tags, Job.attempt, Job.max_attempts, Job.inserted_at),
    *(Job.scheduled_at, Job.attempted_at),
    *(Job.completed_at, Job.cancelled_at, Job.discarded_at),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relatives:
    """The jobs around a job. Of the jobs, only what the page shows is loaded.

    Attributes:
        previous, next: The ids of the jobs before and after it.
        duplicates: Jobs with the same unique key, the newest first.
        worker: Jobs of the same worker with ids near to its own, the newest first.
        tags: Jobs with one of its tags and ids near to its own, the newest first.
        searched: How many ids before and after are near.
    """

    previous: int | None
    next: int | None
    duplicates: Sequence[Job]
    worker: Sequence[Job]
    tags: Sequence[Job]
    searched: int = WINDOW


async def find(oban: Oban, session: AsyncSession, job: Job) -> Relatives:
    """Find the relatives of a job that was just loaded."""

    async def read(statement: Select[Any]) -> list[Job]:
        return await oban.list_jobs(statement.options(load_only(*_columns)), session)

    before = await read(select(Job).where(Job.id < job.id).order_by(Job.id.desc()).limit(1))
    after = await read(select(Job).where(Job.id > job.id).order_by(Job.id).limit(1))
    duplicates: Sequence[Job] = []
    if isinstance(job.unique_key, str):
        found = await read(select(Job).where(Job.unique_key == job.unique_key).limit(_DUPLICATES))
        others = [each for each in found if each.id != job.id]
        duplicates = sorted(others, key=lambda each: each.id, reverse=True)[:SHOWN]
    near = select(Job).where(Job.id.between(job.id - WINDOW, job.id + WINDOW), Job.id != job.id)
    of_worker: Sequence[Job] = []
    if isinstance(job.worker, str):
        of_worker = await _nearest(read, near.where(Job.worker == job.worker), job.id)
    return Relatives(
        previous=before[0].id if before else None,
        next=after[0].id if after else None,
        duplicates=duplicates,
        worker=of_worker,
        tags=await _tagged(read, near, job),
    )


async def _tagged(read: Any, near: Select[Any], job: Job) -> Sequence[Job]:
    listed = [tag for tag in job.tags if isinstance(tag, str)] if isinstance(job.tags, list) else []
    if not listed:
        return []
    try:
        condition = filters.any_tag(*listed[:_TAGS])
    except (InvalidArgument, InvalidJob):
        # Another program has stored a tag that no job can have.
        return []
    return await _nearest(read, near.where(condition), job.id)


async def _nearest(read: Any, statement: Select[Any], job_id: int) -> Sequence[Job]:
    """The jobs whose ids are nearest to an id, the newest first."""
    half = SHOWN // 2
    older = await read(statement.where(Job.id < job_id).order_by(Job.id.desc()).limit(SHOWN))
    newer = await read(statement.where(Job.id > job_id).order_by(Job.id).limit(SHOWN))
    # If there are few on one side, there is more room for the other.
    newer = newer[: max(half, SHOWN - len(older))]
    return [*reversed(newer), *older[: SHOWN - len(newer)]]
