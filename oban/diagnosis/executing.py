"""Where a job executes, and what happens if that node does not answer any more."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from oban.amounts import duration
from oban.config import Options
from oban.diagnosis.explanation import Reason
from oban.diagnosis.texts import Commands, after, at, named, since
from oban.error_texts import log_safe
from oban.models import Job
from oban.repository.job_facts import Facts, LeadingNode, QueueProducer

#: Seconds without news after which an attempt counts as one that takes long.
LONG = 3600.0
#: Seconds that a heartbeat can take from the moment at which it was made.
_TRANSIT = 5.0
#: Seconds that a rescue can take, and for which a time to the second is cut.
_MARGIN = 2.0


def reasons(job: Job, facts: Facts, options: Options, commands: Commands) -> tuple[bool, list[Reason]]:
    """Whether a live node executes a job, and the reasons, of which the first one says where it executes."""
    node_name, owner = _attempted_by(job.attempted_by)
    node = next((each for each in facts.nodes if owner and each.uuid == owner.replace("-", "")), None)
    if node is not None and node.is_alive:
        return True, [*_on_live_node(job, facts, options, node, commands)]
    found = [_lost(job, facts, options, node, node_name, commands)]
    is_alone = node is not None and not _survivors(facts, node) and not _leaders(facts, options, node)
    if not facts.has_leader or is_alone:
        found.insert(0, no_leader("Nobody rescues it", commands))
    return False, found


def _attempted_by(value: Any) -> tuple[str, str]:
    items = [item if isinstance(item, str) else "" for item in value] if isinstance(value, list) else []
    node, owner, *_ = [*items, "", ""]
    return node, owner


def _on_live_node(
    job: Job, facts: Facts, options: Options, node: QueueProducer, commands: Commands
) -> Iterator[Reason]:
    started_at, again = job.attempted_at, (commands.jobs("cancel", job.id), commands.jobs("retry", job.id))
    text = (
        f"It runs on the node {named(node.node)}, which began attempt {job.attempt} of {job.max_attempts} at"
        f" {since(started_at, facts.now)}, and sent its last heartbeat {duration(node.silence)} ago."
    )
    progress = job.current_progress
    if progress is not None and progress.attempt != job.attempt:
        # Another program has stored it, with a time of its own.
        progress = None
    if progress is not None:
        text += f" At {since(progress.at, facts.now)}, it reported {log_safe(str(progress), 300)}."
    advice = f"{_if_dead(job, facts, options, node)} Wait until it ends, or cancel it:"
    executes = Reason("executing", text, advice, again[:1])
    heartbeat_at = facts.now - timedelta(seconds=node.silence)
    if (
        node.running is not None
        and job.id not in node.running
        and started_at is not None
        and (heartbeat_at - started_at).total_seconds() > _TRANSIT
    ):
        yield Reason(
            "unlisted",
            f"The node {named(node.node)} says in its heartbeats that it does not run the job: its"
            " attempt has ended, but the outcome could not be stored.",
            "The node tries again and again to store it; its log says why that fails. If it does not recover,"
            " restart the node, which releases the job, or run it again by hand:",
            again,
        )
        yield executes
        return
    if node.silence >= node.lease / 2:
        yield executes
        yield Reason(
            "node_silent",
            f"The node {named(node.node)} has sent no heartbeat for {duration(node.silence)}.",
            f"If none arrives within {duration(node.lease - node.silence)}, the node counts as dead. Look"
            " whether it still runs.",
        )
        return
    yield executes
    last_news = started_at if progress is None else progress.at
    if last_news is not None and (facts.now - last_news).total_seconds() >= LONG:
        what = "has reported no progress" if progress else "has been running"
        yield Reason(
            "takes_long",
            f"It {what} for {duration((facts.now - last_news).total_seconds())}.",
            "If that is too long, cancel it and retry it. The option timeout of the worker ends such"
            " attempts, and job.progress() in the worker shows how far they are.",
            again,
        )


def _lost(
    job: Job, facts: Facts, options: Options, node: QueueProducer | None, name: str, commands: Commands
) -> Reason:
    again = (commands.jobs("cancel", job.id), commands.jobs("retry", job.id))
    started_at = job.attempted_at or job.scheduled_at
    sooner = "To run it at once, cancel it and retry it, but only if that node is really gone:"
    if node is not None:
        text = (
            f"The node {named(node.node)} was lost while it ran the job: its last heartbeat is"
            f" {duration(node.silence)} old, and it counts as dead after {duration(node.lease)}."
        )
        due = _rescuable_at(job, facts, options, node)
        return Reason("node_dead", text, f"{_when(job, due, facts, options)} {sooner}", again)
    who = f"the node {named(name)}" if name else "a node that it does not name"
    text = f"It executes on {who}, since {since(started_at, facts.now)}, but no node sends heartbeats for it."
    due = after(started_at, max(options.rescue_after, options.lease), facts.now)
    advice = (
        "Either its node's heartbeats were deleted, or another implementation runs it, which stores none."
        f" {_when(job, due, facts, options)}"
    )
    return Reason("node_unknown", text, f"{advice} {sooner}", again)


def _if_dead(job: Job, facts: Facts, options: Options, node: QueueProducer) -> str:
    """When the job is rescued at the latest, if its node has died since its last heartbeat."""
    look = max(options.rescue_interval, node.lease / 4)
    due = _rescuable_at(job, facts, options, node) + timedelta(seconds=look + _MARGIN)
    by, then = f"by {at(due)}, in {duration((due - facts.now).total_seconds())}", _then(job)
    if _survivors(facts, node) or _leaders(facts, options, node):
        return f"If that node is dead, the leader rescues the job {by}, and {then}."
    later = duration(_steady_after(node, options) + look + _MARGIN)
    return (
        "If that node is dead, no other node is alive that could rescue the job. One that you start does so"
        f" {by}, or within {later} of its start if that is later, and {then}."
    )


def _rescuable_at(job: Job, facts: Facts, options: Options, node: QueueProducer) -> datetime:
    """When a leader can rescue the job at its next look, if its node has died since its last heartbeat.

    That is when the lease of the node is over, when another node can lead if this one did, and when the other
    nodes have sent heartbeats for long enough to rescue jobs.
    """
    waits = [node.lease - node.silence]
    if not _leaders(facts, options, node):
        waits.extend(leader.expires_in for leader in facts.leaders)
    waits.extend(_steady_after(each, options) - each.age for each in _survivors(facts, node))
    due = facts.now + timedelta(seconds=max(0.0, *waits))
    return max(due, after(job.attempted_at or job.scheduled_at, node.lease, facts.now))


def _survivors(facts: Facts, node: QueueProducer) -> list[QueueProducer]:
    """The live producers of other processes than this node's."""
    return [
        each
        for each in facts.nodes
        if each.is_alive
        and each.uuid != node.uuid
        # A process has one producer for a queue. So this is a node that has been started again.
        and (each.node != node.node or (each.name, each.queue) == (node.name, node.queue))
    ]


def _leaders(facts: Facts, options: Options, node: QueueProducer) -> list[LeadingNode]:
    """The leaders that are not this node, as it was at its last heartbeat."""
    # It has extended its own lease after its last heartbeat at most until the next one was due.
    latest = node.lease - node.silence + max(options.heartbeat_interval, node.lease / 4) + _MARGIN
    return [
        leader
        for leader in facts.leaders
        if leader.identity.rpartition("/")[0] != node.node or leader.expires_in > latest
    ]


def _steady_after(node: QueueProducer, options: Options) -> float:
    """Seconds for which a node sends heartbeats before it rescues jobs: see `Refresher.is_steady`."""
    return node.lease / 4 + 2 * max(options.heartbeat_interval, node.lease / 4)


def _then(job: Job) -> str:
    is_last = isinstance(job.attempt, int) and job.attempt == job.max_attempts
    return "it is discarded then, as this was its last attempt" if is_last else "it runs again then"


def _when(job: Job, due: datetime, facts: Facts, options: Options) -> str:
    then = _then(job)
    if due <= facts.now:
        interval = duration(options.rescue_interval)
        return f"The leader rescues it at its next look, about every {interval}: {then}."
    seconds = (due - facts.now).total_seconds()
    return f"The leader rescues it soon after {at(due)}, in {duration(seconds)}: {then}."


def no_leader(consequence: str, commands: Commands) -> Reason:
    """The reason that nobody does what a leader does."""
    return Reason(
        "no_leader",
        f"{consequence}, because no node leads.",
        "Start a node, without leadership=False:",
        (commands.start(),),
    )
