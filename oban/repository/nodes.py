"""The nodes of an instance, as their heartbeats describe them."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select

from oban.database.transaction import Transaction
from oban.models import Leader, Producer
from oban.repository import cluster
from oban.repository.cluster import QueueInfo

_leader = Leader.__table__.c
_producer = Producer.__table__.c


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A process that runs queues of an instance, as it was at its last heartbeat.

    Nodes of other implementations report only their name, their queues and their heartbeat.

    Attributes:
        node: Its name. Several processes can have the same one.
        pid: Its process id on its machine; None if it does not report it.
        version: Its version of this library; None if it does not report it.
        python: Its version of Python; None if it does not report it.
        alive: Whether its last heartbeat is within its lease. If not, its jobs are rescued.
        updated_at: The time of its last heartbeat, by the database's clock.
        lease: The seconds without a heartbeat after which it counts as dead.
        clock_skew: By how many seconds its clock was ahead of the database's at its last heartbeat, negative
            if it was behind; None if it does not report it.
        listener: How it notices new jobs: `listen`, `data_version` or `poll`; None if it does not report it.
        hears: Whether notifications reach it; None if it does not know, or only polls.
        workers: The names and aliases of its workers, sorted; None if it does not report them, because
            there are too many.
        queues: The queues that it runs, by name.
        heartbeat_age: How many seconds ago its last heartbeat was, by the database's clock.
        leader: Whether it, or another process of its name, leads the instance.
    """

    node: str
    pid: int | None
    version: str | None
    python: str | None
    alive: bool
    updated_at: datetime
    lease: float
    clock_skew: float | None
    listener: str | None
    hears: bool | None
    workers: tuple[str, ...] | None
    queues: tuple[QueueInfo, ...]
    heartbeat_age: float
    leader: bool


def list_nodes(tx: Transaction, name: str) -> list[NodeInfo]:
    """The nodes of an instance, by name and process id, also those that died without a rescue so far."""
    now = cluster.database_time(tx)
    leader = leader_name(tx, name)
    # Columns, as instances of the model take three times as long to make.
    rows = sorted(tx.execute(select(*_producer).where(_producer.name == name)), key=_process)
    return [_node_info(list(group), now, leader) for _, group in itertools.groupby(rows, key=_process)]


def leader_name(tx: Transaction, name: str) -> str | None:
    """The name of the node that leads an instance; None if none does."""
    is_leader = (_leader.name == name, _leader.expires_at > tx.dialect.real_clock.now())
    identity: str | None = tx.execute(select(_leader.node).where(*is_leader)).scalar()
    if identity is None:
        return None
    node, _, last = identity.rpartition("/")
    try:
        UUID(last)
    except ValueError:
        # Other implementations store the name alone.
        return identity
    return node or identity


def _process(row: Row[Any]) -> tuple[str, int]:
    return row.node, _value(_meta(row), "pid", int) or 0


def _node_info(rows: Sequence[Row[Any]], now: datetime, leader: str | None) -> NodeInfo:
    # A queue that has stopped since has an older heartbeat.
    last = max(rows, key=lambda row: row.updated_at)
    meta = _meta(last)
    lease, age = cluster.lease_of(meta, 0.0), (now - last.updated_at).total_seconds()
    listener = _value(meta, "listener", dict) or {}
    return NodeInfo(
        node=last.node,
        pid=_value(meta, "pid", int),
        version=_value(meta, "version", str),
        python=_value(meta, "python", str),
        alive=age < lease,
        updated_at=last.updated_at,
        lease=lease,
        clock_skew=_skew(meta, last.updated_at),
        listener=_value(listener, "kind", str),
        hears=_value(listener, "hears", bool),
        workers=_names(_value(meta, "workers", list)),
        queues=tuple(sorted(map(cluster.queue_info, rows), key=lambda info: (info.queue, info.started_at))),
        heartbeat_age=age,
        leader=age < lease and last.node == leader,
    )


def _meta(row: Row[Any]) -> dict[str, Any]:
    # Other implementations can store anything there.
    return row.meta if isinstance(row.meta, dict) else {}


def _value(values: dict[str, Any], key: str, type_: type) -> Any:
    """A value of exactly this type; None for another one."""
    value = values.get(key)
    return value if type(value) is type_ else None


def _names(values: Iterable[Any] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(sorted(name for name in values if isinstance(name, str)))


def _skew(meta: dict[str, Any], updated_at: datetime) -> float | None:
    try:
        at = datetime.fromisoformat(_value(meta, "clock", str) or "")
        return None if at.tzinfo is None else (at.astimezone(UTC) - updated_at).total_seconds()
    except (ValueError, OverflowError):
        return None
