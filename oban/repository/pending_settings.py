"""Queues on nodes as commands have changed them since the nodes' last heartbeats."""

from collections.abc import Sequence
from dataclasses import replace

from oban.repository.cluster import QueueInfo
from oban.repository.queue_settings import ALL, QueueSettings


def newer_settings(info: QueueInfo, settings: Sequence[QueueSettings]) -> list[QueueSettings]:
    """The settings for a queue on a node that are newer than its last heartbeat, in order of precedence."""
    newer = {
        (each.queue, each.node): each
        for each in settings
        if info.updated_at is None or each.updated_at > info.updated_at
    }
    places = ((info.queue, info.node), (info.queue, None), (ALL, info.node), (ALL, None))
    return [newer[place] for place in places if place in newer]


def with_settings(info: QueueInfo, settings: Sequence[QueueSettings]) -> QueueInfo:
    """A queue on a node as commands have changed it since the node's last heartbeat."""
    found = newer_settings(info, settings)
    limit = next((each.limit for each in found if each.limit), info.limit)
    paused = next((each.paused for each in found if each.paused is not None), info.paused)
    return replace(info, limit=limit, paused=paused)
