"""Why jobs of a queue wait, in a sentence."""

from dataclasses import dataclass
from datetime import datetime

from oban.amounts import counted, duration
from oban.repository.queue_settings import QueueSettings
from oban.web.queue_figures import Figures, QueueFigures

#: Seconds after which a running job is long.
LONG = 60.0


@dataclass(frozen=True, slots=True)
class Reason:
    """Why jobs of a queue wait.

    Attributes:
        text: A sentence.
        since: The time that the sentence is about, such as that of a command; None without one.
        state: The state of the jobs of the queue that tell more; None if none do.
    """

    text: str
    since: datetime | None = None
    state: str | None = None


def find(queue: QueueFigures, figures: Figures) -> Reason | None:
    """Why the jobs of a queue wait; None if none have waited for long."""
    if queue.nodes and all(node.is_stopping for node in queue.nodes):
        return Reason("A command stops it", _stopped(queue))
    if queue.status == "paused":
        return _paused(queue)
    waits = queue.counts["available"] > 0
    if not queue.nodes:
        return _no_node(queue) if waits or queue.due else None
    if queue.due:
        return _due(queue, figures)
    if queue.status == "partly paused":
        number, all_ = len(queue.paused), len(queue.nodes)
        return Reason(f"Paused on {number} of {all_} nodes", _paused_at(queue), "available")
    if not (waits and queue.is_behind):
        return None
    limit = queue.limit
    if limit is not None and max(queue.running, queue.counts["executing"]) >= limit:
        return _full(queue, limit, figures.at)
    return Reason("Its nodes have free places, but do not fetch these jobs", state="available")


def _no_node(queue: QueueFigures) -> Reason:
    if at := _stopped(queue):
        return Reason("Stopped by a command", at, "available")
    if queue.dead:
        ran = f"The node that ran it is dead: {queue.dead[0]}"
        if len(queue.dead) > 1:
            ran = f"All {len(queue.dead)} nodes that ran it are dead"
        return Reason(ran, state="available")
    return Reason("No node runs it", state="available")


def _due(queue: QueueFigures, figures: Figures) -> Reason:
    jobs = f"{counted(queue.due, 'job')} {'is' if queue.due == 1 else 'are'} due but not available yet"
    if figures.leader is None:
        return Reason(f"No node leads the instance: {jobs}", state="scheduled")
    return Reason(jobs, state="scheduled")


def _full(queue: QueueFigures, limit: int, at: datetime) -> Reason:
    places = "Busy: the limit is 1" if limit == 1 else f"Busy: all {limit:,} places are taken"
    since = queue.longest_since
    longest = 0.0 if since is None else (at - since).total_seconds()
    if longest >= LONG:
        longest_job = "its job" if limit == 1 else "the longest job"
        return Reason(f"{places}, {longest_job} has run for {duration(longest)}", state="executing")
    return Reason(f"{places}, by short jobs: the limit is too low for what comes in", state="executing")


def _paused(queue: QueueFigures) -> Reason:
    at = _paused_at(queue)
    return Reason("Paused by a command", at) if at else Reason("Paused by the configuration of its nodes")


def _paused_at(queue: QueueFigures) -> datetime | None:
    paused = [each.updated_at for each in _settings(queue) if each.paused]
    return max(paused) if paused else None


def _stopped(queue: QueueFigures) -> datetime | None:
    stopped = [each.updated_at for each in queue.settings if each.running is False]
    return max(stopped) if stopped else None


def _settings(queue: QueueFigures) -> list[QueueSettings]:
    return [*queue.settings, *queue.settings_of_all]
