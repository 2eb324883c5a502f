"""The node of a client: at most one runner at a time, which can be started again after a stop."""

import asyncio
from typing import Any

from oban import dialects, forks
from oban.config import Options
from oban.database import inherited
from oban.database.aio import Database
from oban.database.loops import LoopLock
from oban.errors import WrongLoop
from oban.runner import deadlines
from oban.runner.lifespan import Lifespan, make_lifespan
from oban.runner.node_check import NodeCheck, check_parts, not_ready
from oban.runner.runner import Runner

#: Seconds that the connections of an engine that was created for a URL can take to close.
DISPOSE_TIMEOUT = 1.0


class Node:
    """Starts and stops runners for a client, on one event loop at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reset()
        inherited.follow(self)

    def _reset(self) -> None:
        self._runner: Runner | None = None
        self._lifespan = Lifespan(None)
        #: A start and a stop take turns.
        self._turn = LoopLock()
        self._stopping: asyncio.Task[None] | None = None
        #: Whether the event loop of a runner was closed without a stop.
        self._is_lost = False

    def _renew(self) -> None:
        """Run nothing in this process, which was forked from the one of the runner."""
        inherited.leave_alone(self._runner, self._stopping)
        self._reset()

    @property
    def runner(self) -> Runner | None:
        """The runner, unless its event loop was closed without a stop."""
        loop = self._database.loop
        if self._runner is not None and loop is not None and loop.is_closed():
            self._runner.abandon()
            self._runner = self._database.loop = None
            self._is_lost = True
        return self._runner

    @property
    def is_in_this_process(self) -> bool:
        """Whether a runner has started, or is starting, in this process."""
        loop = self._database.loop
        return loop is not None and not loop.is_closed() and not forks.is_child

    def check(self, options: Options) -> NodeCheck:
        """Whether the node is live and ready. Called from any thread."""
        if not options.queues:
            return not_ready("this client has no queues to run")
        runner, loop, stopping = self._runner, self._database.loop, self._stopping
        if self._is_lost or (loop is not None and loop.is_closed()):
            return not_ready("the event loop has ended without a stop", is_live=False)
        if runner is None:
            if loop is not None:
                return not_ready("the node is starting")
            return not_ready("the node has not started" if stopping is None else "the node has stopped")
        needed = (runner.stager, *runner.producers.values())
        found = check_parts(runner.watchdog, runner.heartbeat_thread, needed, runner.notifier)
        if stopping is None or stopping.done():
            return found
        return NodeCheck(found.is_live, False, ("the node is stopping", *found.problems))

    async def start(self, client: Any, options: Options) -> None:
        """Start a runner if the client's options have queues, unless there is one already."""
        self._lifespan.refuse_within()
        async with self._turn:
            if self.runner is not None:
                self._refuse_other_loop("started again there")
            elif options.queues:
                self._database.enter_loop()
                self._is_lost = False
                self._lifespan = make_lifespan(options.lifespan, client)
                try:
                    self._runner = await self._start_runner(options)
                finally:
                    if self._runner is None:
                        self._database.loop = None

    async def _start_runner(self, options: Options) -> Runner:
        try:
            await self._database.check_node()
            runner = Runner(self._database, options, self._lifespan)
            # Its first jobs may enqueue others before it has started.
            self._database.loop = asyncio.get_running_loop()
            await runner.start()
        except Exception as error:
            # What the application raises can look like an error of this database.
            if error is self._lifespan.error:
                raise
            if unavailable := dialects.unavailable(self._database.engine.url, error):
                raise unavailable from error
            raise
        return runner

    def _refuse_other_loop(self, call: str) -> None:
        loop = self._database.loop
        if loop is not None and loop is not asyncio.get_running_loop():
            raise WrongLoop(f"this Oban runs jobs on another event loop, and cannot be {call}")

    async def stop(self) -> None:
        """Stop the runner, if there is one, and close the database. A second call ends the grace period."""
        self._lifespan.refuse_within()
        if self.runner is not None:
            self._refuse_other_loop("stopped on this one")
        if self._stopping is not None and self._stopping.get_loop() is not asyncio.get_running_loop():
            self._stopping = None
        # The first caller may have been cancelled; the stop itself goes on in its own task.
        if self._stopping is None or self._stopping.done():
            self._stopping = asyncio.create_task(self._stop())
        elif self.runner is not None:
            self.runner.hurry()
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        # A start that is under way ends first.
        async with self._turn:
            if self.runner is not None:
                self._refuse_other_loop("stopped on this one")
            try:
                if self._runner is not None:
                    await self._runner.stop()
            finally:
                self._runner = self._database.loop = None
                await deadlines.close(self._database, DISPOSE_TIMEOUT)
