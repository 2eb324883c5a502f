"""One node in this process: it runs until it is told to stop, by signals or by its supervisor."""

import asyncio
import contextlib
import importlib
import importlib.util
import logging
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from oban import Oban
from oban.errors import DatabaseUnavailable

logger = logging.getLogger("oban")

#: Seconds between two attempts to reach the database at the start.
RETRY = 2.0
#: How long a start may go on, in seconds, once the node is told to stop.
PATIENCE = 1.0
#: What asks a node to stop.
SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: What a supervisor writes to ask its node to stop, and what the node writes when it has started.
STOP, READY = b"s", b"r"


def leave(*_: Any) -> NoReturn:
    """End the process with exit code 0, without waiting for threads.

    A job in a thread cannot be stopped, and Python would wait for it: its row is back in the queue
    already, so there is nothing to wait for.
    """
    with contextlib.suppress(Exception):
        logging.shutdown()
        sys.stdout.flush()
    os._exit(0)


def leave_at_signals() -> None:
    """Let a request to stop end the process, as long as nothing has been started.

    Not by an exception, which a module that is just being imported could swallow.
    """
    for number in SIGNALS:
        signal.signal(number, leave)


def run(oban: Oban, link: socket.socket | None = None) -> NoReturn:
    """Run a node until it is told to stop; `link` goes to the supervisor, if it has one."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(oban, link))
        leave()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    return factory


class _Requests:
    """Requests to stop. The second one says not to wait.

    A request may come by two ways at once: a signal to all processes of a group or a service is also
    passed on by the supervisor. So each way counts for itself.
    """

    def __init__(self, hurry: Callable[[], None]) -> None:
        self.asked = asyncio.Event()
        self._hurry = hurry
        self._ways: Counter[str] = Counter()

    def __call__(self, way: str) -> None:
        self._ways[way] += 1
        self.asked.set()
        if self._ways[way] > 1:
            self._hurry()


async def _serve(oban: Oban, link: socket.socket | None) -> None:
    loop = asyncio.get_running_loop()
    hurried: list[asyncio.Task[None]] = []

    def hurry() -> None:
        if not hurried:
            logger.info("not waiting for running jobs any longer")
            hurried.append(loop.create_task(oban.stop()))

    requests = _Requests(hurry)
    for number in SIGNALS:
        loop.add_signal_handler(number, requests, "signal")
    obeying = loop.create_task(_obey(link, requests)) if link else None
    if await _started(oban, requests.asked):
        if link:
            with contextlib.suppress(OSError):
                await loop.sock_sendall(link, READY)
        await requests.asked.wait()
        logger.info("stopping: waiting for running jobs, %g s at most", oban.options.shutdown_grace_period)
        await oban.stop()
        logger.info("stopped")
    await asyncio.gather(*hurried)
    if obeying:
        obeying.cancel()


async def _obey(link: socket.socket, requests: _Requests) -> None:
    """Pass on what the supervisor says; its end is a request to stop, too."""
    link.setblocking(False)
    with contextlib.suppress(OSError):
        while said := await asyncio.get_running_loop().sock_recv(link, 16):
            for _ in said:
                requests("supervisor")
    if not requests.asked.is_set():
        logger.error("the supervisor is gone")
    requests("end of the supervisor")


async def _started(oban: Oban, asked: asyncio.Event) -> bool:
    """Start, however long the database takes to be reachable; False when asked to stop before."""
    while not asked.is_set():
        starting = asyncio.create_task(oban.start())
        waiting = asyncio.create_task(asked.wait())
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        # A start that is interrupted leaves more behind than a stop after it does.
        await asyncio.wait({starting}, timeout=PATIENCE)
        if not starting.done():
            starting.cancel()
        try:
            await starting
        except asyncio.CancelledError:
            break
        except DatabaseUnavailable as error:
            logger.error("%s; trying again in %g s", error, RETRY)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asked.wait(), RETRY)
        else:
            return True
    return False
