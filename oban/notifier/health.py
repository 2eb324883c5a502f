"""Checks that notifications work: the trigger announces inserted jobs, and the listener hears of them.

A node works without both, but its jobs then wait for the next poll.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable

from sqlalchemy import URL

from oban import dialects
from oban.database.aio import Database
from oban.repository import announce
from oban.repository.trigger import CONSEQUENCE, trigger_problem
from oban.telemetry import ListenerDeaf, ListenerHears

logger = logging.getLogger("oban.notifier")

#: Seconds between two checks, each of which runs two statements.
CHECK_INTERVAL = 60.0
#: Seconds until the next check after one that failed, or heard nothing.
RETRY_INTERVAL = 5.0
#: Seconds that a notification can take to arrive.
ECHO_TIMEOUT = 5.0
#: Seconds that a check can take to end.
STOP_TIMEOUT = 1.0


class Health:
    """Checks the notifications of one node, and logs each problem when it begins.

    `listen_url` is the URL of the listening connection, if it is not made as the engine's are. `on_result` is
    called with the result of each check: whether notifications arrive.
    """

    def __init__(self, database: Database, listen_url: URL | None, on_result: Callable[[bool], None]) -> None:
        self._database = database
        self._listen_url = listen_url
        self._on_result = on_result
        self._known: dict[str, str] = {}
        #: Whether the last echo has arrived; None while none was sent on this connection.
        self.echoed: bool | None = None
        self._token = f"oban-echo-{uuid.uuid4()}"
        self._received = asyncio.Event()
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, schema: str | None, pooled: bool) -> None:
        """Check now and from time to time. `pooled` says that the listener goes through a pooler."""
        self._stopped.clear()
        self.echoed = None
        self._task = asyncio.create_task(self._run(schema, pooled), name="oban-listen-health")

    async def stop(self) -> None:
        """Stop checking. A statement that runs can end, as it would be logged as a lost connection."""
        self._stopped.set()
        self._received.set()
        if self._task is not None:
            try:
                await asyncio.wait({self._task}, timeout=STOP_TIMEOUT)
            finally:
                self._task.cancel()

    def hears(self, queue: object) -> bool:
        """Whether a payload about a queue is this node's own echo."""
        if queue != self._token:
            return False
        self._received.set()
        return True

    async def _run(self, schema: str | None, pooled: bool) -> None:
        while not self._stopped.is_set():
            pause = RETRY_INTERVAL
            try:
                if await self._check(schema, pooled):
                    pause = CHECK_INTERVAL
            # The services log that the database is away, and the next check may find it there.
            except Exception as error:
                logger.debug("cannot check whether notifications arrive: %s", dialects.driver_error(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopped.wait()

    async def _check(self, schema: str | None, pooled: bool) -> bool:
        """Returns whether notifications arrive, or the trigger is muted, so that none are expected."""
        trigger = await self._database.read(announce.insert_trigger, schema)
        if trigger is not None:
            problem = trigger_problem(trigger, f"{schema}.oban_jobs")
            self._log("trigger", "" if problem is None else f"{problem.text}; {problem.advice}")
        silence = ""
        if not self._stopped.is_set() and (trigger is None or not trigger.muted):
            silence = await self._echo_problem(pooled)
            if not self._stopped.is_set():
                self.echoed = not silence
            self._log("echo", silence)
        if not self._stopped.is_set():
            self._on_result(not silence)
        return not silence

    async def _echo_problem(self, pooled: bool) -> str:
        self._received.clear()
        await self._database.write(announce.announce_echo, self._token)
        try:
            async with asyncio.timeout(ECHO_TIMEOUT):
                await self._received.wait()
        except TimeoutError:
            return self._silence(pooled)
        return ""

    def _silence(self, pooled: bool) -> str:
        if pooled:
            return (
                f"notifications do not arrive through the pooler, {CONSEQUENCE}; set listen_url to a URL"
                " that leads to the database directly, or notifier='poll'"
            )
        if self._listen_url is not None:
            return (
                f"notifications do not arrive, {CONSEQUENCE}: listen_url leads to another database than the"
                " engine, or to a standby server"
            )
        return (
            f"notifications do not arrive, {CONSEQUENCE}: the listening connection is to another server than"
            " those that write; set listen_url to a URL of that server"
        )

    def _log(self, kind: str, problem: str) -> None:
        telemetry = self._database.telemetry
        if problem and self._known.get(kind) != problem:
            logger.warning("%s", problem)
            telemetry.emit(ListenerDeaf, problem=problem)
        elif not problem and kind in self._known:
            logger.info("notifications arrive again")
            telemetry.emit(ListenerHears)
        if problem:
            self._known[kind] = problem
        else:
            self._known.pop(kind, None)
