"""Which jobs have failed lately, by worker and one by one: the queries of the overview."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Subquery, case, func, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only

from oban import redacted, redaction
from oban.client import Oban
from oban.dialects.base import Dialect
from oban.dialects.expressions import sql_literal
from oban.error_texts import last_error
from oban.models import Job

_job = Job.__table__.c

#: Seconds that count as today.
TODAY = 86_400.0
#: How many discarded and how many retryable jobs are looked at.
AMONG = 50_000
#: How many workers and how many failures are listed.
LISTED = 10


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job whose last attempt failed. The error is one line, without redacted values."""

    id: int
    worker: str
    queue: str
    state: str
    attempt: int
    max_attempts: int
    at: datetime | None
    error: str


@dataclass(frozen=True, slots=True)
class FailedWorker:
    """A worker with jobs that failed today: how many are discarded or wait for a retry, and the last one."""

    worker: str
    discarded: int
    retryable: int
    last: FailedJob | None

    @property
    def jobs(self) -> int:
        return self.discarded + self.retryable


@dataclass(frozen=True, slots=True)
class FailedJobs:
    """The jobs that failed today.

    Attributes:
        at: When they were read.
        since: From when on they failed.
        jobs: How many there are, all together.
        workers: The workers with most of them.
        recent: The last ones.
        truncated: Whether there are more than were looked at.
    """

    at: datetime
    since: datetime
    jobs: int
    workers: list[FailedWorker]
    recent: list[FailedJob]
    truncated: bool


async def read_failed_jobs(oban: Oban, session: AsyncSession, dialect: Dialect, at: datetime) -> FailedJobs:
    """Read which jobs have failed today and have not succeeded since."""
    since = at - timedelta(seconds=TODAY)
    failed = _failed(dialect, since)
    totals = (
        await session.execute(
            select(func.count(), func.count().filter(failed.c.state == "discarded")).select_from(failed)
        )
    ).one()
    by_worker = (await session.execute(_workers_statement(failed))).all()
    newest = (
        await session.execute(
            select(failed.c.id).order_by(failed.c.at.desc(), failed.c.id.desc()).limit(LISTED)
        )
    ).scalars()
    recent = [*newest]
    jobs = await _read_jobs(oban, session, {*recent, *(row.last for row in by_worker)})
    return FailedJobs(
        at=at,
        since=since,
        jobs=totals[0],
        workers=[
            FailedWorker(str(row.worker), row.discarded, row.jobs - row.discarded, jobs.get(row.last))
            for row in by_worker
        ],
        recent=[jobs[each] for each in recent if each in jobs],
        truncated=totals[1] >= AMONG or totals[0] - totals[1] >= AMONG,
    )


def _failed(dialect: Dialect, since: datetime) -> Subquery:
    discarded = (
        select(_job.id, _job.worker, sql_literal("discarded").label("state"), _job.discarded_at.label("at"))
        .where(
            dialect.hint_partial_index(_job.state == dialect.state("discarded")), _job.discarded_at >= since
        )
        .order_by(_job.discarded_at.desc())
        .limit(dialect.index_limit(literal(AMONG)))
        .subquery("discarded_lately")
    )
    among = (
        select(_job.id, _job.worker, _job.attempted_at)
        .where(_job.state == dialect.state("retryable"))
        .limit(AMONG)
        .subquery("retryable")
    )
    retryable = select(
        among.c.id, among.c.worker, sql_literal("retryable").label("state"), among.c.attempted_at.label("at")
    ).where(among.c.attempted_at >= since)
    return union_all(select(*discarded.c), retryable).subquery("failed")


def _workers_statement(failed: Subquery) -> Any:
    place = func.row_number().over(partition_by=failed.c.worker, order_by=failed.c.at.desc())
    placed = select(failed, place.label("place")).subquery("placed")
    number = func.count()
    return (
        select(
            placed.c.worker,
            number.label("jobs"),
            number.filter(placed.c.state == "discarded").label("discarded"),
            func.max(case((placed.c.place == 1, placed.c.id))).label("last"),
        )
        .group_by(placed.c.worker)
        .order_by(number.desc(), func.max(placed.c.at).desc())
        .limit(LISTED)
    )


async def _read_jobs(oban: Oban, session: AsyncSession, ids: Iterable[int]) -> dict[int, FailedJob]:
    names = ("id", "worker", "queue", "state", "attempt", "max_attempts", "attempted_at", "discarded_at")
    columns: Sequence[Any] = [getattr(Job, name) for name in (*names, "meta", "errors")]
    # Args are large, and needed only where some of their values are redacted.
    statement = select(Job).where(Job.id.in_(ids)).options(load_only(*columns))
    found = {job.id: job for job in await oban.list_jobs(statement, session)}
    if hiding := [job.id for job in found.values() if redaction.hides(job)]:
        whole = await oban.list_jobs(select(Job).where(Job.id.in_(hiding)), session)
        found |= {job.id: redacted.job(job) for job in whole}
    return {key: _failed_job(job) for key, job in found.items()}


def _failed_job(job: Job) -> FailedJob:
    return FailedJob(
        id=job.id,
        worker=str(job.worker),
        queue=str(job.queue),
        state=job.state.value,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        at=job.discarded_at or job.attempted_at,
        error=last_error(job.errors),
    )
