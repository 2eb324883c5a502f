"""`oban queues`: list the queues of an instance, and command those of all its nodes or of one."""

from collections.abc import Iterable
from typing import Any

import click
from rich.text import Text

from oban.amounts import counted, short_duration
from oban.cli import output
from oban.cli.columns import Column
from oban.cli.documents import DOCUMENTS
from oban.cli.instance import Instance, of_instance
from oban.documents.queue_commands import QueueVerb
from oban.error_texts import log_safe
from oban.repository.queue_settings import ALL, QueueSettings
from oban.repository.stats import QueueStats, QueueStatus, Stats

COLUMNS = (
    # Other commands take this name, so it is shortened last.
    Column("QUEUE"),
    Column("STATUS"),
    Column("AVAILABLE", right=True),
    Column("EXECUTING", rank=1, right=True),
    Column("OLDEST", rank=2, right=True),
    Column("SCHEDULED", rank=4, right=True),
    Column("RETRYABLE", rank=4, right=True),
    Column("NODES", rank=5, right=True),
    Column("LIMIT", rank=5, right=True),
    Column("SETTINGS", rank=3, least=24),
    Column("DISCARDED", rank=6, right=True),
    Column("COMPLETED", rank=6, right=True),
    Column("CANCELLED", rank=7, right=True),
    Column("SUSPENDED", rank=7, right=True),
)
_STYLES: dict[QueueStatus, str] = {
    "running": "green",
    "paused": "yellow",
    "partly paused": "yellow",
    "idle": "",
}

count_limit_option = click.option(
    "--count-limit",
    type=click.IntRange(min=1),
    help="Count up to this many jobs of each queue and state, for very large tables (default: all).",
)
# The name `node` is that of a setting of nodes.
_node_option = click.option(
    "--node", "on_node", metavar="NAME", help="Only the node of this name (default: all nodes)."
)


@click.group()
def queues() -> None:
    """List, pause, resume, scale, start and stop queues."""


@queues.command("list")
@of_instance
@count_limit_option
@output.json_option
def list_(instance: Instance, count_limit: int | None, as_json: bool) -> None:
    """List the queues with their jobs and nodes.

    OLDEST is how long the oldest available job has been due. LIMIT is how many jobs all nodes together run at
    once. SETTINGS are what commands such as `oban queues pause` have stored. A queue is idle if no node that
    is alive runs it.
    """
    stats = instance.operate(lambda operations: operations.stats(count_limit))
    if as_json:
        output.document(DOCUMENTS["queues list"], [*stats.queues])
    elif stats.queues:
        output.table(COLUMNS, map(cells, stats.queues))
    else:
        click.echo("There are no queues: no jobs, no nodes and no stored commands.")
    if not as_json:
        _show_settings_of_all_queues(stats)


def cells(queue: QueueStats) -> tuple[str | Text, ...]:
    """The row of a queue, for `COLUMNS`."""

    def number(state: str) -> str:
        return f"{queue.counts[state]:,}{'+' if state in queue.truncated else ''}"

    return (
        queue.queue,
        Text(queue.status, style=_STYLES[queue.status]),
        number("available"),
        number("executing"),
        short_duration(queue.oldest_available_age),
        number("scheduled"),
        number("retryable"),
        str(len(queue.nodes)),
        "-" if queue.limit is None else f"{queue.limit:,}",
        settings_text(queue.settings) or "-",
        number("discarded"),
        number("completed"),
        number("cancelled"),
        number("suspended"),
    )


def settings_text(settings: Iterable[QueueSettings]) -> str:
    """What commands have stored, such as `paused, limit 5 on web-1`. What holds on all nodes names none."""
    texts = []
    for entry in settings:
        where = "" if entry.node is None else f" on {entry.node}"
        if entry.running is not None:
            texts.append(f"{'started' if entry.running else 'stopped'}{where}")
        if entry.paused is not None:
            texts.append(f"{'paused' if entry.paused else 'resumed'}{where}")
        if entry.limit is not None:
            texts.append(f"{f'limit {entry.limit}' if entry.limit else 'configured limit'}{where}")
    return ", ".join(texts)


def _show_settings_of_all_queues(stats: Stats) -> None:
    if stats.settings:
        click.echo(f"Stored for all queues: {log_safe(settings_text(stats.settings))}.")


@queues.command()
@click.argument("queue", required=False)
@click.option("--all", "all_queues", is_flag=True, help="All queues, also those that are started later.")
@_node_option
@click.option("--yes", is_flag=True, help="Do not ask for confirmation of --all.")
@of_instance
@output.json_option
def pause(
    queue: str | None, all_queues: bool, on_node: str | None, yes: bool, instance: Instance, as_json: bool
) -> None:
    """Let QUEUE fetch no more jobs until it is resumed. Executing jobs continue."""
    name = _one_or_all(queue, all_queues)
    if name == ALL:
        output.confirm(f"Pause all queues {_where(on_node)}?", yes=yes)
    _command(instance, name, on_node, as_json, "paused", "pause")


@queues.command()
@click.argument("queue", required=False)
@click.option("--all", "all_queues", is_flag=True, help="All queues, also those that were paused one by one.")
@_node_option
@click.option("--yes", is_flag=True, help="Do not ask for confirmation of --all.")
@of_instance
@output.json_option
def resume(
    queue: str | None, all_queues: bool, on_node: str | None, yes: bool, instance: Instance, as_json: bool
) -> None:
    """Let QUEUE fetch jobs again."""
    name = _one_or_all(queue, all_queues)
    if name == ALL:
        output.confirm(f"Resume all queues {_where(on_node)}?", yes=yes)
    _command(instance, name, on_node, as_json, "resumed", "resume")


@queues.command()
@click.argument("queue")
@click.argument("limit", type=click.IntRange(1, 10_000), required=False)
@click.option("--configured", is_flag=True, help="Restore the limit that each node is configured with.")
@_node_option
@of_instance
@output.json_option
def scale(
    queue: str, limit: int | None, configured: bool, on_node: str | None, instance: Instance, as_json: bool
) -> None:
    """Let each node run up to LIMIT jobs of QUEUE at once."""
    if (limit is None) != configured:
        raise click.UsageError("Pass either LIMIT or --configured.")
    done = "limited as configured" if limit is None else f"limited to {counted(limit, 'job')} at once"
    _command(instance, queue, on_node, as_json, done, "scale", limit=limit)


@queues.command()
@click.argument("queue")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=10,
    show_default=True,
    help="How many of its jobs each node runs at once.",
)
@click.option("--paused", is_flag=True, help="Let it wait for `oban queues resume` before it fetches jobs.")
@_node_option
@of_instance
@output.json_option
def start(
    queue: str, limit: int, paused: bool, on_node: str | None, instance: Instance, as_json: bool
) -> None:
    """Run QUEUE, whether or not it is configured."""
    done = f"started{', but paused,' if paused else ''} with up to {counted(limit, 'job')} at once"
    _command(instance, queue, on_node, as_json, done, "start", limit=limit, paused=paused)


@queues.command()
@click.argument("queue")
@_node_option
@of_instance
@output.json_option
def stop(queue: str, on_node: str | None, instance: Instance, as_json: bool) -> None:
    """Stop running QUEUE until it is started again. Executing jobs finish."""
    _command(instance, queue, on_node, as_json, "stopped", "stop")


def _one_or_all(queue: str | None, all_queues: bool) -> str:
    if (queue is None) != all_queues:
        raise click.UsageError("Pass either QUEUE or --all.")
    return ALL if queue is None else queue


def _where(node: str | None) -> str:
    return "on all nodes" if node is None else f"on the node {log_safe(node)}"


def _command(
    instance: Instance,
    queue: str,
    node: str | None,
    as_json: bool,
    done: str,
    verb: QueueVerb,
    **options: Any,
) -> None:
    """Send a command, and tell what is stored now."""
    change = instance.operate(lambda operations: operations.command_queue(verb, queue, node, **options))
    if as_json:
        output.document(DOCUMENTS["queues pause"], change.settings)
    else:
        what = "All queues are" if queue == ALL else f"{log_safe(queue)} is"
        click.echo(f"{what} {done} {_where(node)}.")
    for warning in change.warnings:
        click.echo(warning, err=True)
