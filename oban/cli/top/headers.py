"""The lines above and below the tables of `oban top`, and its help."""

from typing import Any

from rich.text import Text

from oban.amounts import counted
from oban.cli.top.snapshot import Snapshot
from oban.cli.top.tables import EXECUTING, FAILURES, QUEUES, number
from oban.error_texts import log_safe


def header(snapshot: Snapshot, width: int, interval: float, filter_: str, problem: str) -> Text:
    """The two lines of the header."""
    return Text("\n", end="").join(
        [_first(snapshot, width), _second(snapshot, width, interval, filter_, problem)]
    )


def _first(snapshot: Snapshot, width: int) -> Text:
    clock = f"{snapshot.at:%H:%M:%S} UTC"
    left = Text.assemble(("oban top", "bold"), "  ", (log_safe(snapshot.instance, 40), "cyan"), "  ")
    left.append(log_safe(snapshot.database))
    left.truncate(max(0, width - len(clock) - 2), overflow="ellipsis", pad=True)
    return left.append(f"  {clock}")


def _second(snapshot: Snapshot, width: int, interval: float, filter_: str, problem: str) -> Text:
    if problem:
        line = Text(f"{log_safe(problem, 500)}; trying again", style="bold red")
    else:
        parts = [*summary(snapshot), Text(f"every {interval:g} s")]
        if filter_:
            # Nothing else on the screen explains why something is missing.
            parts.insert(0, Text(f"filter: {log_safe(filter_, 40)}", style="bold yellow"))
        line = _joined(parts)
        while line.cell_len > width and len(parts) > 1:
            parts.pop()
            line = _joined(parts)
    line.truncate(width, overflow="ellipsis")
    return line


def _joined(parts: list[Text]) -> Text:
    return Text(" · ", style="dim").join(parts)


def summary(snapshot: Snapshot) -> list[Text]:
    """Leader, nodes, and how much runs."""
    nodes = sum(row.alive for row in snapshot.nodes)
    running = sum(row.executing for row in snapshot.queues)
    places = sum(row.places for row in snapshot.nodes if row.alive)
    done = sum(row.completed_per_second for row in snapshot.queues)
    leader = snapshot.leader
    of = f" of {number(places)}" if places else ""
    return [
        Text("no leader", style="red" if nodes else "dim")
        if leader is None
        else Text(f"leader {log_safe(leader, 30)}"),
        Text(counted(nodes, "node")),
        Text(f"{number(running)}{of} executing"),
        Text(f"{done:.1f} done/s"),
    ]


_GENERAL = (("/", "filter"), ("s", "sort"), ("i", "interval"), ("q", "quit"))
_OF_QUEUES = (("p", "pause"), ("u", "resume"), ("+ -", "scale"))
_OF_JOBS = (("Enter", "details"), ("c", "cancel"), ("r", "retry"), ("d", "delete"))


def _keys(pairs: Any) -> Text:
    return Text("  ").join(Text.assemble((key, "bold"), f" {word}") for key, word in pairs)


DETAILS_KEYS = _keys((("Esc", "back"), ("↑ ↓", "scroll"), *_OF_JOBS[1:]))


def keys(kind: Any, width: int) -> Text:
    """The keys for the table that has the focus, as many as fit."""
    own = _OF_QUEUES if kind is QUEUES else _OF_JOBS if kind in (EXECUTING, FAILURES) else ()
    pairs = [("?", "help"), ("Tab", "next"), *own, *_GENERAL]
    while len(pairs) > 1 and _keys(pairs).cell_len > width:
        # `?` lists all of them.
        pairs.pop(1 if pairs[1][0] == "Tab" else -1)
    return _keys(pairs)


_HELP = (
    ("Move", (("Tab, →", "the next table"), ("Shift+Tab, ←", "the table before"),
              ("↑ ↓, k j", "the row above or below"), ("PgUp PgDn", "a page up or down"),
              ("Home End", "the first or the last row"))),
    ("A job (executing, or failed)", (("Enter", "its args, errors, attempts, and why it does not run"),
              ("c", "cancel it"), ("r", "retry it"), ("d", "delete it"))),
    ("A queue, on all nodes", (("p", "pause it"), ("u", "resume it"),
              ("+ -", "run one more, or one less, of its jobs at once on each node"))),
    ("The view", (("/", "show some queues and workers only; Escape shows all"),
              ("s", "sort the table by the next column, which ▾ marks"),
              ("i", "set the seconds between two refreshes"),
              ("q, Ctrl+C", "quit"))),
)  # fmt: skip


def _help() -> Text:
    text = Text()
    for title, rows in _HELP:
        text.append(f"\n{title}\n", style="bold")
        for key, what in rows:
            text.append(f"  {key:<14}", style="cyan").append(f"{what}\n")
    return text


HELP = _help()
