"""Several nodes on one machine, each in a process that is restarted when it dies."""

import asyncio
import contextlib
import logging
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oban import backoff, clock
from oban.cli.node import READY, STOP
from oban.cli.reports import Reports, combined
from oban.cli.requests import SignalRequests
from oban.runner.node_check import NodeCheck, not_ready

logger = logging.getLogger("oban.supervisor")

#: Seconds before a node that died is restarted: doubled by each death, up to the longest pause.
RESTART_PAUSE, LONGEST_RESTART_PAUSE = 1.0, 30.0
#: After a node has run for this many seconds, the pauses begin anew.
HEALTHY_AFTER = 60.0
#: Seconds after the end of the grace period at which a node that has not stopped is killed.
KILL_AFTER = 30.0

#: Returns the command of a node from its name and the file descriptor of its socket to the supervisor.
Command = Callable[[str, int], Sequence[str]]


class Supervisor:
    """Runs one process per node until it is told to stop.

    A socket connects it with each process. Through it, the node receives requests to stop, which cannot be
    confused with signals from elsewhere, and learns of the supervisor's end, even by SIGKILL; and the node
    reports that it has started.
    """

    def __init__(
        self, command: Command, nodes: Sequence[str], environment: Mapping[str, str], grace: float
    ) -> None:
        self._grace = grace
        self._stopping = asyncio.Event()
        #: Called with the seconds that a stop can take when it begins.
        self.on_stop: Callable[[float], object] = bool
        self._nodes = [NodeProcess(node, command, environment, self._stopping) for node in nodes]

    async def run(self) -> int:
        """Keep the nodes running until a signal arrives; returns the exit code.

        The first node starts alone. If it fails before it has ever started, retrying would not help (a
        missing module, say, or a missing schema), and its exit code is returned.
        """
        SignalRequests(self.stop).receive()
        first, *rest = self._nodes
        running = [asyncio.create_task(first.run(is_first=True))]
        ready = asyncio.create_task(first.ready.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        awaited: list[asyncio.Future[Any]] = [*running, ready, stopping]
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            running += [asyncio.create_task(node.run()) for node in rest]
        ended = asyncio.gather(*running)
        awaited = [ended, stopping]
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([ended], timeout=self._longest_stop())
        for task in (ready, stopping):
            task.cancel()
        for node in self._nodes:
            node.kill()
        return max(await ended)

    def check(self) -> NodeCheck:
        """Whether all nodes are live and ready, by their reports. Called from any thread."""
        return combined({node.node: node.check() for node in self._nodes})

    def _longest_stop(self) -> float:
        return max(self._grace, *(node.grace for node in self._nodes)) + KILL_AFTER

    def stop(self) -> None:
        """Ask every node to stop; a second request ends the grace period."""
        logger.info("stopping")
        if not self._stopping.is_set():
            self.on_stop(self._longest_stop())
        self._stopping.set()
        for node in self._nodes:
            node.stop()


@dataclass
class NodeProcess:
    """A node in a child process."""

    node: str
    command: Command
    environment: Mapping[str, str]
    stopping: asyncio.Event
    #: Set once any process of this node has started.
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    #: The grace period that the node reports, in seconds: its application may set it.
    grace: float = 0
    _process: Process | None = None
    _link: socket.socket | None = None
    _started: bool = False
    _reports: Reports = field(default_factory=Reports)

    async def run(self, is_first: bool = False) -> int:
        """Run the process, and restart it whenever it ends, until the supervisor stops.

        Returns 0 or, for the first node, the exit code of a process that failed before any has started.
        """
        deaths = 0
        while not self.stopping.is_set():
            began = clock.monotonic()
            code, how = await self.run_once()
            if self.stopping.is_set():
                break
            if is_first and code > 0 and not self.ready.is_set():
                return code
            uptime = clock.monotonic() - began
            if uptime > HEALTHY_AFTER:
                deaths = 0
            doubled = RESTART_PAUSE * 2 ** min(deaths, backoff.MAX_EXPONENT)
            pause = backoff.jittered(min(doubled, LONGEST_RESTART_PAUSE), 0.5)
            deaths += 1
            logger.error("node %s %s after %.1f s; next start in %.1f s", self.node, how, uptime, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pause)
        return 0

    def check(self) -> NodeCheck:
        """Whether the node is live and ready, by its reports. Called from any thread."""
        if self._process is None:
            return not_ready("no process of this node runs")
        return self._reports.check()

    def stop(self) -> None:
        if self._link is not None:
            # The process may have ended just now.
            with contextlib.suppress(OSError):
                self._link.send(STOP)
            if self._process is not None and not self._started:
                # It does not read from the socket yet, and may be importing for a long time.
                with contextlib.suppress(ProcessLookupError):
                    self._process.terminate()

    def kill(self) -> None:
        if self._process is not None:
            logger.error("node %s did not stop and was killed", self.node)
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def run_once(self) -> tuple[int, str]:
        """Start a process and wait until it ends.

        Returns:
            Its exit code, -N for signal N, or 0 if it could not be started; and how it ended, in words.
        """
        try:
            code = await self._run_process()
        # Out of memory or processes, for instance.
        except OSError as error:
            return 0, f"could not be started: {error}"
        return code, f"ended by {_signal(-code)}" if code < 0 else f"ended with exit code {code}"

    async def _run_process(self) -> int:
        link, child_link = socket.socketpair()
        with link:
            link.setblocking(False)
            self._started = False
            self._reports = Reports()
            self._link = link
            try:
                with child_link:
                    self._process = await asyncio.create_subprocess_exec(
                        *self.command(self.node, child_link.fileno()),
                        env=self.environment,
                        pass_fds=[child_link.fileno()],
                        # Ctrl-C in a terminal goes to the supervisor alone, which forwards it.
                        start_new_session=True,
                    )
                if self.stopping.is_set():
                    self._process.terminate()
                listening = asyncio.create_task(self._listen(link))
                try:
                    return await self._process.wait()
                finally:
                    listening.cancel()
                    # The task must let go of the socket before that is closed.
                    await asyncio.wait({listening})
            finally:
                self._link = self._process = None

    async def _listen(self, link: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while received := await asyncio.get_running_loop().sock_recv(link, 4096):
                if not self._started:
                    # Reports can follow in the same piece.
                    report, _, received = received.partition(b"\n")
                    self._started = True
                    self.grace = float(report.removeprefix(READY) or 0)
                    self.ready.set()
                self._reports.receive(received)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
