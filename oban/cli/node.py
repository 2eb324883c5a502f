"""One node in this process, which runs until a signal or its supervisor stops it."""

import asyncio
import atexit
import contextlib
import importlib
import importlib.util
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NoReturn

from oban import Oban, error_texts
from oban.cli import banner
from oban.cli.logs import Console
from oban.cli.reports import Reporter
from oban.cli.requests import SignalRequests
from oban.cli.status import Status
from oban.errors import DatabaseUnavailable
from oban.stop_signals import exit_now

logger = logging.getLogger("oban")

#: Seconds between two attempts to reach the database at the start.
CONNECT_INTERVAL = 2.0
#: Seconds that a start under way can continue once the node is told to stop.
START_GRACE = 1.0
#: Seconds that the handlers of `atexit` get when the node has stopped.
EXIT_TIMEOUT = 3.0
#: The supervisor sends STOP to its nodes; a node sends READY once it has started, and its grace period.
STOP, READY = b"s", b"r"


def exit_after_handlers() -> NoReturn:
    """End the process like `exit_now`, after what the application has registered with `atexit`.

    This is how Sentry, for example, sends its last events. It gets `EXIT_TIMEOUT` seconds.
    """
    timer = threading.Timer(EXIT_TIMEOUT, exit_now)
    timer.daemon = True
    timer.start()
    atexit._run_exitfuncs()
    exit_now()


def run(
    instance: Coroutine[Any, Any, Oban],
    link: socket.socket | None,
    console: Console,
    status: Status,
    announced: str | None,
    reports: bool,
) -> NoReturn:
    """Run a node until it is told to stop.

    Args:
        instance: Returns the node's `Oban`, on its event loop.
        link: The socket to the supervisor, if there is one.
        console: Applied again each time that code of the application has run.
        status: Reports the health of the node.
        announced: The nodes that the banner names, empty for this one. A node with a supervisor prints no
            banner without it.
        reports: Whether the node reports its health to a supervisor.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        loop = runner.get_loop()
        serving = loop.create_task(_serve(instance, link, console, status, announced, reports))
        while not serving.done():
            try:
                loop.run_until_complete(serving)
            except BaseException as error:
                if serving.done() or loop.is_closed():
                    raise
                # A task that a job has created raised SystemExit, which ends the loop, or called its stop().
                logger.error("the event loop was stopped by %s and goes on", error_texts.error_text(error))
        status.close()
        exit_after_handlers()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    return factory


class _StopRequests:
    """Requests to stop; the second one ends the grace period.

    One request can arrive twice: a signal to a whole process group or service reaches this process, and the
    supervisor forwards it, too. So requests are counted separately for each source.
    """

    def __init__(self, oban: Oban, status: Status) -> None:
        self.received = asyncio.Event()
        self.second_stop: asyncio.Task[None] | None = None
        self._oban = oban
        self._status = status
        self._counts: Counter[str] = Counter()

    def add(self, source: str) -> None:
        if not self.received.is_set():
            self._status.stop(self._oban.options.shutdown_grace_period)
        self._counts[source] += 1
        self.received.set()
        if self._counts[source] > 1 and self.second_stop is None:
            logger.info("not waiting for running jobs any longer")
            self.second_stop = asyncio.create_task(self._oban.stop())


async def _serve(
    instance: Coroutine[Any, Any, Oban],
    link: socket.socket | None,
    console: Console,
    status: Status,
    announced: str | None,
    reports: bool,
) -> None:
    oban = await instance
    status.check = oban.check_node
    status.on_client(oban)
    console.apply()
    if announced is not None or link is None:
        banner.show(oban, announced or oban.options.node, as_record=not console.is_text)
    loop = asyncio.get_running_loop()
    requests = _StopRequests(oban, status)
    signals = SignalRequests(partial(requests.add, "signal"))
    signals.receive()
    listening = loop.create_task(_listen(link, requests)) if link else None
    grace = oban.options.shutdown_grace_period
    if await _start(oban, requests.received, status):
        console.apply()
        if link:
            with contextlib.suppress(OSError):
                await loop.sock_sendall(link, READY + f"{grace:g}\n".encode())
            if reports:
                status.report_to(Reporter(link).report)
        await signals.wait(requests.received)
        running = sum(len(queue.running) for queue in oban.check_all_queues())
        hint = "; a second Ctrl-C or SIGTERM puts them back into their queues at once" if running else ""
        logger.info("stopping: waiting for running jobs, up to %g s (running: %s%s)", grace, running, hint)
        await oban.stop()
        logger.info("stopped")
    if requests.second_stop:
        await requests.second_stop
    if listening:
        listening.cancel()


async def _listen(link: socket.socket, requests: _StopRequests) -> None:
    """Receive the supervisor's requests; if it ends, that is a request to stop as well."""
    link.setblocking(False)
    with contextlib.suppress(OSError):
        while received := await asyncio.get_running_loop().sock_recv(link, 16):
            for _ in received:
                requests.add("supervisor")
    if not requests.received.is_set():
        logger.error("the supervisor has ended")
    requests.add("end of the supervisor")


async def _start(oban: Oban, stop_requested: asyncio.Event, status: Status) -> bool:
    """Start, and retry as long as the database cannot be reached; False if a stop was requested first."""
    while not stop_requested.is_set():
        starting = asyncio.create_task(oban.start())
        waiting = asyncio.create_task(stop_requested.wait())
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        # To interrupt a start leaves more behind than to stop after it.
        await asyncio.wait({starting}, timeout=START_GRACE)
        if not starting.done():
            starting.cancel()
        try:
            await starting
        except asyncio.CancelledError:
            break
        except DatabaseUnavailable as error:
            logger.error("%s; trying again in %g s", error, CONNECT_INTERVAL)
            status.problem = "the node is starting: the database cannot be reached"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop_requested.wait(), CONNECT_INTERVAL)
        else:
            status.problem = None
            return True
    return False
