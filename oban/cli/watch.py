"""`oban start --watch`: one node, which is restarted whenever the code of the application changes."""

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from oban.cli.requests import SignalRequests
from oban.cli.supervisor import KILL_AFTER, Command, NodeProcess
from oban.errors import ConfigError
from oban.runner.node_check import NodeCheck

logger = logging.getLogger("oban.watch")


class Watcher:
    """Runs a node in a child process, and replaces it after each change of a Python file below a folder.

    Running jobs get the grace period. A node that ends on its own, because the changed code has a syntax
    error for instance, is started again after the next change.

    Raises:
        ConfigError: `watchfiles` is not installed.
    """

    def __init__(self, command: Command, node: str, environment: Mapping[str, str], grace: float) -> None:
        try:
            import watchfiles
        except ImportError:
            raise ConfigError(
                "--watch needs the package watchfiles: pip install 'oban-sqlalchemy[watch]'"
            ) from None
        self._folder = os.getcwd()
        self._grace = grace
        self._stopping = asyncio.Event()
        #: Called with the seconds that a stop can take when it begins.
        self.on_stop: Callable[[float], object] = bool
        self._changed = asyncio.Event()
        self._paths: set[str] = set()
        self._node = NodeProcess(node, command, environment, self._stopping)
        self._changes = watchfiles.awatch(
            self._folder,
            watch_filter=watchfiles.PythonFilter(),
            stop_event=self._stopping,
            ignore_permission_denied=True,
        )

    async def run(self) -> None:
        """Keep the node running until a signal arrives.

        Raises:
            ConfigError: The folder cannot be watched.
        """
        SignalRequests(self.stop).receive()
        # The first step of this task begins to watch, so no change after the node's start is missed.
        watching = asyncio.create_task(self._watch())
        await self._keep_running()
        try:
            await watching
        # Such as the limit of watched folders that the system sets.
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"cannot watch {self._folder}: {error}") from None

    def check(self) -> NodeCheck:
        """Whether the node is live and ready, by its reports. Called from any thread."""
        return self._node.check()

    def _longest_stop(self) -> float:
        return max(self._grace, self._node.grace) + KILL_AFTER

    def stop(self) -> None:
        """Ask the node to stop, and end; a second request ends the grace period."""
        logger.info("stopping")
        if not self._stopping.is_set():
            self.on_stop(self._longest_stop())
        self._stopping.set()
        self._node.stop()

    async def _watch(self) -> None:
        logger.info("watching the Python files in %s: a change restarts the node", self._folder)
        try:
            async for changes in self._changes:
                self._paths |= {path.removeprefix(self._folder + os.sep) for _, path in changes}
                self._changed.set()
        finally:
            # Without a watch, the node would run outdated code.
            if not self._stopping.is_set():
                self.stop()

    async def _keep_running(self) -> None:
        while not self._stopping.is_set():
            self._changed.clear()
            self._paths.clear()
            running = asyncio.create_task(self._node.run_once())
            await self._next_event(running)
            if not running.done():
                if not self._stopping.is_set():
                    logger.info("restarting the node: %s", self._what_changed())
                    self._node.stop()
                await asyncio.wait({running}, timeout=self._longest_stop())
                self._node.kill()
                await running
            elif not self._stopping.is_set():
                _, how = running.result()
                logger.error("the node %s; it starts again after the next change", how)
                await self._next_event()

    async def _next_event(self, *running: asyncio.Task[Any]) -> None:
        """Wait until a file changes, a stop is requested or a task ends."""
        events = [asyncio.create_task(event.wait()) for event in (self._changed, self._stopping)]
        await asyncio.wait([*running, *events], return_when=asyncio.FIRST_COMPLETED)
        for event in events:
            event.cancel()

    def _what_changed(self) -> str:
        first, *more = sorted(self._paths)
        return f"{first} has changed" if not more else f"{first} and {len(more):,} more files have changed"
