"""What has happened to jobs lately, in numbers over time: the queries of the overview.

All of it comes from the rows that are still stored: pruned jobs are missing. Each query reads a bounded
number of rows, the newest ones, by an index.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Integer,
    Select,
    Subquery,
    and_,
    case,
    cast,
    func,
    literal,
    null,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncSession

from oban.dialects.base import Dialect
from oban.dialects.expressions import sql_literal
from oban.dialects.portable import seconds
from oban.models import Attempt, Job
from oban.types import ENDED_STATES

_job = Job.__table__.c
_attempt = Attempt.__table__.c

#: How many jobs of each final state are counted at most, the last ones to finish.
COUNTED = 300_000
#: Of how many of each state waiting and running times are read.
EXAMINED = 50_000
#: The failed attempts of so many jobs are counted, the last ones to be enqueued.
ATTEMPTED = 200_000
#: No job is older, but the times of a row that another program has stored can be infinite.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: How many workers are listed.
WORKERS = 10


@dataclass(frozen=True, slots=True)
class Window:
    """A period of the charts: its name, its length, and that of each point, in seconds."""

    name: str
    title: str
    length: int
    step: int


WINDOWS: Mapping[str, Window] = {
    each.name: each
    for each in (
        Window("1h", "last hour", 3600, 60),
        Window("24h", "last 24 hours", 86_400, 1800),
        Window("7d", "last 7 days", 7 * 86_400, 10_800),
    )
}


@dataclass(frozen=True, slots=True)
class WorkerTime:
    """A worker, how many of its jobs were run, and how long these ran, in seconds."""

    worker: str
    jobs: int
    total: float
    longest: float


@dataclass(frozen=True, slots=True)
class Trends:
    """The numbers of a window. Each list has one entry per point of time, the oldest first.

    Attributes:
        at: When they were read, by the database's clock.
        window: The period.
        times: When each point begins, in seconds since 1970.
        finished: How many jobs have finished, by state.
        failed: How many attempts have failed and are followed by another one.
        wait: The median and the 95th percentile of the time from when a job was due until it started, in
            seconds; None where no job has started.
        depth: How many jobs were waiting at the end of each step; None where it is not known.
        workers: The workers whose jobs ran for longest.
        counted_from: From when on all finished jobs were counted; None if all of the window were.
        examined_from: The same for the times and workers.
    """

    at: datetime
    window: Window
    times: list[int]
    finished: dict[str, list[int]]
    failed: list[int]
    wait: dict[str, list[float | None]]
    depth: list[int | None]
    workers: list[WorkerTime]
    counted_from: datetime | None
    examined_from: datetime | None


class Query:
    """Reads the numbers of a window.

    Args:
        session: The session to read in.
        dialect: The dialect of its database.
        window: The period.
        at: The end of the period, by the database's clock.
    """

    def __init__(self, session: AsyncSession, dialect: Dialect, window: Window, at: datetime) -> None:
        self._session, self._dialect, self._window, self._at = session, dialect, window, at
        end = int(at.timestamp()) // window.step * window.step + window.step
        self._times = list(range(end - window.length, end, window.step))
        self._since = datetime.fromtimestamp(self._times[0], at.tzinfo)
        self._until = datetime.fromtimestamp(end, at.tzinfo)

    async def read(self) -> Trends:
        """Read everything."""
        finished, counted_from = await self._finished()
        examined_from = await self._examined_from()
        return Trends(
            at=self._at,
            window=self._window,
            times=self._times,
            finished=finished,
            failed=await self._failed(),
            wait=await self._wait(),
            depth=await self._depth(examined_from),
            workers=await self._workers(),
            counted_from=counted_from,
            examined_from=examined_from,
        )

    async def _finished(self) -> tuple[dict[str, list[int]], datetime | None]:
        found = {state.value: [0] * len(self._times) for state in ENDED_STATES}
        lately = self._lately(COUNTED, "state", "ended_at")
        step = self._step(lately.c.ended_at)
        first = func.min(seconds(lately.c.ended_at))
        statement = select(lately.c.state, step, func.count(), first).group_by(lately.c.state, step)
        oldest: dict[str, float] = {}
        for state, number, count, at in await self._rows(statement):
            if number is not None and 0 <= number < len(self._times):
                found[state][number] += count
                oldest[state] = min(at, oldest.get(state, at))
        cut = [oldest[state] for state, counts in found.items() if sum(counts) >= COUNTED]
        return found, self._time(max(cut)) if cut else None

    async def _examined_from(self) -> datetime | None:
        lately = self._lately(EXAMINED, "state", "ended_at")
        first = func.min(seconds(lately.c.ended_at))
        statement = select(func.count(), first).group_by(lately.c.state)
        cut = [at for count, at in await self._rows(statement) if count >= EXAMINED]
        return self._time(max(cut)) if cut else None

    async def _failed(self) -> list[int]:
        found = [0] * len(self._times)
        step = self._step(_attempt.ended_at)
        newest = select(func.max(_job.id) - ATTEMPTED).scalar_subquery()
        statement = (
            select(step, func.count())
            .where(
                _attempt.job_id > newest,
                _attempt.outcome == "failed",
                _attempt.ended_at >= self._since,
                _attempt.ended_at <= self._at,
            )
            .group_by(step)
        )
        for number, count in await self._rows(statement):
            if number is not None and 0 <= number < len(found):
                found[number] += count
        return found

    async def _wait(self) -> dict[str, list[float | None]]:
        lately = self._lately(EXAMINED, "scheduled_at", "attempted_at", "ended_at")
        waited = seconds(lately.c.attempted_at) - seconds(lately.c.scheduled_at)
        each = (
            select(self._step(lately.c.attempted_at).label("step"), waited.label("waited"))
            .where(
                lately.c.attempted_at >= lately.c.scheduled_at,
                lately.c.attempted_at >= self._since,
                lately.c.scheduled_at >= EPOCH,
            )
            .subquery("each")
        )
        place = func.row_number().over(partition_by=each.c.step, order_by=each.c.waited)
        size = func.count().over(partition_by=each.c.step)
        ranked = select(each.c.step, each.c.waited, place.label("place"), size.label("size")).subquery(
            "ranked"
        )
        statement = select(
            ranked.c.step,
            func.min(case((ranked.c.place * 2 >= ranked.c.size, ranked.c.waited))),
            func.min(case((ranked.c.place * 100 >= ranked.c.size * 95, ranked.c.waited))),
        ).group_by(ranked.c.step)
        median: list[float | None] = [None] * len(self._times)
        high = [*median]
        for number, half, most in await self._rows(statement):
            if number is not None and 0 <= number < len(median):
                median[number], high[number] = round(half, 3), round(most, 3)
        return {"p50": median, "p95": high}

    async def _depth(self, examined_from: datetime | None) -> list[int | None]:
        # A job waits from when it is due until it starts, or ends without a start. What is known of each job
        # is its last wait, so that the earlier ones of a job that was retried are missing.
        lately = self._lately(EXAMINED, "scheduled_at", "attempted_at", "ended_at")
        started = case((lately.c.attempted_at >= lately.c.scheduled_at, lately.c.attempted_at))
        over = select(lately.c.scheduled_at, func.coalesce(started, lately.c.ended_at).label("left_at"))
        executing = self._in_state("executing", _job.attempted_at)
        available = self._in_state("available", cast(null(), _job.attempted_at.type))
        waits = union_all(over, executing, available).subquery("waits")
        statements = [
            select(literal(sign), step, func.count())
            .where(column.is_not(None), waits.c.scheduled_at <= self._at)
            .group_by(step)
            for sign, column in ((1, waits.c.scheduled_at), (-1, waits.c.left_at))
            for step in [case((column < self._since, -1), else_=self._step(column))]
        ]
        changes = [0] * (len(self._times) + 1)
        for sign, number, count in await self._rows(union_all(*statements)):
            if number is not None and -1 <= number < len(self._times):
                changes[number + 1] += sign * count
        depth: list[int | None] = []
        level = changes[0]
        for at, change in zip(self._times, changes[1:], strict=True):
            level += change
            known = examined_from is None or at >= examined_from.timestamp()
            depth.append(max(0, level) if known else None)
        return depth

    async def _workers(self) -> list[WorkerTime]:
        lately = self._lately(EXAMINED, "worker", "attempted_at", "ended_at")
        ran = seconds(lately.c.ended_at) - seconds(lately.c.attempted_at)
        total = func.sum(ran)
        statement = (
            select(lately.c.worker, func.count(), total, func.max(ran))
            .where(lately.c.attempted_at <= lately.c.ended_at, lately.c.attempted_at >= EPOCH)
            .group_by(lately.c.worker)
            .order_by(total.desc())
            .limit(WORKERS)
        )
        return [
            WorkerTime(str(worker), jobs, float(total or 0), float(longest or 0))
            for worker, jobs, total, longest in await self._rows(statement)
        ]

    def _in_state(self, state: str, left_at: ColumnElement[Any]) -> Select[Any]:
        some = (
            select(_job.scheduled_at, left_at.label("left_at"))
            .where(_job.state == self._dialect.state(state))
            .limit(EXAMINED)
            .subquery(state)
        )
        return select(*some.c)

    def _lately(self, limit: int, *names: str) -> Subquery:
        """Columns of the last jobs that finished within the window, up to a number of each state."""
        parts = []
        for state in ENDED_STATES:
            at = _job[f"{state.value}_at"]
            columns = {"state": sql_literal(state.value), "ended_at": at}
            newest = (
                select(*((columns[name] if name in columns else _job[name]).label(name) for name in names))
                .where(
                    self._dialect.hint_partial_index(_job.state == self._dialect.state(state.value)),
                    at >= self._since,
                    at <= self._at,
                )
                .order_by(at.desc())
                .limit(self._dialect.index_limit(literal(limit)))
                .subquery(f"{state.value}_lately")
            )
            parts.append(select(*newest.c))
        return union_all(*parts).subquery("lately")

    def _step(self, time: ColumnElement[Any]) -> ColumnElement[int]:
        """The number of the point of time that a time belongs to; NULL for one outside of the window."""
        passed = seconds(time) - literal(self._times[0], Float)
        number = cast(passed, Integer) // literal(self._window.step, Integer)
        # Times that other programs have stored can be too far away for an integer.
        return case((and_(time >= self._since, time < self._until), number))

    def _time(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, self._at.tzinfo) + timedelta(milliseconds=1)

    async def _rows(self, statement: Any) -> list[Any]:
        return [*(await self._session.execute(statement)).all()]
