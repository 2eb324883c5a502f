"""The tables of `oban top`: their columns, their cells, and the orders of their rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rich.text import Text

from oban.amounts import short_duration
from oban.cli import output
from oban.cli.columns import Column
from oban.cli.top.snapshot import ExecutingRow, FailureRow, JobProgress, NodeRow, QueueRow, Snapshot
from oban.error_texts import log_safe

RowT = TypeVar("RowT")

_BAR = 12
#: The part of its lease after which a heartbeat is late.
_LATE = 0.5


@dataclass(frozen=True, slots=True)
class Sort(Generic[RowT]):
    """An order of rows, which the heading of the column with this index shows."""

    column: int
    key: Callable[[RowT], Any]


@dataclass(frozen=True, slots=True)
class Kind(Generic[RowT]):
    """One of the tables.

    Args:
        name: What its rows are.
        columns: Its columns. The heading of the first one is the title of the table.
        rows: The rows in a snapshot.
        key: What identifies a row in the next snapshot.
        cells: The texts of a row.
        sorts: The orders that the rows can be in, the usual one first.
        empty: What to show instead of rows.
    """

    name: str
    columns: tuple[Column, ...]
    rows: Callable[[Snapshot], Sequence[RowT]]
    key: Callable[[RowT], str | int]
    cells: Callable[[RowT], tuple[Text, ...]]
    sorts: tuple[Sort[RowT], ...]
    empty: str


def number(value: float) -> str:
    """A number in at most six characters."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= (size if unit != "k" else 10_000):
            return f"{value / size:.1f}{unit}"
    return f"{value:.0f}"


def rate(value: float) -> str:
    return "-" if value <= 0 else f"{value:.1f}" if value < 100 else number(value)


def _text(value: object, style: str = "") -> Text:
    return Text(log_safe(value), style=style)


def _count(row: QueueRow, state: str, style: str = "") -> Text:
    value: int = getattr(row, state)
    more = "+" if state in row.truncated else ""
    return Text(f"{number(value)}{more}", style=style if value else "dim")


def _percentage(progress: JobProgress) -> float | None:
    return min(1.0, progress.done / progress.total) if progress.total else None


def bar(progress: JobProgress | None) -> Text:
    """How far a job is, as a bar if it has told the total."""
    if progress is None:
        return Text("")
    share = _percentage(progress)
    if share is None:
        return Text(number(progress.done))
    filled = round(share * _BAR)
    made = Text("━" * filled, style="green")
    made.append("─" * (_BAR - filled), style="dim")
    made.append(f" {share:4.0%}", style="")
    return made


def _limit(row: QueueRow) -> str:
    if not row.limits:
        return "-"
    low, high = min(row.limits), max(row.limits)
    return f"{low}" if low == high else f"{low}-{high}"


def queue_state(row: QueueRow) -> Text:
    if not row.nodes:
        return Text("idle", style="red" if row.available else "dim")
    if row.paused:
        some = "" if row.paused == row.nodes else f" {row.paused}/{row.nodes}"
        return Text(f"paused{some}", style="yellow")
    return Text("running", style="green")


def _queue(row: QueueRow) -> tuple[Text, ...]:
    return (
        _text(row.queue),
        queue_state(row),
        _count(row, "available"),
        _count(row, "executing", "yellow"),
        _count(row, "retryable", "magenta"),
        _count(row, "scheduled"),
        Text(short_duration(row.oldest), style="" if row.oldest is not None else "dim"),
        Text(_limit(row)),
        Text(str(row.nodes), style="" if row.nodes else "dim"),
        Text(rate(row.completed_per_second), style="" if row.completed_per_second > 0 else "dim"),
    )


def _executing(row: ExecutingRow) -> tuple[Text, ...]:
    return (
        _text(row.worker),
        Text(str(row.id)),
        _text(row.queue),
        _text(row.node or "-"),
        Text(f"{row.attempt}/{row.max_attempts}", style="dim" if row.attempt <= 1 else ""),
        Text(short_duration(row.running_for)),
        bar(row.progress),
        _text((row.progress and row.progress.message) or ""),
    )


def _failure(row: FailureRow) -> tuple[Text, ...]:
    return (
        _text(row.worker),
        Text(str(row.id)),
        _text(row.queue),
        output.state(row.state),
        Text(f"{row.attempt}/{row.max_attempts}"),
        Text(short_duration(row.age)),
        _text(row.error),
    )


def _heartbeat(row: NodeRow) -> Text:
    late = row.heartbeat >= row.lease * _LATE
    style = "yellow" if row.alive and late else "" if row.alive else "red"
    return Text(short_duration(row.heartbeat), style=style)


def _node(row: NodeRow) -> tuple[Text, ...]:
    return (
        _text(row.node),
        Text("leader" if row.leader else "" if row.alive else "dead", style="cyan" if row.alive else "red"),
        _heartbeat(row),
        Text(f"{row.running}/{row.places}"),
        Text(short_duration(row.up)),
        Text("-" if row.pid is None else str(row.pid)),
        _text(", ".join(map(log_safe, row.queues))),
    )


def _number(column: str, rank: int = 0) -> Column:
    return Column(column, rank=rank, right=True)


QUEUES: Kind[QueueRow] = Kind(
    "queues",
    (
        Column("QUEUES", least=12),
        Column("STATE"),
        _number("AVAIL"),
        _number("EXEC"),
        _number("RETRY", 2),
        _number("SCHED", 3),
        _number("OLDEST", 1),
        _number("LIMIT"),
        _number("NODES", 4),
        _number("DONE/S", 1),
    ),
    rows=lambda snapshot: snapshot.queues,
    key=lambda row: row.queue,
    cells=_queue,
    sorts=(
        Sort(0, lambda row: row.queue),
        Sort(2, lambda row: (-row.available, row.queue)),
        Sort(3, lambda row: (-row.executing, row.queue)),
        Sort(4, lambda row: (-row.retryable, row.queue)),
        Sort(6, lambda row: (-(row.oldest or -1.0), row.queue)),
        Sort(9, lambda row: (-row.completed_per_second, row.queue)),
    ),
    empty="no queue has jobs, and no node runs one",
)

EXECUTING: Kind[ExecutingRow] = Kind(
    "jobs",
    (
        Column("EXECUTING", least=14, tail=True),
        _number("ID"),
        Column("QUEUE", rank=2, least=8),
        Column("NODE", rank=3, least=8),
        _number("TRY", 2),
        _number("FOR"),
        Column("PROGRESS", rank=1),
        Column("MESSAGE", rank=4, least=12),
    ),
    rows=lambda snapshot: snapshot.executing,
    key=lambda row: row.id,
    cells=_executing,
    sorts=(
        Sort(5, lambda row: (-(row.running_for or 0.0), row.id)),
        Sort(0, lambda row: (row.worker, row.id)),
        Sort(2, lambda row: (row.queue, row.id)),
        Sort(6, lambda row: (-((row.progress and _percentage(row.progress)) or 0.0), row.id)),
    ),
    empty="no job is executing",
)

FAILURES: Kind[FailureRow] = Kind(
    "failures",
    (
        Column("FAILURES", least=14, tail=True),
        _number("ID"),
        Column("QUEUE", rank=4, least=8),
        Column("STATE", rank=1),
        _number("TRY", 3),
        _number("AGO"),
        Column("ERROR", least=18),
    ),
    rows=lambda snapshot: snapshot.failures,
    key=lambda row: row.id,
    cells=_failure,
    sorts=(
        Sort(5, lambda row: (row.age if row.age is not None else 1e12, row.id)),
        Sort(0, lambda row: (row.worker, row.id)),
        Sort(3, lambda row: (row.state, row.age or 0.0)),
    ),
    empty="no job has failed",
)

NODES: Kind[NodeRow] = Kind(
    "nodes",
    (
        Column("NODES", least=12),
        Column("ROLE"),
        _number("HEARTBEAT"),
        _number("RUNNING", 1),
        _number("UP", 3),
        _number("PID", 4),
        Column("QUEUES", rank=2, least=10),
    ),
    rows=lambda snapshot: snapshot.nodes,
    key=lambda row: f"{row.node}/{row.pid}",
    cells=_node,
    sorts=(
        Sort(0, lambda row: (row.node, row.pid or 0)),
        Sort(2, lambda row: (-row.heartbeat, row.node)),
        Sort(3, lambda row: (-row.running, row.node)),
    ),
    empty="no node runs queues: start one with `oban start`",
)

KINDS: tuple[Kind[Any], ...] = (QUEUES, EXECUTING, FAILURES, NODES)
