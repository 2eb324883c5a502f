"""Commands for queues, with what is stored then and warnings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession

from oban import suggestions
from oban.client import Oban
from oban.error_texts import log_safe
from oban.repository.queue_settings import ALL, QueueSettings

QueueVerb: TypeAlias = Literal["pause", "resume", "scale", "start", "stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueChange:
    """What a command for a queue has stored.

    Attributes:
        settings: All that is stored now for the queue, or for all queues.
        warnings: Sentences that say that no node runs the queue, or has the name.
    """

    settings: list[QueueSettings]
    warnings: list[str]


async def command_queue(
    oban: Oban,
    verb: QueueVerb,
    queue: str,
    node: str | None,
    session: AsyncSession | None = None,
    **options: Any,
) -> QueueChange:
    """Send a command to the nodes that run a queue.

    Args:
        oban: The client.
        verb: The command.
        queue: The name of the queue; `*` stands for all queues, which can be paused and resumed.
        node: The name of the node (default: all nodes).
        session: The caller's session (default: a transaction of its own).
        **options: `limit` of "scale" and "start", and `paused` of "start".
    """
    infos = await oban.check_cluster(session=session)
    stored = await oban.list_queue_settings(session=session)
    queues = {*(info.queue for info in infos), *(row.queue for row in stored)}
    match verb, queue:
        case "pause", "*":
            await oban.pause_all_queues(node, session)
        case "resume", "*":
            await oban.resume_all_queues(node, session)
        case "pause", _:
            await oban.pause_queue(queue, node, session)
        case "resume", _:
            await oban.resume_queue(queue, node, session)
        case "scale", _:
            await oban.scale_queue(queue, node=node, session=session, **options)
        case "start", _:
            await oban.start_queue(queue, node=node, session=session, **options)
        case "stop", _:
            await oban.stop_queue(queue, node, session)
    warnings = []
    # A new queue can be started.
    if not (verb == "start" or queue == ALL):
        warnings += _unknown(f"runs the queue {log_safe(queue)}", queue, sorted(queues - {ALL}))
    if node is not None:
        warnings += _unknown(f"is named {log_safe(node)}", node, sorted({info.node for info in infos}))
    now = await oban.list_queue_settings(session=session)
    return QueueChange(settings=[row for row in now if row.queue == queue], warnings=warnings)


def _unknown(what: str, name: str, known: Sequence[str]) -> list[str]:
    """A warning that no node is affected so far, if so."""
    if name in known:
        return []
    near = suggestions.similar(name, known)
    hint = f" Did you mean {log_safe(near)}?" if near else ""
    return [f"No node {what} now. The command is stored for later.{hint}"]
