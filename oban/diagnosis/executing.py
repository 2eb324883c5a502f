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
from oban.repository.job_facts import Facts, QueueProducer

#: Seconds without news after which an attempt counts as one that takes long.
LONG = 3600.0
#: Seconds that a heartbeat can take from the moment at which it was made.
_TRANSIT = 5.0


def reasons(job: Job, facts: Facts, options: Options, commands: Commands) -> tuple[bool, list[Reason]]:
    """Whether a live node executes a job, and the reasons, of which the first one says where it executes."""
    node_name, owner = _attempted_by(job.attempted_by)
    node = next((each for each in facts.nodes if owner and each.uuid == owner.replace("-", "")), None)
    if node is not None and node.is_alive:
        return True, [*_on_live_node(job, facts, node, commands)]
    found = [_lost(job, facts, options, node, node_name, commands)]
    if not facts.has_leader:
        found.insert(0, no_leader("Nobody rescues it", commands))
    return False, found


def _attempted_by(value: Any) -> tuple[str, str]:
    items = [item if isinstance(item, str) else "" for item in value] if isinstance(value, list) else []
    node, owner, *_ = [*items, "", ""]
    return node, owner


def _on_live_node(job: Job, facts: Facts, node: QueueProducer, commands: Commands) -> Iterator[Reason]:
    started_at, again = job.attempted_at, (commands.jobs("cancel", job.id), commands.jobs("retry", job.id))
    text = (
        f"It runs now: the node {named(node.node)} began attempt {job.attempt} of {job.max_attempts} at"
        f" {since(started_at, facts.now)}."
    )
    progress = job.current_progress
    if progress is not None and progress.attempt != job.attempt:
        # Another program has stored it, with a time of its own.
        progress = None
    if progress is not None:
        text += f" At {since(progress.at, facts.now)}, it reported {log_safe(str(progress), 300)}."
    executes = Reason("executing", text, "Wait until it ends, or cancel it:", again[:1])
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
            f"The last heartbeat of the node {named(node.node)} is {duration(node.silence)} old.",
            f"If none arrives within {duration(node.lease - node.silence)}, the node counts as dead, and"
            " the job is rescued. Look whether the node still runs.",
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
        due = after(started_at, node.lease, facts.now)
        return Reason("node_dead", text, f"{_when(job, due, facts, options)} {sooner}", again)
    who = f"the node {named(name)}" if name else "a node that it does not name"
    text = f"It executes on {who}, since {since(started_at, facts.now)}, but no node sends heartbeats for it."
    due = after(started_at, max(options.rescue_after, options.lease), facts.now)
    advice = (
        "Either its node's heartbeats were deleted, or another implementation runs it, which stores none."
        f" {_when(job, due, facts, options)}"
    )
    return Reason("node_unknown", text, f"{advice} {sooner}", again)


def _when(job: Job, due: datetime, facts: Facts, options: Options) -> str:
    is_last = isinstance(job.attempt, int) and job.attempt == job.max_attempts
    then = "it is discarded then, as this was its last attempt" if is_last else "it runs again then"
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
