"""`oban nodes`: the nodes of an instance, as of their last heartbeats."""

import click
from rich.text import Text

from oban.amounts import short_duration
from oban.cli import output
from oban.cli.columns import Column
from oban.cli.documents import DOCUMENTS
from oban.cli.instance import Instance, of_instance
from oban.cli.options import with_target
from oban.repository.nodes import NodeInfo

_COLUMNS = (
    # Other commands take this name, so it is shortened last.
    Column("NODE"),
    Column("STATUS"),
    Column("HEARTBEAT", right=True),
    Column("RUNNING", rank=1, right=True),
    Column("QUEUES", rank=2, least=24),
    Column("CLOCK", rank=3, right=True),
    Column("LISTENER", rank=4),
    Column("VERSION", rank=5),
    Column("PID", rank=6, right=True),
)
#: Seconds by which a clock can be off before it is shown as a warning.
_SKEW = 2.0


@click.command()
@with_target
@of_instance
@output.json_option
def nodes(instance: Instance, as_json: bool) -> None:
    """List the nodes that run queues, as of their last heartbeats.

    HEARTBEAT is how long ago the last one was. A node is dead if that is longer than its lease; its jobs are
    rescued. CLOCK is how far its clock is ahead of the database's. TARGET is the same as --app.
    """
    found = instance.operate(lambda operations: operations.list_nodes())
    if as_json:
        output.document(DOCUMENTS["nodes"], found)
    elif found:
        output.table(_COLUMNS, map(_cells, found))
    else:
        click.echo(f"No node of the instance {instance.name} runs queues: start one with `oban start`.")


def _cells(node: NodeInfo) -> tuple[str | Text, ...]:
    style = "red" if not node.alive else "green"
    status = "dead" if not node.alive else "leader" if node.leader else "alive"
    queues = ", ".join(
        f"{info.queue} {'paused' if info.paused else '?' if info.limit is None else info.limit}"
        for info in node.queues
    )
    return (
        node.node,
        Text(status, style=style),
        short_duration(node.heartbeat_age),
        str(sum(len(info.running) for info in node.queues)),
        queues or "-",
        _clock(node.clock_skew),
        _listener(node),
        node.version or "-",
        "-" if node.pid is None else str(node.pid),
    )


def _clock(skew: float | None) -> Text:
    if skew is None:
        return Text("-")
    return Text(f"{skew:+z.1f}s", style="red" if abs(skew) >= _SKEW else "")


def _listener(node: NodeInfo) -> str | Text:
    if node.listener is None:
        return "-"
    return Text("deaf", style="red") if node.hears is False else node.listener
