"""The health that nodes report to their supervisor, as lines of JSON."""

import contextlib
import json
import socket
from collections.abc import Mapping

from oban import clock
from oban.runner.node_check import NodeCheck, not_ready

#: Seconds without a report after which a node is not live: its process was stopped, say, or one call of it
#: holds the interpreter's lock.
REPORT_TIMEOUT = 10.0
#: The most bytes of a report.
MAX_REPORT = 64 * 1024


class Reporter:
    """Sends the checks of a node to its supervisor, a line of JSON for each."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link

    def report(self, check: NodeCheck) -> None:
        """Send a check. It is lost if the supervisor does not read, or has ended."""
        report = {"live": check.is_live, "ready": check.is_ready, "problems": check.problems}
        with contextlib.suppress(OSError):
            self._link.send(json.dumps(report).encode() + b"\n")


class Reports:
    """The reports of one node."""

    def __init__(self) -> None:
        self._buffer = b""
        self._last: NodeCheck | None = None
        self._received_at = 0.0

    def receive(self, data: bytes) -> None:
        """Read bytes that have arrived: a part of a report, or several."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self._buffer = self._buffer[-MAX_REPORT:]
        for line in lines:
            # A report that did not fit into the buffer of the socket lacks a part.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                report = json.loads(line)
                self._last = NodeCheck(report["live"], report["ready"], tuple(report["problems"]))
                self._received_at = clock.monotonic()

    def check(self) -> NodeCheck:
        """The last report, unless it is too old."""
        if self._last is None:
            return not_ready("the node is starting")
        if clock.monotonic() - self._received_at > REPORT_TIMEOUT:
            problem = f"the process has reported nothing for more than {REPORT_TIMEOUT:g} s"
            return not_ready(problem, is_live=False)
        return self._last


def combined(checks: Mapping[str, NodeCheck]) -> NodeCheck:
    """The check of several nodes: live or ready if all of them are."""
    problems = [f"{node}: {text}" for node, check in checks.items() for text in check.problems]
    return NodeCheck(
        all(check.is_live for check in checks.values()),
        all(check.is_ready for check in checks.values()),
        tuple(problems),
    )
