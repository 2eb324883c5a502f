"""What a job waits for: its time, a node that makes it available, and a node that fetches it."""

from collections.abc import Iterator

from oban import clock, fields, redaction, suggestions
from oban.amounts import counted, duration
from oban.config import Options
from oban.diagnosis.executing import no_leader
from oban.diagnosis.explanation import Reason
from oban.diagnosis.queue_state import paused, stopped
from oban.diagnosis.texts import Commands, at, listed, named, node_names, sentence
from oban.error_texts import last_error
from oban.errors import InvalidJob
from oban.models import Job
from oban.repository.job_facts import MOST_AHEAD, Facts, QueueProducer
from oban.repository.stage import BATCH
from oban.type_expressions import LAST_TIME
from oban.types import JobState

#: Seconds that staging or a fetch can take before something must be wrong.
PATIENCE = 10.0


def scheduled(job: Job, facts: Facts, options: Options, commands: Commands) -> Iterator[Reason]:
    """Reasons of a scheduled or retryable job."""
    failed, at_once = "", (commands.jobs("retry", job.id),)
    if job.state == JobState.RETRYABLE:
        failed = f"Attempt {job.attempt} of {job.max_attempts} failed. "
        if error := last_error(redaction.value(job, job.errors)):
            failed = f"Attempt {job.attempt} of {job.max_attempts} failed: {sentence(error)} "
    seconds = (job.scheduled_at - facts.now).total_seconds()
    if job.scheduled_at == LAST_TIME:
        yield Reason(
            job.state.value,
            f"{failed}It is due at the end of time: another program has stored infinity, or a year"
            " after 9999.",
            "To run it now, retry it:",
            at_once,
        )
    elif seconds > 0:
        yield Reason(
            job.state.value,
            f"{failed}It is not due before {at(job.scheduled_at)}, in {duration(seconds)}: the clock of the"
            f" database says {at(facts.now)}.{_skew(facts)}",
            "Wait, or retry it to run it now:",
            at_once,
        )
    exhausted = [*_exhausted(job, facts, commands)]
    yield from exhausted
    alive = [node for node in facts.nodes if node.is_alive]
    if seconds <= 0 and alive and not exhausted:
        yield _unstaged(job, facts, -seconds, failed, at_once)
    yield from queue_reasons(job, facts, options, commands, is_due=False)


def _skew(facts: Facts) -> str:
    """A sentence about a clock of this computer that differs from that of the database."""
    ahead = (clock.now() - facts.now).total_seconds()
    if abs(ahead) < PATIENCE:
        return ""
    return (
        f" The clock of this computer is {duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} it."
    )


def _unstaged(job: Job, facts: Facts, overdue: float, failed: str, at_once: tuple[str, ...]) -> Reason:
    text = f"{failed}It has been due since {at(job.scheduled_at)}, {duration(overdue)} ago."
    if facts.ahead:
        return Reason(
            "not_staged",
            f"{text} {_ahead(facts)} due before it, and the nodes make {BATCH:,} of them available at a"
            " time.",
            "Wait until it is its turn, or retry it:",
            at_once,
        )
    if overdue <= PATIENCE:
        return Reason("not_staged", f"{text} A node makes it available within a moment.", "Wait a moment.")
    return Reason(
        "not_staged",
        f"{text} Nodes are alive, but none of them makes it available.",
        "Another transaction may have locked its row, or the statement may fail: look at the logs of the"
        " nodes. To run it anyway, retry it:",
        at_once,
    )


def _ahead(facts: Facts) -> str:
    if facts.ahead > MOST_AHEAD:
        return f"More than {counted(MOST_AHEAD, 'job')} are"
    return f"{counted(facts.ahead, 'job')} {'is' if facts.ahead == 1 else 'are'}"


def _exhausted(job: Job, facts: Facts, commands: Commands) -> Iterator[Reason]:
    if not (isinstance(job.attempt, int) and isinstance(job.max_attempts, int)):
        return
    if job.attempt < job.max_attempts:
        return
    advice = "The leader discards it. To run it once more, allow one more attempt:"
    yield Reason(
        "attempts_used_up",
        f"It has used all of its {counted(job.max_attempts, 'attempt')}, so that no node fetches it.",
        advice,
        (commands.jobs("update", job.id, "--set-max-attempts", str(job.attempt + 1)),),
    )


def available(job: Job, facts: Facts, options: Options, commands: Commands) -> Iterator[Reason]:
    """Reasons of an available job."""
    exhausted = [*_exhausted(job, facts, commands)]
    yield from exhausted
    if exhausted and not facts.has_leader:
        yield no_leader("Nobody discards it", commands)
    yield from queue_reasons(job, facts, options, commands, is_due=not exhausted)


def queue_reasons(
    job: Job, facts: Facts, options: Options, commands: Commands, *, is_due: bool
) -> Iterator[Reason]:
    """What keeps the nodes from running jobs of the queue; if the job `is_due`, there is always a reason."""
    of_queue = [node for node in facts.nodes if node.queue == job.queue]
    alive = [node for node in of_queue if node.is_alive]
    if not alive:
        yield from _without_node(job, facts, of_queue, options, commands)
        return
    fetching = [node for node in alive if node.fetches]
    if not fetching:
        yield Reason(
            "node_silent",
            f"The nodes that run the queue {named(job.queue)} have sent no heartbeat for"
            f" {duration(min(node.silence for node in alive))}, and fetch no jobs until they do:"
            f" {node_names(alive)}.",
            "Look at their logs: the database may refuse their heartbeats, or a job may block the process.",
        )
        return
    running = [node for node in fetching if not node.paused]
    if not running:
        yield from stopped(job, facts, fetching, commands)
        yield from paused(job, facts, fetching, commands)
        return
    yield from _unknown_worker(job, running)
    if is_due:
        yield _waits_for_place(job, facts, running, commands)
        resting = [node for node in fetching if node.paused]
        if resting and all(_is_full(node, facts) for node in running):
            yield from paused(job, facts, resting, commands)


def _without_node(
    job: Job, facts: Facts, dead: list[QueueProducer], options: Options, commands: Commands
) -> Iterator[Reason]:
    alive = [node for node in facts.nodes if node.is_alive]
    of_commands = [*stopped(job, facts, [], commands)]
    yield from of_commands
    if of_commands and alive:
        return
    try:
        start = (commands.start(fields.queue(job.queue)),)
    except InvalidJob:
        yield Reason(
            "no_node",
            f"No node can run the queue {named(job.queue)}: another program has stored a name that a queue"
            " cannot have.",
            "Move the job to another queue:",
            (commands.jobs("update", job.id, "--set-queue", "default"),),
        )
        return
    text = f"No live node runs the queue {named(job.queue)}."
    if dead:
        latest = min(dead, key=lambda node: node.silence)
        silence = duration(latest.silence)
        text += f" The node {named(latest.node)} ran it, and sent its last heartbeat {silence} ago."
    if not alive:
        text = f"No node is alive at all. {text}" if not dead else text
        yield Reason("no_node", text, "Start a node that runs it:", start)
        return
    names = [node.name for node in alive]
    instance = options.name if options.name in names else names[0]
    queues = sorted({node.queue for node in alive})
    similar = suggestions.similar(job.queue, queues)
    text += f" Live nodes run: {listed(queues)}."
    if similar is None:
        advice = "Start a node that runs it, or let the nodes that are alive run it as well:"
        yield Reason(
            "no_node", text, advice, (*start, commands.queues("start", job.queue, instance=instance))
        )
        return
    advice = f"Did you mean {named(similar)}? Then move the job; else start a node that runs the queue:"
    yield Reason("no_node", text, advice, (commands.jobs("update", job.id, "--set-queue", similar), *start))


def _unknown_worker(job: Job, nodes: list[QueueProducer]) -> Iterator[Reason]:
    """The reason that no node of the queue knows the job's worker: its attempts fail."""
    telling = [node for node in nodes if node.workers is not None]
    ignorant = [node for node in telling if not _knows(node, job.worker)]
    failed = "UnknownWorker" in last_error(job.errors)
    if ignorant and len(ignorant) == len(nodes):
        who = f"No node that runs the queue {named(job.queue)} knows the worker {named(job.worker)}"
    elif ignorant:
        who = f"{node_names(ignorant)} runs the queue and does not know the worker {named(job.worker)}"
        if len(ignorant) > 1:
            who = (
                f"Some nodes of the queue do not know the worker {named(job.worker)}: {node_names(ignorant)}"
            )
    elif failed and len(telling) < len(nodes):
        who = f"The last attempt failed because its node did not know the worker {named(job.worker)}"
    else:
        return
    known = sorted({name for node in telling for name in node.workers or ()})
    similar = suggestions.similar_path(job.worker, known)
    hint = f" Did you mean {named(similar)}?" if similar else ""
    yield Reason(
        "worker_unknown",
        f"{who}. An attempt there fails with UnknownWorker.{hint}",
        "Import the module that defines the worker in these nodes, with --import or in the module of the"
        " Oban, and restart them. If the class was renamed, give it the old name as an alias.",
    )


def _knows(node: QueueProducer, worker: str) -> bool:
    known = node.workers or frozenset()
    if worker in known:
        return True
    # The node looks for such a worker by the name under which it has imported the module.
    main = "__main__."
    return (
        isinstance(worker, str)
        and worker.startswith(main)
        and any(name.endswith(f".{worker.removeprefix(main)}") for name in known)
    )


def _is_full(node: QueueProducer, facts: Facts) -> bool:
    return node.limit is not None and facts.executing.get(node.uuid, 0) >= node.limit


def _waits_for_place(job: Job, facts: Facts, nodes: list[QueueProducer], commands: Commands) -> Reason:
    """The reason that it is not the job's turn, or that it will be fetched."""
    scale = tuple(
        commands.queues("scale", job.queue, str(2 * (node.limit or 0)), instance=node.name)
        for node in {node.name: node for node in nodes if node.limit}.values()
    )
    if all(_is_full(node, facts) for node in nodes):
        places = sum(node.limit or 0 for node in nodes)
        text = f"All places of the queue {named(job.queue)} are taken: {counted(places, 'job')} of it"
        text += f" {'runs' if places == 1 else 'run'} on {node_names(nodes)}"
        text += f", and {_ahead(facts)} ahead of it." if facts.ahead else ", and this job is the next one."
        return Reason(
            "places_taken",
            text,
            "Wait, let each node run more jobs of it at once, or start more nodes:",
            (*scale, commands.start(job.queue)),
        )
    if facts.ahead:
        return Reason(
            "jobs_ahead",
            f"{_ahead(facts)} ahead of it in the queue {named(job.queue)}, by priority, time and id; the"
            f" nodes fetch them as places become free: {node_names(nodes)}.",
            "Wait, or give it a higher priority, which is a smaller number:",
            (commands.jobs("update", job.id, "--set-priority", "0"),) if job.priority else (),
        )
    waits = (facts.now - job.scheduled_at).total_seconds()
    if waits <= PATIENCE:
        return Reason(
            "next",
            f"Nothing keeps it from running: a node fetches it within a moment ({node_names(nodes)}).",
            "Wait a moment.",
        )
    return Reason(
        "not_fetched",
        f"Nothing keeps it from running, and there are free places on {node_names(nodes)}, but no node has"
        f" fetched it for {duration(waits)}.",
        "Another transaction may have locked its row, or the fetch may fail: look at the logs of the nodes.",
    )
