"""`Sample`: the numbers about an instance that metrics show, read at a cost that is bounded for any table."""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Executable,
    ScalarSelect,
    Text,
    bindparam,
    func,
    select,
    union_all,
)

from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.dialects.expressions import sql_literal
from oban.models import Job
from oban.repository.cluster import QueueInfo
from oban.repository.nodes import list_nodes
from oban.repository.stage import due_jobs
from oban.repository.stats import counts_statement, oldest_available
from oban.types import JobState

_job = Job.__table__.c

#: At most `MAX_PAIRS` pairs of a queue and a state are counted one by one. The jobs after them in the order
#: of the index are counted together for each state, up to `MAX_REST`.
MAX_PAIRS, MAX_REST = 1_000, 50_000
#: The oldest available job is looked for in at most so many queues.
MAX_OLDEST = 200

_LIMIT = bindparam("count_limit", type_=BigInteger)


@dataclass(slots=True)
class QueueSample:
    """A queue that has jobs or runs on a live node.

    Attributes:
        counts: The number of its jobs by state, up to the limit; without states that have none.
        oldest_available_age: For how many seconds its oldest available job has been due; 0 without one.
        nodes: How many live nodes run it.
        paused_nodes: On how many of them it is paused.
        limit: How many jobs these nodes run at once, all together.
    """

    counts: Counter[str] = field(default_factory=Counter)
    oldest_available_age: float = 0.0
    nodes: int = 0
    paused_nodes: int = 0
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """The numbers about an instance at one moment.

    Attributes:
        queues: The queues by name.
        rest: The number of jobs by state in queues that are not among `queues`, as there are too many.
        due: How many scheduled and retryable jobs are due and not available yet, up to the limit.
        alive: How many nodes are alive.
        dead: How many nodes have died and still have rows.
        is_led: Whether a node leads the instance.
    """

    queues: dict[str, QueueSample]
    rest: Counter[str]
    due: int
    alive: int
    dead: int
    is_led: bool


def load_sample(tx: Transaction, name: str, count_limit: int) -> Sample:
    """Read a sample, and count up to `count_limit` jobs of each queue and state."""
    nodes = list_nodes(tx, name)
    queues: dict[str, QueueSample] = {}
    for info in (info for node in nodes if node.alive for info in node.queues):
        _add_node(queues.setdefault(info.queue, QueueSample()), info)
    rest = _count(tx, queues, count_limit)
    # The queues of nodes are the first ones.
    waiting = [queue for queue, found in queues.items() if found.counts[JobState.AVAILABLE]][:MAX_OLDEST]
    if waiting:
        now = tx.execute(select(tx.dialect.now())).scalar_one()
        for queue, at in oldest_available(tx, waiting).items():
            queues[queue].oldest_available_age = max(0.0, (now - at).total_seconds())
    return Sample(
        queues=queues,
        rest=rest,
        due=tx.execute(_due_statement(tx.dialect), {"count_limit": count_limit}).scalar_one(),
        alive=sum(node.alive for node in nodes),
        dead=sum(not node.alive for node in nodes),
        is_led=any(node.leader for node in nodes),
    )


def _add_node(sample: QueueSample, info: QueueInfo) -> None:
    sample.nodes += 1
    sample.paused_nodes += info.paused
    sample.limit += info.limit or 0


def _count(tx: Transaction, queues: dict[str, QueueSample], count_limit: int) -> Counter[str]:
    """Count the jobs of each queue and state; returns those by state that are in none of the queues."""
    of_nodes = list(queues)[:MAX_OLDEST]
    parameters = {"count_limit": count_limit, "pairs": MAX_PAIRS}
    rows = tx.execute(_pairs_statement(tx.dialect), parameters).all()
    # SQLite stores values of any type in a text column, if another program writes them.
    last = {state: queue for state, queue, _ in rows if isinstance(queue, str)}
    _add_counts(queues, rows)
    if len(rows) < MAX_PAIRS:
        return Counter()
    rest = count_rest(tx, last)
    # The jobs of a node's queue that come after the last pair are a part of the rest.
    new = [row for row in count_named(tx, of_nodes, count_limit) if not queues[row[1]].counts[row[0]]]
    _add_counts(queues, new)
    for state, _, number in new:
        rest[state] -= number
    return +rest


def count_rest(tx: Transaction, last: Mapping[str, str]) -> Counter[str]:
    """The number of jobs by state, up to `MAX_REST`, in the queues after the last one of each state."""
    after = {f"after_{state.value}": last.get(state) for state in JobState}
    rest: Counter[str] = Counter()
    for state, number in tx.execute(_rest_statement(tx.dialect), {**after, "most": MAX_REST}):
        rest[state] = number
    return rest


def count_named(tx: Transaction, queues: Iterable[str], count_limit: int) -> list[Any]:
    """Rows of a state, a queue and the number of jobs that have both, up to `count_limit` of each."""
    asked = orjson.dumps([{"queue": queue} for queue in queues]).decode()
    parameters = {"asked": asked, "count_limit": count_limit}
    return [*tx.execute(_named_statement(tx.dialect), parameters)]


def _add_counts(queues: dict[str, QueueSample], rows: Iterable[Any]) -> None:
    for state, queue, number in rows:
        if isinstance(queue, str) and number:
            queues.setdefault(queue, QueueSample()).counts[state] += number


@functools.cache
def _pairs_statement(dialect: Dialect) -> Executable:
    # The database computes the rows of the recursive query one by one, and ends with the last one wanted.
    return counts_statement(dialect).limit(dialect.index_limit(bindparam("pairs", type_=BigInteger)))


@functools.cache
def _rest_statement(dialect: Dialect) -> Executable:
    """The number of jobs by state in the queues after `after_STATE`, up to `most` of each."""
    most = bindparam("most", type_=BigInteger)
    return union_all(
        *(
            select(sql_literal(state), _count_of(dialect, state, _job.queue > _after(state), most))
            for state in JobState
        )
    )


def _after(state: JobState) -> BindParameter[str]:
    return bindparam(f"after_{state.value}", type_=Text)


@functools.cache
def _named_statement(dialect: Dialect) -> Executable:
    """The number of jobs by state and queue, up to `count_limit` of each, of the queues in `asked`."""
    asked = dialect.recordset("asked", {"queue": Text}).c
    return union_all(
        *(
            select(
                sql_literal(state), asked.queue, _count_of(dialect, state, _job.queue == asked.queue, _LIMIT)
            )
            for state in JobState
        )
    )


def _count_of(
    dialect: Dialect, state: JobState, condition: ColumnElement[bool], limit: BindParameter[int]
) -> ScalarSelect[int]:
    jobs = (
        select(_job.id)
        .where(_job.state == dialect.state(state.value), condition)
        .order_by(_job.queue, _job.priority, _job.scheduled_at, _job.id)
        .limit(dialect.index_limit(limit))
        .correlate_except(Job.__table__)
        .subquery(f"of_{state.value}")
    )
    return select(func.count()).select_from(jobs).scalar_subquery()


@functools.cache
def _due_statement(dialect: Dialect) -> Executable:
    return select(func.count()).select_from(due_jobs(dialect, _LIMIT).subquery("due"))
