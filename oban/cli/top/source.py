"""Reads what `oban top` shows, with a few statements that are cheap however many jobs there are."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased, load_only

from oban import dialects, filters
from oban.cli.top.snapshot import ExecutingRow, FailureRow, JobProgress, NodeRow, QueueRow, Snapshot
from oban.client import Oban
from oban.database.engines import with_own_pool
from oban.documents.jobs import text, texts
from oban.error_texts import error_line, last_error
from oban.errors import ObanError
from oban.models import Job
from oban.repository import throughput
from oban.repository.nodes import NodeInfo
from oban.repository.pending_settings import with_settings
from oban.repository.stats import QueueStats, Stats
from oban.types import JobState

#: Seconds that all statements of a snapshot can take.
TIMEOUT = 10.0
#: How many executing jobs and how many failures a snapshot has at most.
EXECUTING = 200
FAILURES = 100
#: Of how many discarded and of how many retryable jobs the latest failures are chosen.
_AMONG = 1000
#: Up to how many jobs of each queue and state are counted.
COUNT_LIMIT = 10_000
#: Seconds over which completed jobs are counted, and up to how many of them.
_WINDOW = 10
_MOST_COMPLETED = 50_000
_COLUMNS = ("id", "worker", "queue", "state", "attempt", "max_attempts", "attempted_at", "attempted_by")


class Source:
    """Reads snapshots of an instance, in one transaction each, on a connection of its own."""

    def __init__(self, oban: Oban) -> None:
        self._oban = oban
        # The server ends a statement, or a transaction, if this process is stopped in the middle of it.
        self._dialect = dialects.for_bind(oban.engine.sync_engine)
        limits = None if oban.options.behind_pooler else self._dialect.session_limits_sql(TIMEOUT)
        #: With one connection.
        self.engine = with_own_pool(oban.engine, 1, TIMEOUT, limits)
        #: The first line of the last error, by job and attempt: errors are long, and do not change.
        self._errors: dict[tuple[int, int], str] = {}

    async def close(self) -> None:
        await self.engine.dispose()

    async def read(self, filter_: str = "") -> Snapshot:
        """Read a snapshot, of the queues and workers whose names contain a text.

        Raises:
            TimeoutError: It took longer than `TIMEOUT`.
            ObanError, SQLAlchemyError, OSError: The database cannot answer.
        """
        async with asyncio.timeout(TIMEOUT), AsyncSession(self.engine) as session:
            return await self._read(session, filter_)

    async def _read(self, session: AsyncSession, filter_: str) -> Snapshot:
        oban = self._oban
        stats = await oban.stats(session, count_limit=COUNT_LIMIT)
        completed = await self._completed(session, stats.at)
        executing = await self._executing(session, filter_)
        failures = await self._failures(session, filter_)
        return Snapshot(
            at=stats.at,
            instance=oban.options.name,
            database=dialects.redacted(oban.engine.url),
            leader=stats.leader,
            queues=[
                _queue_row(queue, stats, completed.get(queue.queue, 0))
                for queue in stats.queues
                if filter_.lower() in queue.queue.lower()
            ],
            executing=[_executing_row(job, stats.at) for job in executing],
            failures=[self._failure_row(job, stats.at) for job in failures],
            nodes=[_node_row(node, stats.at) for node in stats.nodes],
        )

    async def _completed(self, session: AsyncSession, now: datetime) -> dict[str, int]:
        """How many jobs of each queue were completed within the last seconds."""
        since = now - timedelta(seconds=_WINDOW)
        latest = throughput.latest_completed(self._dialect, since, _MOST_COMPLETED)
        counts = await self._oban.count_jobs(latest, session)
        return {queue: by_state[JobState.COMPLETED] for queue, by_state in counts.items()}

    async def _executing(self, session: AsyncSession, filter_: str) -> list[Job]:
        statement = (
            select(Job)
            .where(filters.state(JobState.EXECUTING), *_matching(Job, filter_))
            .order_by(Job.attempted_at, Job.id)
            .options(_only(Job, *_COLUMNS, "meta"))
            .limit(EXECUTING)
        )
        return await self._oban.list_jobs(statement, session)

    async def _failures(self, session: AsyncSession, filter_: str) -> list[Job]:
        found: list[Job] = []
        # In the order of an index: neither statement reads more than `_AMONG` jobs.
        for condition, order in (
            (throughput.has_ended_in(self._dialect, JobState.DISCARDED), [Job.discarded_at.desc()]),
            (filters.state(JobState.RETRYABLE), [Job.queue, Job.priority, Job.scheduled_at, Job.id]),
        ):
            latest = select(Job).where(condition).order_by(*order).limit(_AMONG)
            among: Any = aliased(Job, latest.subquery())
            statement = (
                select(among)
                .where(*_matching(among, filter_))
                .order_by(among.attempted_at.desc(), among.id.desc())
                .options(_only(among, *_COLUMNS, "discarded_at"))
                .limit(FAILURES)
            )
            found += await self._oban.list_jobs(statement, session)
        found.sort(key=_failed_at, reverse=True)
        del found[FAILURES:]
        await self._read_errors(session, found)
        return found

    async def _read_errors(self, session: AsyncSession, jobs: Sequence[Job]) -> None:
        known = {key: line for job in jobs if (line := self._errors.get(key := (job.id, job.attempt)))}
        if missing := [job.id for job in jobs if (job.id, job.attempt) not in known]:
            statement = select(Job).where(Job.id.in_(missing)).options(_only(Job, "attempt", "errors"))
            for job in await self._oban.list_jobs(statement, session):
                known[job.id, job.attempt] = last_error(job.errors)
        self._errors = known

    def _failure_row(self, job: Job, now: datetime) -> FailureRow:
        return FailureRow(
            id=job.id,
            worker=text(job.worker),
            queue=text(job.queue),
            state=job.state.value,
            attempt=_count(job.attempt),
            max_attempts=_count(job.max_attempts),
            age=_age(_failed_at(job), now),
            error=self._errors.get((job.id, job.attempt), ""),
        )


def problem(oban: Oban, error: Exception) -> str:
    """What is wrong, in a line."""
    if isinstance(error, TimeoutError):
        return f"the database has not answered within {TIMEOUT:.0f} s"
    own = error if isinstance(error, ObanError) else dialects.unavailable(oban.engine.url, error)
    return str(own) if own is not None else error_line(dialects.driver_error(error))


def _only(entity: Any, *names: str) -> Any:
    """Load these columns alone: args can be large."""
    return load_only(*(getattr(entity, name) for name in names))


def _matching(entity: Any, filter_: str) -> list[ColumnElement[bool]]:
    if not filter_:
        return []
    return [or_(*(column.icontains(filter_, autoescape=True) for column in (entity.queue, entity.worker)))]


def _failed_at(job: Job) -> datetime:
    return job.__dict__.get("discarded_at") or job.attempted_at or datetime.min.replace(tzinfo=UTC)


def _count(value: object) -> int:
    # SQLite stores values of any type in each column, if another program writes them.
    return value if isinstance(value, int) else 0


def _age(at: datetime | None, now: datetime) -> float | None:
    return None if at is None or at.year < 2 else (now - at).total_seconds()


def _executing_row(job: Job, now: datetime) -> ExecutingRow:
    return ExecutingRow(
        id=job.id,
        worker=text(job.worker),
        queue=text(job.queue),
        node=next(iter(texts(job.attempted_by)), None),
        attempt=_count(job.attempt),
        max_attempts=_count(job.max_attempts),
        running_for=_age(job.attempted_at, now),
        progress=_progress(job),
    )


def _progress(job: Job) -> JobProgress | None:
    found = job.current_progress
    return None if found is None else JobProgress(found.done, found.total, found.message)


def _queue_row(queue: QueueStats, stats: Stats, completed: int) -> QueueRow:
    infos = [
        with_settings(info, [*queue.settings, *stats.settings])
        for node in stats.nodes
        if node.alive
        for info in node.queues
        if info.queue == queue.queue
    ]
    return QueueRow(
        queue=queue.queue,
        available=queue.counts["available"],
        executing=queue.counts["executing"],
        retryable=queue.counts["retryable"],
        scheduled=queue.counts["scheduled"],
        truncated=[*queue.truncated],
        oldest=queue.oldest_available_age,
        limits=[info.limit for info in infos if info.limit is not None],
        nodes=len(infos),
        paused=sum(info.paused for info in infos),
        completed_per_second=completed / _WINDOW,
    )


def _node_row(node: NodeInfo, now: datetime) -> NodeRow:
    return NodeRow(
        node=node.node,
        pid=node.pid,
        leader=node.leader,
        alive=node.alive,
        heartbeat=node.heartbeat_age,
        lease=node.lease,
        up=(now - min(info.started_at for info in node.queues)).total_seconds(),
        running=sum(len(info.running) for info in node.queues),
        places=sum(info.limit or 0 for info in node.queues),
        queues=sorted({info.queue for info in node.queues}),
    )
