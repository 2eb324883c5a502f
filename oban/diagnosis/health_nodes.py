"""The checks of the nodes: heartbeats, clocks, listeners and the leader."""

from collections.abc import Iterator

from oban.amounts import counted, duration
from oban.database.transaction import Transaction
from oban.diagnosis.health_findings import Finding, Severity
from oban.diagnosis.health_subject import Subject
from oban.repository import nodes
from oban.repository.nodes import NodeInfo


def check_heartbeats(tx: Transaction, about: Subject) -> Iterator[Finding]:
    """Whether all nodes send heartbeats."""
    code, found = "stale_node", nodes.list_nodes(tx, about.name)
    severity: Severity = "warning" if any(node.alive for node in found) else "critical"
    for node in (node for node in found if not node.alive):
        running = sum(len(queue.running) for queue in node.queues)
        yield Finding(
            code,
            severity,
            f"{_named(node)} has sent no heartbeat for {duration(node.heartbeat_age)}, and its lease was"
            f" {duration(node.lease)}: it is dead, frozen or cut off from the database."
            f" {counted(running, 'job')} {'was' if running == 1 else 'were'} running there.",
            "See why it has ended, and start it again. The leader rescues its jobs, and then removes it from"
            " this list; without a node that leads, nobody does.",
        )
    if all(node.alive for node in found):
        yield Finding(code, "ok", "All nodes send heartbeats." if found else "No node runs.")


def check_clocks(tx: Transaction, about: Subject) -> Iterator[Finding]:
    """Whether the clocks of the nodes agree with the database's clock."""
    code, skews = "clock_skew", []
    for node in _alive(tx, about.name):
        if (skew := node.clock_skew) is None:
            continue
        skews.append(abs(skew))
        if (severity := about.thresholds.judge("clock_skew", abs(skew))) != "ok":
            direction, effect = ("ahead of", "late") if skew > 0 else ("behind", "early")
            yield Finding(
                code,
                severity,
                f"{_named(node)} has a clock that is {duration(abs(skew), 1)} {direction} the database's:"
                f" jobs that it enqueues with schedule_in run too {effect}.",
                "Synchronize the clocks of that machine and of the database server, with NTP, say.",
            )
    if not any(about.thresholds.judge("clock_skew", skew) != "ok" for skew in skews):
        text = "No node that runs tells its clock."
        if skews:
            within = duration(max(skews), 1)
            text = f"The clocks of {counted(len(skews), 'node')} are within {within} of the database's clock."
        yield Finding(code, "ok", text)


def check_listeners(tx: Transaction, about: Subject) -> Iterator[Finding]:
    """Whether notifications reach the nodes."""
    code, found = "listener", _alive(tx, about.name)
    for node in (node for node in found if node.hears is False):
        if node.listener == "listen":
            text = f"{_named(node)} listens, but hears no notifications, so it only finds jobs by polling."
            advice = (
                "If it connects through a pooler such as PgBouncer, set listen_url to a URL that leads to the"
                " primary server directly, or notifier='poll'. Its log has the reason, from oban.notifier."
            )
        else:
            text = f"{_named(node)} cannot watch the file for changes, so it only finds jobs by polling."
            advice = "Its log has the reason, from oban.notifier."
        yield Finding(code, "warning", text, advice)
    if not any(node.hears is False for node in found):
        hearing = sum(node.hears is True for node in found)
        text = f"{hearing} of {counted(len(found), 'node')} hear notifications, and none is deaf."
        yield Finding(code, "ok", text if found else "No node runs.")


def check_leader(tx: Transaction, about: Subject) -> Iterator[Finding]:
    """Whether a node leads, if nodes run."""
    code, leader = "leader", nodes.leader_name(tx, about.name)
    # A leader that dies is replaced within a lease, and one is elected when a node starts.
    settled = [node for node in _alive(tx, about.name) if _runs_for(node) > node.lease]
    if leader is not None:
        yield Finding(code, "ok", f"The node {leader} leads the instance.")
    elif settled:
        lease = duration(max(node.lease for node in settled))
        have_run = f"{counted(len(settled), 'node')} {'has' if len(settled) == 1 else 'have'} run"
        yield Finding(
            code,
            "warning",
            f"No node leads the instance {about.name}, although {have_run} for more than a lease of {lease}:"
            " nobody rescues jobs, deletes old ones or inserts periodic ones.",
            "Run at least one node without leadership=False, and look for errors of oban.leader in the logs.",
        )
    else:
        yield Finding(code, "ok", "No node leads the instance, as none runs, or has run for a lease.")


def _alive(tx: Transaction, name: str) -> list[NodeInfo]:
    return [node for node in nodes.list_nodes(tx, name) if node.alive]


def _runs_for(node: NodeInfo) -> float:
    started_at = min(queue.started_at for queue in node.queues)
    return node.heartbeat_age + (node.updated_at - started_at).total_seconds()


def _named(node: NodeInfo) -> str:
    process = "" if node.pid is None else f" (process {node.pid})"
    return f"The node {node.node}{process}"
