"""Several nodes on one machine: processes that are started, started again when they die, and stopped."""

import asyncio
import contextlib
import logging
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from oban import backoff, clock
from oban.cli.node import SIGNALS, STOP

logger = logging.getLogger("oban.supervisor")

#: Pause before a node that died is started again: doubled by each death, up to the longest one.
PAUSE, LONGEST_PAUSE = 1.0, 30.0
#: A node that lived for so long has not died of its start: the pauses begin anew.
HEALTHY_AFTER = 60.0
#: How long a node may take to stop after the grace period, before it is killed.
PATIENCE = 30.0

#: The command of a node, from its name and the file descriptor of its link to the supervisor.
Command = Callable[[str, int], Sequence[str]]


class Supervisor:
    """Runs one process per node until it is told to stop.

    Each process has a socket to the supervisor. Over it, it hears of requests to stop, which cannot be taken
    for signals that somebody else sends, and of the end of the supervisor, even by SIGKILL; and it says when
    it has started.
    """

    def __init__(
        self, command: Command, nodes: Sequence[str], environment: Mapping[str, str], grace: float
    ) -> None:
        self._grace = grace
        self._stopping = asyncio.Event()
        self._children = [Child(node, command, environment, self._stopping) for node in nodes]

    async def run(self) -> int:
        """Keep the nodes running until a signal says to stop; the exit code.

        The first node goes ahead alone. If it ends with an error before it has ever started, something is
        wrong that trying again does not put right (a module, the schema): its exit code is returned.
        """
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.stop)
        first, *others = self._children
        running = [asyncio.create_task(first.keep(going_ahead=True))]
        proven = asyncio.create_task(first.ready.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        awaited: list[asyncio.Future[Any]] = [*running, proven, stopping]
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if proven.done():
            running += [asyncio.create_task(child.keep()) for child in others]
        ended = asyncio.gather(*running)
        awaited = [ended, stopping]
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([ended], timeout=self._grace + PATIENCE)
        for task in (proven, stopping):
            task.cancel()
        for child in self._children:
            child.kill()
        return max(await ended)

    def stop(self) -> None:
        """Ask every node to stop; asked again, not to wait for running jobs."""
        logger.info("stopping")
        self._stopping.set()
        for child in self._children:
            child.stop()


class Child:
    """A node in a process of its own."""

    def __init__(
        self, node: str, command: Command, environment: Mapping[str, str], stopping: asyncio.Event
    ) -> None:
        self.node = node
        #: Whether a process of this node has ever started.
        self.ready = asyncio.Event()
        self._command = command
        self._environment = environment
        self._stopping = stopping
        self._process: Process | None = None
        self._link: socket.socket | None = None
        self._started = False

    async def keep(self, going_ahead: bool = False) -> int:
        """Run the process, again whenever it ends, until stopping.

        Returns 0; when `going_ahead`, the exit code of a process that fails before any has started.
        """
        deaths = 0
        while not self._stopping.is_set():
            began = clock.monotonic()
            try:
                ended = await self._live()
            # No memory or no process left, for instance.
            except OSError as error:
                how = f"could not be started: {error}"
            else:
                if self._stopping.is_set():
                    break
                if going_ahead and ended > 0 and not self.ready.is_set():
                    return ended
                how = f"ended by {_signal(-ended)}" if ended < 0 else f"ended with exit code {ended}"
            lived = clock.monotonic() - began
            deaths = 0 if lived > HEALTHY_AFTER else deaths
            pause = backoff.jittered(min(PAUSE * 2 ** min(deaths, backoff.MAX_EXPONENT), LONGEST_PAUSE), 0.5)
            deaths += 1
            logger.error("node %s %s after %.1f s; next start in %.1f s", self.node, how, lived, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
        return 0

    def stop(self) -> None:
        """Pass on one request to stop."""
        if self._link is not None:
            # It may have ended just now.
            with contextlib.suppress(OSError):
                self._link.send(STOP)
            if self._process is not None and not self._started:
                # It does not listen yet, and may be importing for a long time.
                with contextlib.suppress(ProcessLookupError):
                    self._process.terminate()

    def kill(self) -> None:
        """End a process that does not stop."""
        if self._process is not None:
            logger.error("node %s does not stop: killed", self.node)
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _live(self) -> int:
        """Start a process, and wait until it has ended; its exit code, or -N for signal N."""
        link, theirs = socket.socketpair()
        with link:
            link.setblocking(False)
            self._started = False
            self._link = link
            try:
                with theirs:
                    self._process = await asyncio.create_subprocess_exec(
                        *self._command(self.node, theirs.fileno()),
                        env=self._environment,
                        pass_fds=[theirs.fileno()],
                        # Ctrl-C in a terminal goes to this process alone, which passes it on.
                        start_new_session=True,
                    )
                if self._stopping.is_set():
                    self._process.terminate()
                listening = asyncio.create_task(self._listen(link))
                try:
                    return await self._process.wait()
                finally:
                    listening.cancel()
                    # It lets go of the socket before that is closed.
                    await asyncio.wait({listening})
            finally:
                self._link = self._process = None

    async def _listen(self, link: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if await asyncio.get_running_loop().sock_recv(link, 1):
                self._started = True
                self.ready.set()


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
