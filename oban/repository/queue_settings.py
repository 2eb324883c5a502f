"""What was said about queues: stored for nodes that are away, or that restart, and looked up by each.

The last word about a queue on a node counts, field by field (`running`, `limit`, `paused`), whether
it was said about this queue or all, on this node or all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, cast

from sqlalchemy import ColumnElement, Row, and_, delete, or_, select, update

from oban import fields
from oban.config import MAX_LIMIT, QueueOptions, check_name
from oban.database.transaction import Transaction
from oban.errors import ConfigError
from oban.models import Producer, Queue

_queues = Queue.__table__
_said = _queues.c
_KEY = ("name", "queue", "node")
_FIELDS = ("running", "limit", "paused")

#: Stands for all queues, in rows and in signals.
ALL = "*"
ANY_NODE = "any"
ACTIONS = ("pause", "resume", "start", "stop", "scale")
#: Announces that the very next signal is stored already, which it carries. That one has no mark of its
#: own: others fail on a key that they do not know, and pass over an action that they do not know.
STORED = "stored"


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """One queue on one node, as it is there or was at the node's last heartbeat.

    `limit` is None where another implementation does not say it. `paused` means that nothing is
    fetched: also for a queue that was stopped, as long as its last jobs run. `running` holds the ids
    of the jobs that run. `updated_at` is the time of the heartbeat; None for a queue of this node.
    """

    queue: str
    node: str
    limit: int | None
    paused: bool
    running: tuple[int, ...]
    started_at: datetime
    updated_at: datetime | None
    uuid: str


class QueueCommand(NamedTuple):
    """Something said about a queue or `ALL`, on a node or all of them (None)."""

    action: str
    queue: str
    node: str | None
    said: dict[str, Any]

    @classmethod
    def make(
        cls,
        action: str,
        queue: object,
        node: object = None,
        *,
        limit: object = 10,
        paused: object = False,
    ) -> "QueueCommand":
        """Checked: raises `InvalidJob` for the queue's name, else `ConfigError`."""
        name = ALL if queue == ALL and action in ("pause", "resume") else fields.queue(queue)
        if node is not None:
            check_name("node", node)
        said: dict[str, Any]
        match action:
            case "pause" | "resume":
                said = {"paused": action == "pause"}
            case "stop":
                said = {"running": False}
            case "scale" if limit is None:
                said = {"limit": 0}
            case "scale":
                said = {"limit": _limit(limit)}
            case "start":
                if not isinstance(paused, bool):
                    raise ConfigError(f"paused must be True or False, not {paused!r}")
                said = {"running": True, "limit": _limit(limit), "paused": paused}
            case _:
                raise ConfigError(f"{action!r} is no action; known are {', '.join(ACTIONS)}")
        return cls(action, name, cast(str | None, node), said)

    def signal(self, name: str) -> dict[str, Any]:
        """How it is announced, in the form that other implementations understand."""
        ident = ANY_NODE if self.node is None else f"{name}.{self.node}"
        payload = {"action": self.action, "queue": self.queue, "ident": ident}
        if self.said.get("limit"):
            payload["limit"] = self.said["limit"]
        if self.action == "start":
            payload["paused"] = self.said["paused"]
        return payload


def _limit(value: Any) -> int:
    return QueueOptions(limit=value).limit


class QueueState(NamedTuple):
    """How a queue shall run on a node."""

    limit: int
    paused: bool


def store_command(tx: Transaction, name: str, change: QueueCommand) -> None:
    """Keep what is said, and announce it to the nodes of the instance."""
    _serialize_writers(tx, name)
    _store(tx, name, change)
    _drop_silent(tx, name)
    signal = change.signal(name)
    tx.notify("signal", [{"action": STORED, "signal": signal}, signal])


def store_received(
    tx: Transaction,
    name: str,
    node: str,
    configured: Mapping[str, QueueOptions],
    changes: Iterable[QueueCommand],
) -> None:
    """Keep, for one node, what others said that store nothing.

    What is about a queue that the node neither has nor starts changes nothing there: not kept.
    """
    _serialize_writers(tx, name)
    known = {ALL, *configured, *wanted(tx, name, node, configured)}
    for change in changes:
        if change.action == "start":
            known.add(change.queue)
        if change.queue in known:
            _store(tx, name, change._replace(node=node))
    _drop_silent(tx, name)


def _serialize_writers(tx: Transaction, name: str) -> None:
    """Whoever changes something waits here for the others, so that none overlooks another's rows."""
    _put(tx, name, ALL, "", {})


def _store(tx: Transaction, name: str, change: QueueCommand) -> None:
    node = change.node or ""
    about_all = change.queue == ALL
    if not node:
        # Nothing that was said about a single node before counts any more.
        overruled = _said.node != "" if not about_all else or_(_said.node != "", _said.queue != ALL)
        if not about_all:
            overruled = and_(overruled, _said.queue == change.queue)
        _clear(tx, name, change.said, overruled)
    elif about_all:
        _clear(tx, name, change.said, _said.node == node)
        # On this node, it also overrules what was said about single queues on all nodes.
        everywhere = and_(_said.node == "", _said.queue != ALL, _said.paused.is_not(None))
        statement = select(_said.queue).where(_said.name == name, everywhere)
        for queue in tx.execute(statement).scalars().all():
            _put(tx, name, queue, node, change.said)
    _put(tx, name, change.queue, node, change.said)


def _put(tx: Transaction, name: str, queue: str, node: str, said: Mapping[str, Any]) -> None:
    dialect = tx.dialect
    values = {"name": name, "queue": queue, "node": node, "updated_at": dialect.now(), **said}
    insert: Any = dialect.insert(_queues).values(**values)
    given = {column: insert.excluded[column] for column in ("updated_at", *said)}
    tx.execute(insert.on_conflict_do_update(index_elements=_KEY, set_=given))


def _clear(tx: Transaction, name: str, said: Mapping[str, Any], where: ColumnElement[bool]) -> None:
    statement = update(_queues).where(_said.name == name, where).values(dict.fromkeys(said))
    tx.execute(statement)


def _drop_silent(tx: Transaction, name: str) -> None:
    silent = and_(*(_said[field].is_(None) for field in _FIELDS))
    kept = and_(_said.queue == ALL, _said.node == "")
    tx.execute(delete(_queues).where(_said.name == name, silent, ~kept))


def wanted(
    tx: Transaction, name: str, node: str, configured: Mapping[str, QueueOptions]
) -> dict[str, QueueState]:
    """The queues that a node shall run: those configured, overlaid by what was said."""
    columns = [_said[column] for column in ("queue", "node", *_FIELDS)]
    statement = select(*columns).where(_said.name == name, _said.node.in_(["", node]))
    rows = {(row.queue, row.node): row for row in tx.execute(statement)}
    named = sorted({queue for queue, _ in rows} - {ALL})
    result = {}
    for queue in dict.fromkeys([*configured, *named]):
        of_queue = [rows.get((queue, node)), rows.get((queue, ""))]
        running = _first(of_queue, "running")
        if queue in configured if running is None else running:
            limit = _first(of_queue, "limit") or 0
            if limit <= 0:
                limit = configured.get(queue, QueueOptions()).limit
            paused = _first([*of_queue, rows.get((ALL, node)), rows.get((ALL, ""))], "paused")
            result[queue] = QueueState(min(limit, MAX_LIMIT), bool(paused))
    return result


def _first(rows: Sequence[Row[Any] | None], field: str) -> Any:
    """What the first of some rows says that says anything."""
    given = (getattr(row, field) for row in rows if row is not None)
    return next((value for value in given if value is not None), None)


def producers(tx: Transaction, name: str, queue: str | None = None) -> list[QueueInfo]:
    """The queues of all nodes of an instance, as of their last heartbeats; by queue, node and start."""
    statement = select(Producer).where(Producer.name == name)
    if queue is not None:
        statement = statement.where(Producer.queue == queue)
    statement = statement.order_by(Producer.queue, Producer.node, Producer.started_at, Producer.uuid)
    return [_info(row) for row in tx.orm_execute(statement).scalars()]


def _info(row: Producer) -> QueueInfo:
    # Other implementations keep there what they like.
    meta = row.meta if isinstance(row.meta, dict) else {}
    limit, running = meta.get("local_limit"), meta.get("running")
    return QueueInfo(
        queue=row.queue,
        node=row.node,
        limit=limit if isinstance(limit, int) and not isinstance(limit, bool) else None,
        paused=meta.get("paused") is True,
        running=tuple(id_ for id_ in running if isinstance(id_, int)) if isinstance(running, list) else (),
        started_at=row.started_at,
        updated_at=row.updated_at,
        uuid=str(row.uuid),
    )
