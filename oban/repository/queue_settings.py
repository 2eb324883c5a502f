"""Settings of queues: commands such as pause and scale, stored so that nodes apply them when they start.

For each node and each of `running`, `limit` and `paused`, the most recent command wins, whether it named one
queue or all of them, one node or all of them. The start of a node whose configuration pauses a queue counts
as a command to pause it there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias, cast

from sqlalchemy import ColumnElement, Row, and_, delete, or_, select, true, update

from oban import display, fields
from oban.config import MAX_LIMIT, QueueOptions, check_bool, check_name
from oban.database.transaction import Transaction
from oban.errors import ConfigError
from oban.models import Queue

_queues = Queue.__table__
_setting = _queues.c
_KEY = ("name", "queue", "node")
_FIELDS = ("running", "limit", "paused")

#: Stands for all queues, in rows and in signals.
ALL = "*"
#: Begins the `queue` of a row that pauses a queue on a node since the node was started, instead of an earlier
#: command to resume it. No queue has such a name.
SINCE_START = "start:"
#: Stands for all nodes, in signals.
ANY_NODE = "any"
ACTIONS = ("pause", "resume", "start", "stop", "scale")
#: The action of a signal that precedes, and contains, one whose command is stored already. That one cannot
#: have a mark of its own: oban-py ignores actions that it does not know, but fails on unknown keys.
STORED = "stored"


class QueueCommand(NamedTuple):
    """Changes settings of a queue or of `ALL`, on one node or, without `node`, on all nodes."""

    action: str
    queue: str
    node: str | None
    #: The new values of some of `running`, `limit` (0: as configured) and `paused`.
    settings: dict[str, Any]

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
        """Check the values of a command; raises `InvalidJob` for the queue's name, else `ConfigError`."""
        name = ALL if queue == ALL and action in ("pause", "resume") else fields.queue(queue)
        if node is not None:
            check_name("node", node)
        settings: dict[str, Any]
        match action:
            case "pause" | "resume":
                settings = {"paused": action == "pause"}
            case "stop":
                settings = {"running": False}
            case "scale":
                settings = {"limit": 0 if limit is None else _check_limit(limit)}
            case "start":
                check_bool("paused", paused)
                settings = {"running": True, "limit": _check_limit(limit), "paused": paused}
            case _:
                raise ConfigError(f"{display.shown(action)} is not an action; known are {', '.join(ACTIONS)}")
        return cls(action, name, cast(str | None, node), settings)

    def signal(self, name: str) -> dict[str, Any]:
        """The notification for the nodes of an instance, as other implementations also send it."""
        ident = ANY_NODE if self.node is None else f"{name}.{self.node}"
        payload = {"action": self.action, "queue": self.queue, "ident": ident}
        if self.settings.get("limit"):
            payload["limit"] = self.settings["limit"]
        if self.action == "start":
            payload["paused"] = self.settings["paused"]
        return payload


def _check_limit(value: Any) -> int:
    return QueueOptions(limit=value).limit


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The settings that commands stored for a queue on one node or on all nodes. None means not set.

    Attributes:
        queue: The name of the queue; `*` stands for all queues.
        node: The name of the node; None stands for all nodes.
        running: Whether the queue was started or stopped.
        limit: How many jobs run at once; 0 if `scale_queue(…, None)` has restored the configured limit.
        paused: Whether the queue was paused or resumed.
        updated_at: When the settings were last changed.
    """

    queue: str
    node: str | None
    running: bool | None
    limit: int | None
    paused: bool | None
    updated_at: datetime


#: Rows of `oban_queues` by queue and node.
_Rows: TypeAlias = Mapping[tuple[str, str], Row[Any]]


class QueueState(NamedTuple):
    """How a node runs a queue."""

    limit: int
    paused: bool


def load_states(
    tx: Transaction, name: str, node: str, configured: Mapping[str, QueueOptions]
) -> dict[str, QueueState]:
    """The queues that a node runs: those that it is configured with, changed by the settings."""
    tx.autocommit_next()
    rows = _load_rows(tx, name, node)
    with_settings = sorted({queue for queue, _ in rows if not queue.startswith((ALL, SINCE_START))})
    states = {}
    for queue in dict.fromkeys([*configured, *with_settings]):
        own = [rows.get((queue, node)), rows.get((queue, ""))]
        running = _first_set(own, "running")
        if queue in configured if running is None else running:
            options = configured.get(queue, QueueOptions())
            limit = _first_set(own, "limit")
            since_start = [rows.get((SINCE_START + queue, node))]
            paused = _first_set([*since_start, *_pausing(rows, queue, node)], "paused")
            states[queue] = QueueState(
                # SQLite stores values of any type, if another program writes them.
                limit=min(limit, MAX_LIMIT) if isinstance(limit, int) and limit > 0 else options.limit,
                paused=options.paused if paused is None else paused,
            )
    return states


def list_settings(tx: Transaction, name: str, queue: str | None = None) -> list[QueueSettings]:
    """The stored settings of an instance, or those of one queue, by queue and node."""
    statement = select(*(_setting[column] for column in ("queue", "node", *_FIELDS, "updated_at"))).where(
        _setting.name == name
    )
    if queue is not None:
        statement = statement.where(_setting.queue.in_([queue, SINCE_START + queue]))
    found: dict[tuple[str, str], QueueSettings] = {}
    # SQLite stores values of any type in a column, if another program writes them.
    rows = [row for row in tx.execute(statement) if isinstance(row.queue, str) and isinstance(row.node, str)]
    # In this order, the row of a command precedes the one since a start, which takes precedence.
    for row in sorted(rows, key=lambda row: (row.queue.startswith(SINCE_START), *row[:2])):
        of_queue = row.queue.removeprefix(SINCE_START)
        limit = row.limit if isinstance(row.limit, int) else None
        own = QueueSettings(of_queue, row.node or None, row.running, limit, row.paused, row.updated_at)
        if before := found.get((of_queue, row.node)):
            latest = max(own.updated_at, before.updated_at)
            own = replace(before, paused=own.paused, updated_at=latest)
        if (own.running, own.limit, own.paused) != (None, None, None):
            found[of_queue, row.node] = own
    return [found[key] for key in sorted(found)]


def _load_rows(tx: Transaction, name: str, node: str) -> _Rows:
    """The rows that apply to a node, by queue and node."""
    columns = [_setting[column] for column in ("queue", "node", *_FIELDS)]
    statement = select(*columns).where(_setting.name == name, _setting.node.in_(["", node]))
    return {(row.queue, row.node): row for row in tx.execute(statement)}


def _pausing(rows: _Rows, queue: str, node: str) -> list[Row[Any] | None]:
    """The rows of commands that can pause a queue on a node. The first one that sets `paused` decides."""
    return [rows.get(key) for key in ((queue, node), (queue, ""), (ALL, node), (ALL, ""))]


def _first_set(rows: Sequence[Row[Any] | None], field: str) -> Any:
    """The first value of `field` among the rows that is not NULL."""
    values = (getattr(row, field) for row in rows if row is not None)
    return next((value for value in values if value is not None), None)


def store_start(tx: Transaction, name: str, node: str, configured: Mapping[str, QueueOptions]) -> None:
    """Pause the queues that a node is configured to start paused, whatever earlier commands say."""
    tx.dialect.begin_write(tx.connection())
    rows = _load_rows(tx, name, node)
    # Without a command, the configuration applies, and a row for each node that ever started would pile up.
    resumed = {
        SINCE_START + queue
        for queue, options in configured.items()
        if options.paused and _first_set(_pausing(rows, queue, node), "paused") is False
    }
    before = {queue for queue, _ in rows if queue.startswith(SINCE_START)}
    if resumed == before:
        return
    _serialize_writers(tx, name)
    if outdated := before - resumed:
        on_node = and_(_setting.name == name, _setting.node == node)
        tx.execute(delete(_queues).where(on_node, _setting.queue.in_(outdated)))
    for queue in sorted(resumed):
        _upsert(tx, name, queue, node, {"paused": True})


def store_command(tx: Transaction, name: str, command: QueueCommand) -> None:
    """Store a command, and announce it to the nodes of the instance."""
    _serialize_writers(tx, name)
    _store(tx, name, command)
    _delete_empty(tx, name)
    signal = command.signal(name)
    tx.notify("signal", [{"action": STORED, "signal": signal}, signal])


def store_received(
    tx: Transaction,
    name: str,
    node: str,
    configured: Mapping[str, QueueOptions],
    commands: Iterable[QueueCommand],
) -> None:
    """Store, for one node, the commands of other implementations, which only send them.

    A command for a queue that the node does not have is ignored, unless it starts the queue.
    """
    _serialize_writers(tx, name)
    known = {ALL, *configured, *load_states(tx, name, node, configured)}
    for command in commands:
        if command.action == "start":
            known.add(command.queue)
        if command.queue in known:
            _store(tx, name, command._replace(node=node))
    _delete_empty(tx, name)


def _serialize_writers(tx: Transaction, name: str) -> None:
    """Lock a row that all commands of an instance lock, so that one at a time changes rows."""
    _upsert(tx, name, ALL, "", {})


def _store(tx: Transaction, name: str, command: QueueCommand) -> None:
    node, settings = command.node or "", command.settings
    is_for_all_queues = command.queue == ALL
    if "paused" in settings:
        since_start = SINCE_START + ("" if is_for_all_queues else command.queue)
        is_since_start = (
            _setting.queue.startswith(since_start) if is_for_all_queues else _setting.queue == since_start
        )
        on_nodes = _setting.node == node if node else true()
        tx.execute(delete(_queues).where(_setting.name == name, on_nodes, is_since_start))
    if not node:
        # It replaces what was set for single nodes.
        replaced = _setting.node != ""
        if is_for_all_queues:
            replaced = or_(replaced, _setting.queue != ALL)
        else:
            replaced = and_(replaced, _setting.queue == command.queue)
        _clear(tx, name, settings, replaced)
    elif is_for_all_queues:
        _clear(tx, name, settings, _setting.node == node)
        # On this node, it also takes precedence over what was set for single queues on all nodes.
        on_all_nodes = and_(_setting.node == "", _setting.queue != ALL, _setting.paused.is_not(None))
        statement = select(_setting.queue).where(_setting.name == name, on_all_nodes)
        for queue in tx.execute(statement).scalars().all():
            _upsert(tx, name, queue, node, settings)
    _upsert(tx, name, command.queue, node, settings)


def _upsert(tx: Transaction, name: str, queue: str, node: str, settings: Mapping[str, Any]) -> None:
    dialect = tx.dialect
    values = {"name": name, "queue": queue, "node": node, "updated_at": dialect.real_clock.now(), **settings}
    insert: Any = dialect.insert(_queues).values(**values)
    changed = {column: insert.excluded[column] for column in ("updated_at", *settings)}
    tx.execute(insert.on_conflict_do_update(index_elements=_KEY, set_=changed))


def _clear(tx: Transaction, name: str, settings: Iterable[str], condition: ColumnElement[bool]) -> None:
    """Set some settings to NULL."""
    tx.execute(update(_queues).where(_setting.name == name, condition).values(dict.fromkeys(settings)))


def _delete_empty(tx: Transaction, name: str) -> None:
    """Delete the rows that set nothing, except the one that `_serialize_writers` locks."""
    is_empty = and_(*(_setting[field].is_(None) for field in _FIELDS))
    is_lock = and_(_setting.queue == ALL, _setting.node == "")
    tx.execute(delete(_queues).where(_setting.name == name, is_empty, ~is_lock))
