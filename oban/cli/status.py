"""`Status`: reports the health of the node over HTTP, to systemd and to a supervisor."""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from oban.cli.status_server import HOST, Answer, Request, Route, StatusServer
from oban.cli.systemd import Systemd
from oban.runner.node_check import NodeCheck, not_ready

if TYPE_CHECKING:
    from oban import Oban

logger = logging.getLogger("oban.status")

#: Seconds between two checks for systemd and a supervisor.
INTERVAL = 1.0


class Status:
    """Reports the health of this process, from threads that work while the event loop is blocked.

    `check` is replaced when there is a node to check, and `problem` set while the node cannot start.
    """

    def __init__(self, systemd: Systemd | None = None) -> None:
        self.check: Callable[[], NodeCheck] = partial(not_ready, "the node is starting")
        self.problem: str | None = None
        #: Called with the node's client when it has been made.
        self.on_client: Callable[[Oban], object] = bool
        #: Called with each check, one a second.
        self.listeners: list[Callable[[NodeCheck], object]] = []
        #: The routes of the server.
        self.routes: dict[str, Route] = {
            "/live": partial(self._answer, ("live",)),
            "/ready": partial(self._answer, ("ready",)),
            "/": partial(self._answer, ("live", "ready")),
        }
        self._server: StatusServer | None = None
        self._systemd = systemd
        self._is_stopping = self._is_closed = False
        self._grace: float | None = None
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None
        if systemd is not None:
            self._watch()

    @property
    def is_watched(self) -> bool:
        """Whether the health of the process is reported anywhere."""
        return self._systemd is not None or self._server is not None

    def serve(self, values: Mapping[str, Any]) -> None:
        """Start the server that the settings ask for, if they do.

        Raises:
            ConfigError: It cannot listen there.
        """
        if (port := values.get("health_port")) is not None:
            self._server = StatusServer(values.get("health_host", HOST), port, self.routes)
            self._server.start()
            logger.info("the health endpoints are %s/live and /ready", self._server.url)

    def report_to(self, listener: Callable[[NodeCheck], object]) -> None:
        """Call a function with a check every second, from a thread."""
        self.listeners.append(listener)
        self._watch()

    def stop(self, grace: float) -> None:
        """Note that the process begins to stop, which can take `grace` seconds."""
        self._grace = grace
        self._is_stopping = True
        self._woken.set()

    def close(self) -> None:
        """Send nothing more to systemd and to a supervisor."""
        self._is_closed = True
        self._woken.set()

    def now(self) -> NodeCheck:
        """Check the node. Called from any thread."""
        if self.problem is not None:
            return not_ready(self.problem)
        check = self.check()
        stopping = "the node is stopping"
        if self._is_stopping and stopping not in check.problems:
            return NodeCheck(check.is_live, False, (stopping, *check.problems))
        return check

    def _answer(self, keys: tuple[str, ...], _: Request) -> Answer:
        check = self.now()
        found = {"live": check.is_live, "ready": check.is_ready}
        document = {**{key: found[key] for key in keys}, "problems": check.problems}
        is_fine = all(found[key] for key in keys)
        return Answer.of(document, HTTPStatus.OK if is_fine else HTTPStatus.SERVICE_UNAVAILABLE)

    def _watch(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._report, name="oban-health", daemon=True)
            self._thread.start()

    def _report(self) -> None:
        pause = INTERVAL
        if self._systemd is not None and self._systemd.interval is not None:
            pause = min(pause, self._systemd.interval / 2)
        while not self._is_closed:
            # A check that fails once must not end the watchdog's pings.
            try:
                self._report_once()
            except Exception:
                logger.exception("the health of the node could not be reported")
            self._woken.wait(pause)
            self._woken.clear()

    def _report_once(self) -> None:
        check, grace = self.now(), self._grace
        if self._systemd is not None:
            if grace is not None:
                self._grace = None
                self._systemd.stop(grace)
            self._systemd.update(check)
        for listener in list(self.listeners):
            listener(check)
