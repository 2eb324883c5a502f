"""`NodeCheck`: whether a node is live and ready, without asking the database."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from oban.notifier import Notifier
from oban.runner.heartbeat_thread import HeartbeatThread
from oban.runner.loop_watchdog import LoopWatchdog
from oban.runner.services.base import Service

#: Seconds for which the event loop can be blocked before a node is neither live nor ready.
BLOCKED_AFTER = 5.0
#: Seconds for which heartbeats and fetches can fail before a node is not ready. A connection that was lost is
#: replaced sooner, so that the answer does not change with it.
DATABASE_GRACE = 5.0
#: Seconds for which a listener that has heard notifications can hear none before a node is not ready: enough
#: to connect again, and for a second probe if the first one was late.
LISTENER_GRACE = 15.0


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """Whether the node of this process is live and ready, as `check_node` returns it.

    Attributes:
        is_live: Whether the process works: its event loop answers. If not, only a restart helps.
        is_ready: Whether the node does its work: it has started and is not stopping, it reaches the database,
            its heartbeats are fresh, and its listener has heard a probe.
        problems: Sentences about what is wrong, without values of the application; empty if the node is live
            and ready.
    """

    is_live: bool
    is_ready: bool
    problems: tuple[str, ...] = ()


def not_ready(problem: str, *, is_live: bool = True) -> NodeCheck:
    """The check of a node that has one problem."""
    return NodeCheck(is_live, False, (problem,))


def check_parts(
    watchdog: LoopWatchdog, heartbeats: HeartbeatThread, services: Iterable[Service], notifier: Notifier
) -> NodeCheck:
    """Check a node that has started. Called from any thread; it runs no statement.

    `services` are the services without which the node runs no jobs.
    """
    is_blocked = watchdog.unanswered_for() > BLOCKED_AFTER
    problems = []
    if is_blocked:
        problems.append(f"the event loop has been blocked for more than {BLOCKED_AFTER:g} s")
    failing = [service.name for service in services if service.failing_for() > DATABASE_GRACE]
    if heartbeats.failing_for() > DATABASE_GRACE:
        failing.insert(0, "heartbeats")
    if failing:
        names = ", ".join(failing)
        problems.append(f"the database does not answer for more than {DATABASE_GRACE:g} s: {names} failed")
    if not heartbeats.may_fetch():
        problems.append("the last heartbeat is older than three quarters of the lease")
    silence = notifier.silent_for()
    if silence == math.inf:
        problems.append("the listener has not heard its first probe yet")
    elif silence > LISTENER_GRACE:
        problems.append(f"the listener has heard no notifications for more than {LISTENER_GRACE:g} s")
    return NodeCheck(not is_blocked, not problems, tuple(problems))
