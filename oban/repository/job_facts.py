"""What decides whether a job runs, read by one statement and so as it was at one moment.

It is bounded: the job is read by its key, the jobs before it up to a number, and the rows of nodes and of
settings are few.
"""

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Row,
    ScalarSelect,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    union_all,
)

from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.models import Job, Leader, Producer, Queue
from oban.repository.cluster import lease_of, limit_of, running_of, uuid_digits
from oban.repository.queue_settings import ALL, SINCE_START
from oban.types import PENDING_STATES

#: How many of the jobs before a job are counted.
MOST_AHEAD = 1000
#: How many executing jobs of a queue, and how many rows of nodes and of settings, are read.
_MOST_EXECUTING, _MOST_ROWS = 10_000, 1000
#: The share of its lease after which a node that sends no heartbeats fetches no jobs: see `Refresher`.
_FETCHING_SHARE = 0.75
#: What a row of the result is about.
_KINDS = ("job", "node", "setting", "leader", "owner")
_ID = bindparam("id", type_=BigInteger)


class QueueProducer(NamedTuple):
    """A queue on a node, by its row in `oban_producers`."""

    uuid: str
    name: str
    node: str
    queue: str
    #: Only read for nodes of the job's queue and for the node that executes it.
    meta: dict[str, Any]
    #: Seconds since its last heartbeat, and after how many it counts as dead.
    silence: float
    lease: float
    #: Seconds since it began to run the queue, by the clock of its node; at least 0.
    age: float

    @property
    def is_alive(self) -> bool:
        return self.silence < self.lease

    @property
    def is_foreign(self) -> bool:
        """Whether another implementation runs it, which stores no lease."""
        return "lease" not in self.meta

    @property
    def fetches(self) -> bool:
        """Whether its heartbeats are so recent that it may fetch jobs."""
        return self.silence < self.lease * (1 if self.is_foreign else _FETCHING_SHARE)

    @property
    def paused(self) -> bool:
        return self.meta.get("paused") is True

    @property
    def limit(self) -> int | None:
        return limit_of(self.meta)

    @property
    def workers(self) -> frozenset[str] | None:
        """The names of the workers that it knows; None if it does not tell."""
        return _strings(self.meta.get("workers"))

    @property
    def running(self) -> frozenset[int] | None:
        """The jobs that it ran at its last heartbeat; None if it does not tell."""
        running = running_of(self.meta)
        return None if running is None else frozenset(running)


def _strings(value: object) -> frozenset[str] | None:
    return frozenset(item for item in value if isinstance(item, str)) if isinstance(value, list) else None


class LeadingNode(NamedTuple):
    """A node that leads an instance, or that has died while it did."""

    #: The name of the node and a uuid, such as `web-1/0c7d…`.
    identity: str
    #: Seconds until another node can lead, unless this one extends that.
    expires_in: float


@dataclass(slots=True)
class Facts:
    """A job and what decides whether it runs. Columns of the job can have values of any type on SQLite."""

    now: datetime
    #: None if there is no such job.
    job: Job | None = None
    #: The state as it is stored, which may be one that Oban does not have.
    stored_state: str = ""
    #: The largest id of a job; None without jobs.
    newest_id: int | None = None
    #: How many jobs are fetched, or staged, before it: at most `MOST_AHEAD`, and one more if there are more.
    ahead: int = 0
    nodes: list[QueueProducer] = field(default_factory=list)
    #: The settings of the job's queue and of all queues, by instance, queue and node.
    settings: dict[tuple[str, str, str], Row[Any]] = field(default_factory=dict)
    #: The leader of each instance.
    leaders: list[LeadingNode] = field(default_factory=list)
    #: How many jobs of the queue each producer executes, by the digits of its uuid.
    executing: dict[str, int] = field(default_factory=dict)

    @property
    def has_leader(self) -> bool:
        return bool(self.leaders)


def read_facts(tx: Transaction, job_id: int, lease: float) -> Facts:
    """Read what decides whether a job runs; `lease` is the least lease of a node, in seconds."""
    tx.autocommit_next()
    rows = tx.execute(_statement(tx.dialect), {"id": job_id}).all()
    tx.end_autocommit()
    facts = Facts(rows[0].now)
    for row in rows:
        match row.kind:
            case "job":
                facts.newest_id = row.newest_id
                if row.job_id is not None:
                    facts.job = Job._from_row([row._mapping[f"job_{key}"] for key in _job_keys])
                    facts.stored_state, facts.ahead = row.stored_state, row.ahead or 0
            case "node" if row.node_uuid is not None:
                facts.nodes.append(_queue_node(row, lease))
            case "setting" if row.setting_name is not None:
                facts.settings[row.setting_name, row.setting_queue, row.setting_node] = row
            case "leader" if row.leader is not None:
                expires_in = (row.leader_expires_at - row.real_now).total_seconds()
                facts.leaders.append(LeadingNode(str(row.leader), expires_in))
            case "owner" if row.owner is not None:
                facts.executing[row.owner.replace("-", "")] = row.executing
    facts.nodes.sort(key=lambda node: (node.node, node.queue, node.silence))
    return facts


def _queue_node(row: Row[Any], lease: float) -> QueueProducer:
    meta = row.node_meta if isinstance(row.node_meta, dict) else {}
    silence = (row.real_now - row.node_updated_at).total_seconds()
    age = max(0.0, (row.real_now - row.node_started_at).total_seconds())
    own = lease_of(meta, lease)
    # SQLite stores values of any type in a column, if another program writes them.
    name, node, queue = map(str, (row.node_name, row.node_node, row.node_queue))
    return QueueProducer(row.node_uuid, name, node, queue, meta, silence, own, age)


_job_keys = [column.name for column in Job.__table__.columns]


@functools.cache
def _statement(dialect: Dialect) -> Select[Any]:
    # With `dialect.recordset`, the planner would expect a hundred rows, and compile the statement (JIT).
    one_each = (select(literal_column(f"'{kind}'", Text).label("kind")) for kind in _KINDS)
    kind = union_all(*one_each).subquery("kinds").c.kind
    jobs = Job.__table__.alias("job")
    job, real_now = jobs.c, dialect.real_clock.now()
    nodes, settings, owners = _nodes(dialect), _settings(), _owners(dialect)
    leader = (
        select(Leader.node, Leader.expires_at)
        .where(Leader.expires_at > real_now)
        .order_by(Leader.name)
        .limit(literal(_MOST_ROWS, BigInteger))
        .subquery("leads")
    )
    tables: Any = kind.table
    for name, source, condition in (
        ("job", jobs, job.id == _ID),
        ("node", nodes, None),
        ("setting", settings, None),
        ("leader", leader, None),
        ("owner", owners, None),
    ):
        is_kind = kind == literal_column(f"'{name}'")
        tables = tables.outerjoin(source, is_kind if condition is None else and_(is_kind, condition))
    return select(
        kind,
        dialect.now().label("now"),
        real_now.label("real_now"),
        *(column.label(f"job_{column.name}") for column in job),
        cast(job.state, Text).label("stored_state"),
        case((kind == literal_column("'job'"), _newest_id())).label("newest_id"),
        _ahead(dialect, jobs).label("ahead"),
        *(column.label(f"node_{column.name}") for column in nodes.c),
        *(column.label(f"setting_{column.name}") for column in settings.c),
        leader.c.node.label("leader"),
        leader.c.expires_at.label("leader_expires_at"),
        *owners.c,
    ).select_from(tables)


def _of_job(column: str, states: Collection[str] | None = None) -> ScalarSelect[Any]:
    """A column of the job, if it is in one of some states."""
    this = Job.__table__.alias("this").c
    statement = select(this[column]).where(this.id == _ID)
    if states is not None:
        statement = statement.where(cast(this.state, Text).in_([literal_column(f"'{s}'") for s in states]))
    return statement.scalar_subquery()


def _newest_id() -> ScalarSelect[Any]:
    return select(func.max(Job.__table__.alias("newest").c.id)).scalar_subquery()


def _nodes(dialect: Dialect) -> FromClause:
    producer = Producer.__table__.c
    this = Job.__table__.alias("owned").c
    owner = select(dialect.element(this.attempted_by, 1)).where(this.id == _ID).scalar_subquery()
    uuid = uuid_digits(producer.uuid)
    # Those of other queues can be long, and are not needed.
    is_relevant = or_(producer.queue == _of_job("queue"), uuid == uuid_digits(owner))
    return (
        select(
            uuid.label("uuid"),
            *(producer.name, producer.node, producer.queue, producer.started_at, producer.updated_at),
            case((is_relevant, producer.meta)).label("meta"),
        )
        .order_by(producer.updated_at.desc())
        .limit(literal(_MOST_ROWS, BigInteger))
        .subquery("nodes")
    )


def _settings() -> FromClause:
    setting, queue = Queue.__table__.c, _of_job("queue")
    since_start = literal(SINCE_START, Text).concat(queue)
    applies = or_(setting.queue == literal(ALL, Text), setting.queue == queue, setting.queue == since_start)
    columns = ("name", "queue", "node", "running", "limit", "paused", "updated_at")
    return (
        select(*(setting[column] for column in columns))
        .where(applies)
        .limit(literal(_MOST_ROWS, BigInteger))
        .subquery("settings")
    )


def _owners(dialect: Dialect) -> FromClause:
    """How many jobs of the queue each producer executes, if the job waits for a place."""
    other = Job.__table__.alias("other").c
    some = (
        select(func.coalesce(dialect.element(other.attempted_by, 1), literal_column("''")).label("owner"))
        .where(
            other.state == dialect.state("executing"),
            other.queue == _of_job("queue", [state.value for state in PENDING_STATES]),
        )
        .limit(dialect.index_limit(literal(_MOST_EXECUTING, BigInteger)))
        .subquery("some")
    )
    return select(some.c.owner, func.count().label("executing")).group_by(some.c.owner).subquery("owners")


def _ahead(dialect: Dialect, jobs: FromClause) -> ColumnElement[Any]:
    """How many jobs come before the job: of those to fetch for an available one, of those to stage if due."""
    job, other = jobs.c, Job.__table__.alias("before").c
    to_fetch = (
        select(other.id)
        .where(
            other.state == dialect.state("available"),
            other.queue == job.queue,
            other.attempt < other.max_attempts,
            _precedes(other, job, "priority", "scheduled_at", "id"),
        )
        .order_by(other.priority, other.scheduled_at, other.id)
    )
    waits = dialect.hint_partial_index(
        other.state.in_([dialect.state("scheduled"), dialect.state("retryable")])
    )
    to_stage = (
        select(other.id)
        .where(waits, _precedes(other, job, "scheduled_at", "id"))
        .order_by(other.scheduled_at, other.id)
    )
    state = cast(job.state, Text)
    is_due = and_(
        state.in_([literal_column("'scheduled'"), literal_column("'retryable'")]),
        job.scheduled_at <= dialect.now(),
    )
    return case(
        (state == literal_column("'available'"), _count(dialect, to_fetch, jobs)),
        (is_due, _count(dialect, to_stage, jobs)),
    )


def _precedes(other: Any, job: Any, *columns: str) -> ColumnElement[bool]:
    return tuple_(*(other[name] for name in columns)) < tuple_(*(job[name] for name in columns))


def _count(dialect: Dialect, before: Select[Any], jobs: FromClause) -> ScalarSelect[Any]:
    limit = dialect.index_limit(literal(MOST_AHEAD + 1, BigInteger))
    counted = before.limit(limit).correlate(jobs).subquery()
    return select(func.count()).select_from(counted).correlate(jobs).scalar_subquery()


def settings_of(facts: Facts, node: QueueProducer) -> Sequence[tuple[str, Row[Any] | None]]:
    """The rows that can pause the job's queue on a node, the first of which that sets `paused` decides.

    Each comes with what it stands for.
    """
    name, queue = node.name, node.queue
    return [
        ("since start", facts.settings.get((name, SINCE_START + queue, node.node))),
        ("queue on node", facts.settings.get((name, queue, node.node))),
        ("queue", facts.settings.get((name, queue, ""))),
        ("node", facts.settings.get((name, ALL, node.node))),
        ("all", facts.settings.get((name, ALL, ""))),
    ]
