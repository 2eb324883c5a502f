"""`oban stats`: what the jobs, queues and nodes of an instance do."""

from collections.abc import Iterator

import click
from rich.text import Text

from oban.cli import output
from oban.cli.columns import Column
from oban.cli.documents import DOCUMENTS
from oban.cli.instance import Instance, of_instance
from oban.cli.options import with_target
from oban.cli.queues import COLUMNS, cells, count_limit_option, settings_text
from oban.error_texts import log_safe
from oban.repository.stats import MAX_RECENT, Stats

_COLUMNS = (
    Column("STATE"),
    Column("JOBS", right=True),
    Column("LAST MINUTE", right=True),
    Column("LAST HOUR", right=True),
)


@click.command()
@with_target
@of_instance
@count_limit_option
@output.json_option
def stats(instance: Instance, count_limit: int | None, as_json: bool) -> None:
    """Show the numbers of jobs, and what queues and nodes do.

    A number with a + is a limit: there are more jobs. TARGET is the same as --app.
    """
    found = instance.operate(lambda operations: operations.stats(count_limit))
    if as_json:
        output.document(DOCUMENTS["stats"], found)
        return
    output.table(_COLUMNS, _states(found))
    if found.queues:
        click.echo()
        output.table(COLUMNS, map(cells, found.queues))
    click.echo()
    for line in _lines(found):
        click.echo(line)


def _states(found: Stats) -> Iterator[tuple[str | Text, ...]]:
    for state, number in found.counts.items():
        more = any(state in queue.truncated for queue in found.queues)
        jobs = f"{number:,}{'+' if more else ''}"
        if recent := found.finished.get(state):
            minute = f"{recent.last_minute:,}{'+' if recent.last_minute == MAX_RECENT else ''}"
            hour = f"{recent.last_hour:,}{'+' if recent.truncated else ''}"
        else:
            minute = hour = ""
        yield output.state(state), jobs, minute, hour


def _lines(found: Stats) -> Iterator[str]:
    if found.due:
        more = "+" if found.due == MAX_RECENT else ""
        yield f"Due, but not made available yet: {found.due:,}{more}"
    alive = sum(node.alive for node in found.nodes)
    dead = len(found.nodes) - alive
    leader = "none" if found.leader is None else log_safe(found.leader)
    yield f"Nodes: {alive} alive{f', {dead} dead' if dead else ''}. Leader: {leader}."
    if found.settings:
        yield f"Stored for all queues: {log_safe(settings_text(found.settings))}."
