"""The page of one queue. Its address has the name in the query, as the name can be any text."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only
from starlette.responses import Response

from oban import Job, dialects, encoding, fields
from oban.amounts import counted
from oban.config import MAX_LIMIT
from oban.errors import EncodingError, InvalidJob
from oban.repository import throughput
from oban.types import JobState
from oban.web import job_links, queue_figures, queue_reasons
from oban.web.bars import Bar
from oban.web.errors import NotFound
from oban.web.queue_figures import QueueFigures
from oban.web.routing import Page
from oban.web.visit import Visit

#: How many executing jobs and how many available jobs are shown.
JOBS = 10
#: The periods of the chart: their seconds and how many there are, and how many completed jobs are looked at.
PERIOD, PERIODS = 120, 30
MOST_COMPLETED = 20_000


@dataclass(frozen=True, slots=True)
class Chart:
    """How many jobs were completed in the last `minutes`: a bar for each period, and the highest number."""

    bars: list[Bar]
    highest: int
    minutes: int


async def show(visit: Visit) -> Response:
    """`GET /queues/one?name=…`."""
    name = visit.request.query_params.get("name", "")
    try:
        encoding.string(name, "the name of a queue")
    except EncodingError:
        raise NotFound("There is no such queue.") from None
    async with visit.read() as session:
        figures = await queue_figures.read(visit.oban, session, name)
        [queue] = figures.queues or [await _without_work(visit, session, name, figures.at)]
        executing = await _jobs(visit, session, name, JobState.EXECUTING)
        waiting = await _jobs(visit, session, name, JobState.AVAILABLE)
        chart = await _chart(visit, session, figures.at, name)
    return visit.render(
        "queue.html",
        queue=queue,
        reason=queue_reasons.find(queue, figures),
        executing=executing,
        waiting=waiting,
        chart=chart,
        max_limit=MAX_LIMIT,
        refused=_refused(name),
        jobs_link=partial(job_links.jobs, visit),
    )


def _refused(name: str) -> str | None:
    """Why no command can be about a queue of this name; None if one can."""
    try:
        fields.queue(name)
    except InvalidJob as error:
        return str(error)
    return None


async def _without_work(visit: Visit, session: AsyncSession, name: str, at: datetime) -> QueueFigures:
    """The figures of a queue of which every job has ended. Raises `NotFound` if there are no jobs at all."""
    for state in JobState:
        statement = select(Job).where(_is_in(visit, name, state)).options(load_only(Job.id)).limit(1)
        if await visit.oban.list_jobs(statement, session):
            return queue_figures.without_jobs(name, at)
    raise NotFound(f"There is no queue {name[:128]!r}: it has no jobs, no nodes and no settings.")


def _is_in(visit: Visit, name: str, state: JobState) -> Any:
    dialect = dialects.for_bind(visit.oban.engine.sync_engine)
    return (Job.state == dialect.state(state.value)) & (Job.queue == name)


async def _jobs(visit: Visit, session: AsyncSession, name: str, state: JobState) -> list[Job]:
    """The first jobs of the queue in a state, in the order in which they start."""
    statement = (
        select(Job)
        .where(_is_in(visit, name, state))
        .order_by(Job.priority, Job.scheduled_at, Job.id)
        .options(
            load_only(
                Job.worker,
                Job.queue,
                Job.state,
                Job.attempt,
                Job.max_attempts,
                Job.priority,
                Job.scheduled_at,
                Job.attempted_at,
                Job.attempted_by,
            )
        )
        .limit(JOBS)
    )
    # Nothing that can be hidden is loaded.
    return await visit.oban.list_jobs(statement, session)


async def _chart(visit: Visit, session: AsyncSession, at: datetime, name: str) -> Chart:
    """How many jobs were completed in each period of the last hour."""
    dialect = dialects.for_bind(visit.oban.engine.sync_engine)
    last = int(at.timestamp()) // PERIOD
    first = last - PERIODS + 1
    since = datetime.fromtimestamp(first * PERIOD, UTC)
    statement = throughput.completed_by_period(dialect, name, since, PERIOD, MOST_COMPLETED)
    rows = (await session.execute(statement)).all()
    counts = {period: number for period, number, _ in rows}
    if sum(number for *_, number in rows) >= MOST_COMPLETED:
        # Of the earliest period, only a part was looked at.
        first = min(min(counts) + 1, last)
    periods = range(first, last + 1)
    highest = max((counts.get(period, 0) for period in periods), default=0)
    bars = []
    for period in periods:
        number, begin = counts.get(period, 0), datetime.fromtimestamp(period * PERIOD, UTC)
        title = f"{begin:%H:%M} UTC: {counted(number, 'job')} completed"
        bars.append(Bar.of(number, highest, title, kind="completed"))
    return Chart(bars, highest, len(periods) * PERIOD // 60)


ROUTES = (Page("/queues/one", show),)
