"""Statistics about the jobs, queues and nodes of an instance, at a cost that stays bounded."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Literal, TypeAlias

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    Float,
    Integer,
    Select,
    Text,
    bindparam,
    func,
    literal,
    select,
    union_all,
)

from oban import display
from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.dialects.expressions import sql_literal
from oban.errors import InvalidArgument
from oban.models import Job
from oban.repository.cluster import QueueInfo
from oban.repository.counts import JobCounts, count_jobs
from oban.repository.nodes import NodeInfo, leader_name, list_nodes
from oban.repository.queue_settings import ALL, QueueSettings, list_settings
from oban.repository.stage import due_jobs
from oban.types import ENDED_STATES, JobState

_jobs = Job.__table__
_job = _jobs.c

#: At most so many jobs that are due, and that have finished within the hour, are counted of each state.
MAX_RECENT = 100_000
_MOST = bindparam("most", type_=BigInteger)
_PRIORITIES = range(10)
_MINUTE, _HOUR = 60.0, 3600.0

#: "partly paused": on some of its nodes. "idle": no node that is alive runs it.
QueueStatus: TypeAlias = Literal["running", "paused", "partly paused", "idle"]


@dataclass(frozen=True, slots=True)
class QueueNode:
    """A queue on a node that is alive, as of its last heartbeat.

    Attributes:
        node: The name of the node.
        limit: How many jobs the node runs at once; None if another implementation does not report it.
        paused: Whether it fetches no jobs there.
        running: How many jobs were running.
    """

    node: str
    limit: int | None
    paused: bool
    running: int


@dataclass(frozen=True, slots=True)
class QueueStats:
    """A queue that has jobs, runs on a node, or has settings.

    Attributes:
        queue: The name of the queue.
        status: "running", "paused", "partly paused" if it is paused on some of its nodes, or "idle" if no
            node that is alive runs it.
        counts: The number of its jobs by state, with all states.
        truncated: The states with more than `count_limit` jobs, which is the number in `counts` then.
        oldest_available_at: When the available job that has been due for longest was due; None without one.
        oldest_available_age: How many seconds ago that was.
        limit: How many jobs its nodes run at once, all together; None if none tells.
        nodes: The nodes that run it, by name.
        settings: What commands have stored for this queue, on one node or on all nodes.
    """

    queue: str
    status: QueueStatus
    counts: dict[str, int]
    truncated: tuple[str, ...]
    oldest_available_at: datetime | None
    oldest_available_age: float | None
    limit: int | None
    nodes: tuple[QueueNode, ...]
    settings: tuple[QueueSettings, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """How many jobs have reached a final state and are still stored.

    Attributes:
        last_minute: In the last 60 seconds.
        last_hour: In the last 3600 seconds.
        truncated: Whether there were more than 100,000 in the last hour, which are not counted.
    """

    last_minute: int
    last_hour: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Stats:
    """The result of `stats`: what the queues and nodes of an instance do.

    Attributes:
        at: The time by the database's clock.
        count_limit: At most so many jobs of each queue and state were counted; None if all of them were.
        counts: The number of all jobs by state.
        queues: Each queue, by name. Instances that share tables share their jobs as well.
        due: How many scheduled and retryable jobs are due and wait to be made available, up to 100,000.
        finished: By "completed", "cancelled" and "discarded", how many jobs have finished lately.
        nodes: The nodes of this instance that run queues, by name.
        leader: The name of the node that leads this instance; None if none does.
        settings: What commands have stored for all queues, on one node or on all nodes.
    """

    at: datetime
    count_limit: int | None
    counts: dict[str, int]
    queues: tuple[QueueStats, ...]
    due: int
    finished: dict[str, Finished]
    nodes: tuple[NodeInfo, ...]
    leader: str | None
    settings: tuple[QueueSettings, ...]


def check_limit(count_limit: object) -> int | None:
    """Check the limit of counts; raises `InvalidArgument`."""
    if count_limit is None:
        return None
    if isinstance(count_limit, bool) or not isinstance(count_limit, int) or not 0 < count_limit < 2**63 - 1:
        raise InvalidArgument(f"count_limit must be a positive integer, not {display.shown(count_limit)}")
    return count_limit


def load_stats(tx: Transaction, name: str, count_limit: int | None = None) -> Stats:
    """The statistics of an instance."""
    counts = count_jobs(tx, None, None) if count_limit is None else count_some(tx, count_limit)
    at: datetime = tx.execute(select(tx.dialect.now())).scalar_one()
    recent = count_recent(tx, MAX_RECENT + 1)
    oldest = oldest_available(
        tx, [queue for queue, by_state in counts.items() if by_state[JobState.AVAILABLE]]
    )
    nodes = list_nodes(tx, name)
    settings = list_settings(tx, name)
    infos = sorted((info for node in nodes if node.alive for info in node.queues), key=_queue_and_node)
    on_nodes = {queue: [*group] for queue, group in groupby(infos, key=lambda info: info.queue)}
    of_queue = {queue: (*rows,) for queue, rows in groupby(settings, key=lambda row: row.queue)}
    queues = tuple(
        _queue_stats(queue, at, count_limit, counts, oldest, on_nodes.get(queue, ()), of_queue.get(queue, ()))
        for queue in sorted({*counts, *on_nodes, *of_queue} - {ALL})
    )
    return Stats(
        at=at,
        count_limit=count_limit,
        counts={state.value: sum(found.counts[state] for found in queues) for state in JobState},
        queues=queues,
        due=min(recent["due"][0], MAX_RECENT),
        finished={state.value: _finished(*recent[state.value]) for state in ENDED_STATES},
        nodes=tuple(nodes),
        leader=leader_name(tx, name),
        settings=of_queue.get(ALL, ()),
    )


def _queue_and_node(info: QueueInfo) -> tuple[str, str]:
    return info.queue, info.node


def _queue_stats(
    queue: str,
    at: datetime,
    count_limit: int | None,
    counts: JobCounts,
    oldest: Mapping[str, datetime],
    infos: Iterable[QueueInfo],
    settings: tuple[QueueSettings, ...],
) -> QueueStats:
    nodes = tuple(QueueNode(info.node, info.limit, info.paused, len(info.running)) for info in infos)
    limits = [node.limit for node in nodes if node.limit is not None]
    by_state = {state.value: counts[queue][state] if queue in counts else 0 for state in JobState}
    truncated = [state for state, number in by_state.items() if number > (count_limit or number)]
    since = oldest.get(queue)
    return QueueStats(
        queue=queue,
        status=_status(nodes),
        counts={**by_state, **dict.fromkeys(truncated, count_limit or 0)},
        truncated=tuple(truncated),
        oldest_available_at=since,
        oldest_available_age=None if since is None else (at - since).total_seconds(),
        limit=sum(limits) if limits else None,
        nodes=nodes,
        settings=settings,
    )


def _status(nodes: tuple[QueueNode, ...]) -> QueueStatus:
    paused = [node.paused for node in nodes]
    if not paused:
        return "idle"
    return "paused" if all(paused) else "partly paused" if any(paused) else "running"


def count_recent(tx: Transaction, most: int) -> dict[str, tuple[int, int]]:
    """By "due", how many jobs are due; by a final state, those of the last hour and of the last minute.

    Up to `most` are counted of each, the newest first.
    """
    rows = tx.execute(_recent_statement(tx.dialect), {"most": most})
    return {kind: (hour, minute) for kind, hour, minute in rows}


def _finished(hour: int, minute: int) -> Finished:
    return Finished(min(minute, MAX_RECENT), min(hour, MAX_RECENT), hour > MAX_RECENT)


def oldest_available(tx: Transaction, queues: Iterable[str]) -> dict[str, datetime]:
    """When the oldest available job of each of these queues was due."""
    parameters = oldest_parameters(queues)
    return earliest(tx.execute(oldest_statement(tx.dialect), parameters)) if parameters else {}


def earliest(rows: Iterable[Any]) -> dict[str, datetime]:
    """By queue, the earliest time in rows of a queue and a time."""
    found: dict[str, datetime] = {}
    for queue, at in rows:
        if at is not None:
            found[queue] = min(at, found.get(queue, at))
    return found


def oldest_parameters(queues: Iterable[str]) -> dict[str, str]:
    """The parameters of `oldest_statement` for these queues; empty without any."""
    asked = [{"queue": queue, "priority": priority} for queue in queues for priority in _PRIORITIES]
    return {"asked": orjson.dumps(asked).decode()} if asked else {}


@functools.cache
def oldest_statement(dialect: Dialect) -> Executable:
    """Rows of a queue and the time at which its oldest available job of a priority was due."""
    # The index has the priority before the time: it is searched once for each priority.
    asked = dialect.recordset("asked", {"queue": Text, "priority": Integer}).c
    first = (
        select(_job.scheduled_at)
        .where(
            _job.state == dialect.state("available"),
            _job.queue == asked.queue,
            _job.priority == asked.priority,
        )
        .order_by(_job.scheduled_at, _job.id)
        .limit(dialect.index_limit(literal(1, BigInteger)))
        .scalar_subquery()
    )
    return select(asked.queue, first)


@functools.cache
def _recent_statement(dialect: Dialect) -> Executable:
    """Rows of a kind and numbers: of jobs that are due, and of those finished in an hour and in a minute."""
    due = due_jobs(dialect, _MOST).subquery("due")
    zero = literal(0, BigInteger)
    return union_all(
        select(sql_literal("due"), func.count(), zero).select_from(due),
        *(_finished_select(dialect, state) for state in ENDED_STATES),
    )


def _finished_select(dialect: Dialect, state: JobState) -> Select[Any]:
    finished_at: ColumnElement[datetime] = _job[f"{state.value}_at"]
    lately = (
        select(finished_at.label("at"))
        .where(
            dialect.hint_partial_index(_job.state == dialect.state(state.value)),
            finished_at >= dialect.now_minus(literal(_HOUR, Float)),
        )
        .order_by(finished_at.desc())
        .limit(dialect.index_limit(_MOST))
        .subquery(f"{state.value}_lately")
    )
    in_minute = func.count().filter(lately.c.at >= dialect.now_minus(literal(_MINUTE, Float)))
    return select(sql_literal(state.value), func.count(), in_minute).select_from(lately)


def count_some(tx: Transaction, count_limit: int) -> JobCounts:
    """As `count_jobs`, but only up to one more than `count_limit` jobs of each queue and state."""
    counts: JobCounts = {}
    rows = tx.execute(counts_statement(tx.dialect), {"count_limit": count_limit + 1})
    for state, queue, number in rows:
        # SQLite stores values of any type in a text column, if another program writes them.
        if isinstance(queue, str):
            counts.setdefault(queue, dict.fromkeys(JobState, 0))[state] += number
    return dict(sorted(counts.items()))


@functools.cache
def counts_statement(dialect: Dialect, states: tuple[JobState, ...] = tuple(JobState)) -> Select[Any]:
    """Rows of a state, a queue, and the number of jobs that have both, up to `count_limit` of each."""
    # Each step finds the next queue of a state by the index, whatever the number of jobs.
    firsts = [
        select(_job.state, _job.queue)
        .where(_job.state == dialect.state(state.value))
        .order_by(_job.queue)
        .limit(dialect.index_limit(literal(1, BigInteger)))
        .subquery(f"first_{state.value}")
        for state in states
    ]
    start = union_all(*(select(*first.c) for first in firsts)).subquery("start")
    pairs = select(*start.c).cte("pairs", recursive=True)
    following = select(func.min(_job.queue)).where(_job.state == pairs.c.state, _job.queue > pairs.c.queue)
    pairs = pairs.union_all(
        select(pairs.c.state, following.scalar_subquery()).where(pairs.c.queue.is_not(None))
    )
    some = (
        select(_job.id)
        .where(_job.state == pairs.c.state, _job.queue == pairs.c.queue)
        .order_by(_job.priority, _job.scheduled_at, _job.id)
        .limit(dialect.index_limit(bindparam("count_limit", type_=BigInteger)))
        .correlate(pairs)
        .subquery("some")
    )
    number = select(func.count()).select_from(some).scalar_subquery()
    return select(pairs.c.state, pairs.c.queue, number).where(pairs.c.queue.is_not(None))
