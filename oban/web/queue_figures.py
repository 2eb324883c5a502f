"""What the pages about queues show, read with statements that cost the same however many jobs there are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from oban import dialects, filters
from oban.client import Oban
from oban.models import Job
from oban.repository import stage, stats, throughput
from oban.repository.cluster import QueueInfo
from oban.repository.nodes import NodeInfo
from oban.repository.pending_settings import newer_settings, with_settings
from oban.repository.queue_settings import ALL, QueueSettings
from oban.repository.stats import QueueStatus
from oban.types import JobState

STATES = (JobState.AVAILABLE, JobState.SCHEDULED, JobState.RETRYABLE, JobState.EXECUTING)
#: Up to how many jobs of each queue and state are counted, and of all of them together.
COUNT_LIMIT = 10_000
COUNT_BUDGET = 100_000
#: Up to how many pairs of a queue and a state are shown.
MOST_PAIRS = 2000
#: Of how many executing jobs the longest running ones are found, and how many jobs that are due are counted.
MOST_EXECUTING = 10_000
MOST_DUE = 10_000
#: Seconds over which completed jobs are counted, a shorter time if there are very many, and up to how many.
WINDOW, SHORT_WINDOW = 60, 5
MOST_COMPLETED = 20_000
#: Seconds that a job can be due before it counts as not made available in time.
STAGE_DELAY = 5
#: Seconds that an available job can wait before its queue is behind.
BEHIND_AFTER = 30.0


@dataclass(frozen=True, slots=True)
class OnNode:
    """A queue on a node that is alive.

    Attributes:
        info: As commands have changed it since the node's last heartbeat.
        is_pending: Whether the node has not confirmed such a change so far.
        is_stopping: Whether such a change stops the queue on the node.
    """

    info: QueueInfo
    is_pending: bool
    is_stopping: bool


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """A queue that has unfinished jobs, runs on a node, or has settings.

    Attributes:
        queue: Its name.
        counts: The number of its jobs in each of `STATES`.
        truncated: The states with more jobs than that.
        oldest_at: When the available job that has been due for longest was due.
        oldest_age: How many seconds ago that was.
        due: How many of its scheduled and retryable jobs are due and have not been made available in time.
        longest_since: Since when its longest running job has been executing.
        rate: How many jobs were completed per second lately.
        nodes: The nodes that are alive and run it, by name.
        dead: The names of the nodes that have run it and have died.
        settings: What commands have stored for it.
        settings_of_all: What commands have stored for all queues.
    """

    queue: str
    counts: Mapping[str, int]
    truncated: frozenset[str]
    oldest_at: datetime | None
    oldest_age: float | None
    due: int
    longest_since: datetime | None
    rate: float
    nodes: tuple[OnNode, ...]
    dead: tuple[str, ...]
    settings: tuple[QueueSettings, ...]
    settings_of_all: tuple[QueueSettings, ...]

    @property
    def is_behind(self) -> bool:
        return (self.oldest_age or 0) >= BEHIND_AFTER or self.due > 0

    @property
    def limit(self) -> int | None:
        """How many jobs its nodes run at once, all together; None if none tells."""
        limits = [node.info.limit for node in self.nodes if node.info.limit is not None]
        return sum(limits) if limits else None

    @property
    def running(self) -> int:
        """How many jobs the nodes ran at their last heartbeats."""
        return sum(len(node.info.running) for node in self.nodes)

    @property
    def paused(self) -> tuple[str, ...]:
        """The names of the nodes on which it is paused."""
        return tuple(node.info.node for node in self.nodes if node.info.paused)

    @property
    def status(self) -> QueueStatus:
        if not self.nodes:
            return "idle"
        if not self.paused:
            return "running"
        return "paused" if len(self.paused) == len(self.nodes) else "partly paused"

    @property
    def drains_in(self) -> float | None:
        """Seconds until the jobs that are available now are completed, at the present rate.

        None where that cannot be told: nothing waits or was completed lately, not all jobs were counted, or
        no node fetches any.
        """
        waiting = self.counts["available"]
        if not waiting or not self.rate or "available" in self.truncated:
            return None
        return waiting / self.rate if self.status in ("running", "partly paused") else None


@dataclass(frozen=True, slots=True)
class Figures:
    """All queues, with what is known about the instance.

    Attributes:
        at: The time by the database's clock.
        queues: Each queue, by name.
        settings: What commands have stored for all queues.
        leader: The name of the node that leads the instance; None if none does.
        nodes: The nodes of the instance.
        is_cut: Whether there are more queues, which were not read.
    """

    at: datetime
    queues: tuple[QueueFigures, ...]
    settings: tuple[QueueSettings, ...]
    leader: str | None
    nodes: tuple[NodeInfo, ...]
    is_cut: bool


async def read(oban: Oban, session: AsyncSession, only: str | None = None) -> Figures:
    """Read the figures of all queues, or of one of this name."""
    dialect = dialects.for_bind(oban.engine.sync_engine)
    at: datetime = (await session.execute(select(dialect.now()))).scalar_one()
    if only is None:
        counts, limit, is_cut = await _counts(session, dialect)
    else:
        counts, limit, is_cut = await _counts_of(session, dialect, only), COUNT_LIMIT, False
    oldest = await _oldest(session, dialect, [queue for queue, found in counts.items() if found["available"]])
    due = await _due(session, dialect, at)
    longest = await _longest(session)
    rates = await _rates(oban, session, dialect, at)
    nodes = await oban.list_nodes(session)
    settings = await oban.list_queue_settings(session=session)
    all_settings = tuple(each for each in settings if each.queue == ALL)
    own = _by_queue(each for each in settings if each.queue != ALL)
    alive = _by_queue(info for node in nodes if node.alive for info in node.queues)
    dead = _by_queue(info for node in nodes if not node.alive for info in node.queues)
    names = {*counts, *due, *alive, *dead, *own}
    if only is not None:
        names &= {only}
    queues = [
        _figures(
            queue,
            counts.get(queue, {}),
            limit,
            at,
            oldest_at=oldest.get(queue),
            due=due.get(queue, 0),
            longest_since=longest.get(queue),
            rate=rates.get(queue, 0.0),
            nodes=_on_nodes(alive.get(queue, ()), [*own.get(queue, ()), *all_settings]),
            dead=tuple(sorted({info.node for info in dead.get(queue, ())})),
            settings=tuple(own.get(queue, ())),
            settings_of_all=all_settings,
        )
        for queue in sorted(names)
    ]
    leader = next((node.node for node in nodes if node.leader), None)
    return Figures(at, tuple(queues), all_settings, leader, tuple(nodes), is_cut)


def without_jobs(queue: str, at: datetime) -> QueueFigures:
    """The figures of a queue of which every job has ended, and that no node runs."""
    return _figures(
        queue,
        {},
        0,
        at,
        oldest_at=None,
        due=0,
        longest_since=None,
        rate=0.0,
        nodes=(),
        dead=(),
        settings=(),
        settings_of_all=(),
    )


def _figures(
    queue: str, found: Mapping[str, int], limit: int, at: datetime, *, oldest_at: datetime | None, **more: Any
) -> QueueFigures:
    return QueueFigures(
        queue=queue,
        counts={state.value: min(found.get(state.value, 0), limit) for state in STATES},
        truncated=frozenset(state for state, number in found.items() if number > limit),
        oldest_at=oldest_at,
        oldest_age=None if oldest_at is None else (at - oldest_at).total_seconds(),
        **more,
    )


def _on_nodes(infos: Iterable[QueueInfo], settings: Sequence[QueueSettings]) -> tuple[OnNode, ...]:
    found = []
    for info in infos:
        changed = with_settings(info, settings)
        newer = newer_settings(info, settings)
        stops = next((each.running is False for each in newer if each.running is not None), False)
        found.append(OnNode(changed, stops or changed != info, stops))
    return tuple(sorted(found, key=lambda node: (node.info.node, node.info.started_at)))


def _by_queue(rows: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row.queue, []).append(row)
    return found


async def _counts(session: AsyncSession, dialect: Any) -> tuple[dict[str, dict[str, int]], int, bool]:
    """The number of jobs by queue and state, up to one more than the limit, that limit, and `is_cut`."""
    # The database computes the rows one by one, and ends with the last one wanted.
    wanted = dialect.index_limit(literal(MOST_PAIRS, BigInteger))
    statement = stats.counts_statement(dialect, STATES).limit(wanted)
    # Without a number, the statement only finds out which queues and states there are.
    pairs = len((await session.execute(statement, {"count_limit": 0})).all())
    limit = max(100, min(COUNT_LIMIT, COUNT_BUDGET // max(1, pairs)))
    found: dict[str, dict[str, int]] = {}
    for state, queue, number in await session.execute(statement, {"count_limit": limit + 1}):
        # SQLite stores values of any type in a text column, if another program writes them.
        if isinstance(queue, str):
            found.setdefault(queue, {each.value: 0 for each in STATES})[JobState(state).value] += number
    return found, limit, pairs >= MOST_PAIRS


async def _counts_of(session: AsyncSession, dialect: Any, queue: str) -> dict[str, dict[str, int]]:
    """The number of jobs of a queue by state, up to one more than the limit."""
    most = dialect.index_limit(literal(COUNT_LIMIT + 1, BigInteger))
    found = dict.fromkeys((state.value for state in STATES), 0)
    for state in STATES:
        is_there = (Job.state == dialect.state(state.value)) & (Job.queue == queue)
        some = select(Job.id).where(is_there).order_by(Job.priority, Job.scheduled_at, Job.id).limit(most)
        found[state.value] = await session.scalar(select(func.count()).select_from(some.subquery())) or 0
    return {queue: found} if any(found.values()) else {}


async def _oldest(session: AsyncSession, dialect: Any, queues: Sequence[str]) -> dict[str, datetime]:
    parameters = stats.oldest_parameters(queues)
    if not parameters:
        return {}
    return stats.earliest(await session.execute(stats.oldest_statement(dialect), parameters))


async def _due(session: AsyncSession, dialect: Any, at: datetime) -> dict[str, int]:
    """How many jobs of each queue are due and have not been made available in time."""
    late = (
        select(Job.queue)
        .where(stage.is_waiting(dialect), Job.scheduled_at <= at - timedelta(seconds=STAGE_DELAY))
        .order_by(Job.scheduled_at, Job.id)
        .limit(dialect.index_limit(literal(MOST_DUE, BigInteger)))
        .subquery()
    )
    rows = await session.execute(select(late.c.queue, func.count()).group_by(late.c.queue))
    return {queue: number for queue, number in rows if isinstance(queue, str)}


async def _longest(session: AsyncSession) -> dict[str, datetime]:
    """Since when the longest running job of each queue has been executing."""
    among = (
        select(Job.queue, Job.attempted_at)
        .where(filters.state(JobState.EXECUTING))
        .order_by(Job.queue, Job.priority, Job.scheduled_at, Job.id)
        .limit(MOST_EXECUTING)
        .subquery()
    )
    rows = await session.execute(
        select(among.c.queue, func.min(among.c.attempted_at)).group_by(among.c.queue)
    )
    return {queue: at for queue, at in rows if isinstance(queue, str) and at is not None}


async def _rates(oban: Oban, session: AsyncSession, dialect: Any, at: datetime) -> dict[str, float]:
    """How many jobs of each queue were completed per second lately."""
    completed: dict[str, int] = {}
    seconds = WINDOW
    for seconds in (WINDOW, SHORT_WINDOW):
        since = at - timedelta(seconds=seconds)
        latest = throughput.latest_completed(dialect, since, MOST_COMPLETED)
        counts = await oban.count_jobs(latest, session)
        completed = {queue: by_state[JobState.COMPLETED] for queue, by_state in counts.items()}
        if sum(completed.values()) < MOST_COMPLETED:
            break
    return {queue: number / seconds for queue, number in completed.items()}
