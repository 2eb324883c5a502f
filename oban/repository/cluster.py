"""The nodes of an instance: the heartbeats of their producers, and the lease of their leader."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Executable,
    Float,
    Row,
    Text,
    bindparam,
    case,
    cast,
    delete,
    func,
    or_,
    select,
)

from oban.database.transaction import Transaction
from oban.dialects.base import Dialect
from oban.dialects.expressions import sql_literal
from oban.models import Leader, Producer

_producers = Producer.__table__
_producer = _producers.c
_leaders = Leader.__table__
_leader = _leaders.c

#: Seconds; the least lease of producers that store none. oban-py sends a heartbeat every 15 seconds, however
#: short our own lease is.
FOREIGN_LEASE = 60.0

#: Called with the database's time; returns for how many seconds heartbeats could have been observed by then.
ObservedFor = Callable[[datetime], float]


def always_observed(_: datetime) -> float:
    """The `ObservedFor` of callers that judge all producers."""
    return math.inf


class Heartbeat(NamedTuple):
    """A producer's row in `oban_producers`, without its times."""

    uuid: UUID
    name: str
    node: str
    queue: str
    meta: dict[str, Any]


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A queue on one node, as it is there or as it was at the node's last heartbeat.

    Attributes:
        queue: The name of the queue.
        node: The name of the node.
        limit: How many jobs the node runs at once; None if another implementation does not report it.
        paused: Whether no jobs are fetched. Also true while the last jobs of a stopped queue run.
        running: The ids of the jobs that are running.
        started_at: When the node began to run the queue.
        updated_at: The time of the heartbeat; None for a queue of this node.
        uuid: The uuid of the producer, which is the second string in `attempted_by` of its jobs.
    """

    queue: str
    node: str
    limit: int | None
    paused: bool
    running: tuple[int, ...]
    started_at: datetime
    updated_at: datetime | None
    uuid: str


def heartbeat(tx: Transaction, heartbeats: Sequence[Heartbeat]) -> None:
    """Record that producers are alive, whether or not they still have a row."""
    if not heartbeats:
        # Fails if the database cannot be reached, as a heartbeat would.
        database_time(tx)
        return
    # In the same order on every node, as each row is locked.
    rows = [row._asdict() for row in sorted(heartbeats, key=attrgetter("uuid"))]
    insert: Any = tx.dialect.insert(_producers).values(rows)
    refreshed = {"meta": insert.excluded.meta, "updated_at": tx.dialect.real_clock.now()}
    # A node that is frozen or cut off before its COMMIT would keep the locks.
    tx.autocommit_next()
    tx.execute(insert.on_conflict_do_update(index_elements=[_producer.uuid], set_=refreshed))


def delete_producers(tx: Transaction, uuids: Sequence[UUID]) -> None:
    """Delete the rows of producers that have stopped and have nothing left to acknowledge."""
    tx.execute(delete(_producers).where(_producer.uuid.in_(uuids)))


def producer_uuids(tx: Transaction) -> set[UUID]:
    """The uuids of all producers that have a row, however old it is."""
    tx.autocommit_next()
    return set(tx.execute(select(_producer.uuid)).scalars())


def check_cluster(tx: Transaction, name: str, queue: str | None = None) -> list[QueueInfo]:
    """The queues of all nodes of an instance, or one queue of them, by queue, node and start."""
    statement = select(*_producer).where(_producer.name == name)
    if queue is not None:
        statement = statement.where(_producer.queue == queue)
    statement = statement.order_by(_producer.queue, _producer.node, _producer.started_at, _producer.uuid)
    return [queue_info(row) for row in tx.execute(statement)]


def queue_info(row: Row[Any]) -> QueueInfo:
    """The queue of a producer's row."""
    # Other implementations can store anything in `meta`.
    meta = row.meta if isinstance(row.meta, dict) else {}
    return QueueInfo(
        queue=row.queue,
        node=row.node,
        limit=limit_of(meta),
        paused=meta.get("paused") is True,
        running=running_of(meta) or (),
        started_at=row.started_at,
        updated_at=row.updated_at,
        uuid=str(row.uuid),
    )


def limit_of(meta: Mapping[str, Any]) -> int | None:
    """The limit of a producer with this `meta`; None if it does not report it."""
    limit = meta.get("local_limit")
    return limit if isinstance(limit, int) and not isinstance(limit, bool) else None


def running_of(meta: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The ids of the jobs that a producer with this `meta` runs; None if it does not report it."""
    running = meta.get("running")
    return tuple(id_ for id_ in running if isinstance(id_, int)) if isinstance(running, list) else None


def stale_producers(tx: Transaction, lease: float, observed_for: ObservedFor = always_observed) -> list[str]:
    """The `uuid_digits` of the producers whose last heartbeat is older than their lease.

    `lease` is in seconds. A longer lease in the producer's own row counts instead, and producers of other
    implementations, which store none, get at least `FOREIGN_LEASE`. Producers with a lease longer than
    `observed_for` returns are not judged yet.
    """
    now = database_time(tx)
    observed = observed_for(now)
    rows = tx.execute(select(uuid_digits(_producer.uuid), _producer.updated_at, _producer.meta)).all()
    return [
        uuid
        for uuid, heartbeat_at, meta in rows
        if (own := lease_of(meta, lease)) <= observed and (now - heartbeat_at).total_seconds() >= own
    ]


def lease_of(meta: object, least: float) -> float:
    """The lease of a producer with this `meta`, in seconds, and at least `least`."""
    # Other implementations can store anything in `meta`.
    own = meta.get("lease") if isinstance(meta, dict) else None
    if isinstance(own, bool) or not isinstance(own, (int, float)):
        return max(least, FOREIGN_LEASE)
    return own if least < own < math.inf else least


def uuid_digits(uuid: Any) -> ColumnElement[str]:
    """The 32 digits of a uuid, which databases store with dashes or without."""
    return func.replace(cast(uuid, Text), sql_literal("-"), sql_literal(""))


def database_time(tx: Transaction) -> datetime:
    """The time by the database's clock."""
    tx.autocommit_next()
    now: datetime = tx.execute(select(tx.dialect.real_clock.now())).scalar_one()
    return now


def lease_of_another(tx: Transaction, name: str, identity: str) -> float:
    """The seconds until the lease of another node than this one ends.

    Negative if it has ended, minus infinity if there is none, and 0 if the last one was this node's own.
    """
    columns = (_leader.node, _leader.expires_at, tx.dialect.real_clock.now())
    tx.autocommit_next()
    row = tx.execute(select(*columns).where(_leader.name == name)).one_or_none()
    if row is None:
        return -math.inf
    node, expires_at, now = row
    return 0.0 if node == identity else (expires_at - now).total_seconds()


def elect(tx: Transaction, name: str, identity: str, lease: float) -> float | None:
    """Make a node the leader of an instance for `lease` seconds, or extend its lease.

    Returns None on success, else the seconds until the lease of the present leader ends.
    """
    parameters = {"instance": name, "identity": identity, "lease": lease}
    # In a longer transaction, a node that is frozen would keep the row locked, and stop all elections.
    tx.autocommit_next()
    if tx.execute(_elect_statement(tx.dialect.real_clock), parameters).scalar() is not None:
        return None
    statement = select(_leader.expires_at, tx.dialect.real_clock.now()).where(_leader.name == name)
    row = tx.execute(statement).one_or_none()
    if row is None:
        return 0.0
    expires_at: datetime
    now: datetime
    expires_at, now = row
    return max(0.0, (expires_at - now).total_seconds())


@functools.cache
def _elect_statement(dialect: Dialect) -> Executable:
    lease = bindparam("lease", type_=Float)
    insert: Any = dialect.insert(_leaders).values(
        name=bindparam("instance", type_=Text),
        node=bindparam("identity", type_=Text),
        elected_at=dialect.now(),
        expires_at=dialect.now_plus(lease),
    )
    is_leader = _leader.node == insert.excluded.node
    return insert.on_conflict_do_update(  # type: ignore[no-any-return]
        index_elements=[_leader.name],
        set_={
            "node": insert.excluded.node,
            "elected_at": case((is_leader, _leader.elected_at), else_=insert.excluded.elected_at),
            "expires_at": insert.excluded.expires_at,
        },
        where=or_(is_leader, _leader.expires_at <= dialect.now()),
    ).returning(_leader.node)


def resign(tx: Transaction, name: str, identity: str) -> None:
    """End a node's lease, if it still leads the instance."""
    tx.autocommit_next()
    tx.execute(delete(_leaders).where(_leader.name == name, _leader.node == identity))
