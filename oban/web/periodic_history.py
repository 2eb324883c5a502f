"""The latest jobs of periodic entries, read through the index of their ticks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from oban.amounts import short_duration
from oban.client import Oban
from oban.models import Job, PeriodicEntry, Tick
from oban.types import UTCDateTime
from oban.web.bars import Bar

#: How many ticks of an entry are shown.
TICKS = 24
_EARLIEST = datetime(1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Run:
    """A tick of an entry, and what became of its job.

    Attributes:
        tick: The time that the job was inserted for.
        job_id: The id of the job; None if it is not known.
        state: The state of the job; None if it was deleted.
        seconds: How long its last attempt took; None if it has not ended.
    """

    tick: datetime
    job_id: int | None
    state: str | None
    seconds: float | None


async def read(oban: Oban, session: AsyncSession, names: Sequence[str]) -> dict[str, list[Run]]:
    """The latest ticks of these entries, in order, by entry."""
    newest = aliased(Tick)
    floor = (
        select(newest.tick)
        .where(newest.name == PeriodicEntry.name, newest.entry == PeriodicEntry.entry)
        .order_by(newest.tick.desc())
        .offset(TICKS - 1)
        .limit(1)
        .correlate(PeriodicEntry)
        .scalar_subquery()
    )
    earliest = bindparam("earliest", _EARLIEST, UTCDateTime)
    # For each entry, two searches in the primary key of the ticks.
    floors = (
        select(PeriodicEntry.entry, func.coalesce(floor, earliest).label("floor"))
        .where(PeriodicEntry.name == oban.options.name, PeriodicEntry.entry.in_(names))
        .cte("floors")
    )
    ended_at = func.coalesce(Job.completed_at, Job.discarded_at, Job.cancelled_at, type_=UTCDateTime)
    statement = (
        select(Tick.entry, Tick.tick, Tick.job_id, Job.state, Job.attempted_at, ended_at)
        .join(floors, (Tick.entry == floors.c.entry) & (Tick.tick >= floors.c.floor))
        .outerjoin(Job, Job.id == Tick.job_id)
        .where(Tick.name == oban.options.name)
        .order_by(Tick.entry, Tick.tick)
    )
    found: dict[str, list[Run]] = {}
    for entry, tick, job_id, state, started, ended in await session.execute(statement):
        seconds = (ended - started).total_seconds() if started is not None and ended is not None else None
        found.setdefault(entry, []).append(Run(tick, job_id, None if state is None else str(state), seconds))
    return found


def bars(runs: Sequence[Run]) -> list[Bar]:
    """A bar for each tick: its colour is the state of the job, its height how long the job took."""
    highest = max((run.seconds or 0.0 for run in runs), default=0.0)
    return [
        Bar.of(
            run.seconds or 0.0,
            highest,
            _title(run),
            kind=run.state or "unknown",
            job_id=None if run.state is None else run.job_id,
            root=True,
        )
        for run in runs
    ]


def _title(run: Run) -> str:
    took = "" if run.seconds is None else f" in {short_duration(run.seconds)}"
    return f"{run.tick:%Y-%m-%d %H:%M} UTC: {run.state or 'deleted'}{took}"
