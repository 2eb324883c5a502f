"""`Systemd`: notifies the service manager that a service of `Type=notify` is ready, works or stops."""

import logging
import math
import os
import socket
from collections.abc import Mapping

from oban import clock
from oban.runner.node_check import NodeCheck

logger = logging.getLogger("oban.systemd")

#: Seconds that a stop can take in addition to the grace period.
STOP_MARGIN = 30.0


class Systemd:
    """Sends the messages of sd_notify(3) to the socket of the service manager.

    Call the methods from one thread. READY=1 is sent once, when the node is ready for the first time, and
    WATCHDOG=1 at half of the interval that systemd asks for, but only while the node is live.

    Args:
        address: The path of the socket; "@" begins that of an abstract one.
        watchdog: The seconds after which systemd restarts a service that has sent no WATCHDOG=1, if it does.
    """

    def __init__(self, address: str, watchdog: float | None) -> None:
        #: Seconds between two WATCHDOG=1.
        self.interval = None if watchdog is None else watchdog / 2
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._next_ping = -math.inf
        self._was_ready = False
        self._is_stopping = False
        self._status = ""
        self._has_failed = False

    @classmethod
    def find(cls, environment: Mapping[str, str] = os.environ) -> "Systemd | None":
        """The service manager that has started this process; None if there is none, or it expects nothing."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address:
            return None
        if address[0] not in "/@":
            logger.warning("NOTIFY_SOCKET is not the path of a Unix socket, so systemd is not notified")
            return None
        # The variables of a parent's watchdog can have been inherited.
        is_meant = environment.get("WATCHDOG_PID") in (None, "", str(os.getpid()))
        microseconds = environment.get("WATCHDOG_USEC", "")
        has_watchdog = is_meant and microseconds.isascii() and microseconds.isdigit() and int(microseconds)
        return cls(address, int(microseconds) / 1e6 if has_watchdog else None)

    def update(self, check: NodeCheck) -> None:
        """Send the state of the node, as far as it has changed, and the pings of the watchdog."""
        lines = []
        if check.is_ready and not self._was_ready and not self._is_stopping:
            self._was_ready = True
            lines.append("READY=1")
        # A line break would begin another message.
        status = " ".join("; ".join(check.problems).split()) or "ready"
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={status}")
        now = clock.monotonic()
        if self.interval is not None and check.is_live and now >= self._next_ping:
            self._next_ping = now + self.interval
            lines.append("WATCHDOG=1")
        if lines:
            self._send(*lines)

    def stop(self, grace: float) -> None:
        """Say that the service stops, and ask for `grace` seconds, if they are more than `TimeoutStopSec`."""
        self._is_stopping = True
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int((grace + STOP_MARGIN) * 1e6)}")

    def _send(self, *lines: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            # The next attempt follows in a second, so only the first failure is logged.
            if not self._has_failed:
                logger.warning("cannot notify systemd: %s", error)
            self._has_failed = True
        else:
            self._has_failed = False
