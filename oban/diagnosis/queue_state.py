"""Who has paused or stopped a queue, and how to resume it."""

from collections.abc import Iterator

from oban.diagnosis.explanation import Reason
from oban.diagnosis.texts import Commands, at, named, node_names
from oban.models import Job
from oban.repository.job_facts import Facts, QueueProducer, settings_of

_CAUSES = {
    "since start": "the configuration of the node pauses it at each start, whatever was resumed before",
    "queue on node": "a command has paused the queue on this node",
    "queue": "a command has paused the queue",
    "node": "a command has paused all queues of this node",
    "all": "a command has paused all queues",
}
_CONFIGURED = "the configuration of the node starts it paused"
_FOREIGN = "it was paused by a command of the implementation that runs the node"
_SOON = "it was resumed, which the node has yet to notice"


def paused(job: Job, facts: Facts, nodes: list[QueueProducer], commands: Commands) -> Iterator[Reason]:
    """The reason that these nodes have paused the queue."""
    by_cause: dict[str, list[QueueProducer]] = {}
    for node in nodes:
        if not _is_stopped(facts, node):
            by_cause.setdefault(_cause(facts, node), []).append(node)
    if not by_cause:
        return
    causes = [f"on {node_names(found)}, {cause}" for cause, found in by_cause.items()]
    resting = [node for found in by_cause.values() for node in found]
    yield Reason(
        "paused",
        f"The queue {named(job.queue)} is paused: {'; '.join(causes)}.",
        "Resume it:",
        _for_each_instance(commands, "resume", job.queue, resting),
    )


def _cause(facts: Facts, node: QueueProducer) -> str:
    for kind, row in settings_of(facts, node):
        if row is not None and row.setting_paused is not None:
            if not row.setting_paused:
                return _SOON
            return f"{_CAUSES[kind]} ({at(row.setting_updated_at)})"
    return _FOREIGN if node.is_foreign else _CONFIGURED


def _is_stopped(facts: Facts, node: QueueProducer) -> bool:
    """Whether a command has stopped the queue on a node, which runs the last of its jobs."""
    own = (facts.settings.get((node.name, node.queue, on)) for on in (node.node, ""))
    running = [row.setting_running for row in own if row is not None]
    return next((value for value in running if value is not None), True) is False


def stopped(job: Job, facts: Facts, nodes: list[QueueProducer], commands: Commands) -> Iterator[Reason]:
    """The reason that a command has stopped the queue, on nodes that still have a row or no longer."""
    rows = [
        row
        for row in facts.settings.values()
        if row.setting_queue == job.queue and row.setting_running is False
    ]
    # With nodes that run the queue, it is only stopped if it is on each of them.
    if not rows or (nodes and not all(_is_stopped(facts, node) for node in nodes)):
        return
    where = [f"on {named(row.setting_node)}" if row.setting_node else "on all nodes" for row in rows]
    when = at(rows[0].setting_updated_at)
    yield Reason(
        "stopped",
        f"A command has stopped the queue {named(job.queue)} {', '.join(where)} ({when}).",
        "Start it again:",
        tuple(
            commands.queues(
                "start",
                job.queue,
                *(("--node", row.setting_node) if row.setting_node else ()),
                instance=row.setting_name,
            )
            for row in rows
        ),
    )


def _for_each_instance(
    commands: Commands, verb: str, queue: str, nodes: list[QueueProducer]
) -> tuple[str, ...]:
    return tuple(commands.queues(verb, queue, instance=name) for name in dict.fromkeys(n.name for n in nodes))
