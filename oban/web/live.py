"""`Live`: tells open pages when to refresh, by server-sent events."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import orjson
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from oban.client import Oban
from oban.error_texts import error_line
from oban.log_limits import LogLimit
from oban.web.sampler import INTERVAL, MAX_PAUSE, NO_ANSWER, LiveSample, Sampler
from oban.web.sessions import Sessions
from oban.web.visit import Visit

_log = logging.getLogger("oban.web")

#: Seconds after which a page refreshes even if nothing seems to have changed.
LONGEST = 10.0
#: How many pages refresh within a second, all together. With more open pages, each refreshes less often.
#: A refresh takes some 15 ms of CPU time, which jobs do not get if they run on the same event loop.
PER_SECOND = 3
#: Seconds after which a stream ends. The browser opens another one, whose access is checked again.
LIFETIME = 600.0
#: How many streams an instance has at most. Pages without one ask at an interval.
MAX_STREAMS = 2_000
#: Seconds between two comments that keep proxies from closing a stream.
PING = 15.0
#: Seconds in which streams end by themselves when the server stops, before they are cancelled, which uvicorn
#: would log as an error of each.
GRACE = 2.0


class Live:
    """Tells the open pages of one instance when to refresh.

    One task reads samples for all of them, and only while there is an open page.

    Args:
        oban: The client of the instance.
        sessions: The dashboard's own connections.
        enabled: Whether there are streams at all.
    """

    def __init__(self, oban: Oban, sessions: Sessions, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.streams = 0
        self._sampler = Sampler(oban, sessions)
        self._log_limit = LogLimit()
        self._task: asyncio.Task[None] | None = None
        self._news, self._end = asyncio.Event(), asyncio.Event()
        #: Set when the server stops, before it waits for the streams.
        self.server_stops = anyio.Event()
        self._version = self._failed = 0
        self._digest: Any = None
        self._is_away = False

    async def sample(self, max_age: float = INTERVAL) -> LiveSample:
        """The last sample of the instance, or a new one if that is older than `max_age` seconds.

        Requests that ask at the same time share one sample. Where reading one takes long, it is used for up
        to 30 seconds.

        Raises:
            WebError, TimeoutError, ObanError, SQLAlchemyError, OSError: The database does not answer.
        """
        return await self._sampler.sample(max_age)

    @property
    def failed(self) -> int:
        """How many jobs have been discarded in the hour before the last sample."""
        return self._failed

    @property
    def is_full(self) -> bool:
        """Whether there can be no further stream."""
        return self._end.is_set() or not self.enabled or self.streams >= MAX_STREAMS

    @property
    def pause(self) -> float:
        """Seconds between two refreshes of a page: the more pages are open, the longer."""
        return max(INTERVAL, self.streams / PER_SECOND)

    async def events(self) -> AsyncGenerator[ServerSentEvent]:
        """The events for one page: `refresh`, and `unavailable` while the database does not answer."""
        ends = time.monotonic() + LIFETIME * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
        self.streams += 1
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            # The browser waits so long before it opens another stream.
            yield ServerSentEvent(comment="open", retry=random.randint(2_000, 5_000))  # noqa: S311 - jitter
            seen, last = self._version, time.monotonic()
            while time.monotonic() < ends:
                pause = self.pause
                # By chance, so that not all pages refresh at once.
                await _wait(self._end, last + pause * random.uniform(0.75, 1.25))  # noqa: S311 - jitter
                if self._version == seen and not self._end.is_set():
                    await _wait(self._news, last + max(LONGEST, pause))
                if self._end.is_set():
                    return
                seen, last = self._version, time.monotonic()
                yield self._event()
        finally:
            self.streams -= 1
            if not self.streams and self._task is not None:
                self._task.cancel()
                self._task = None

    async def close(self) -> None:
        """End all streams."""
        self._end.set()
        self._publish()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._sampler.close()

    def _event(self) -> ServerSentEvent:
        if self._is_away:
            return ServerSentEvent(event="unavailable", data="{}")
        return ServerSentEvent(event="refresh", data=orjson.dumps({"failed": self._failed}).decode())

    def _publish(self) -> None:
        self._version += 1
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            await self.server_stops.wait()
            self._end.set()
            self._publish()

    async def _watch(self) -> None:
        failures = 0
        while True:
            try:
                sample = await self._sampler.read()
            except NO_ANSWER as error:
                failures += 1
                if self._log_limit.count():
                    _log.warning("the dashboard cannot read the state of the queues: %s", error_line(error))
                if not self._is_away:
                    self._is_away = True
                    self._publish()
                await asyncio.sleep(min(MAX_PAUSE, INTERVAL * failures))
                continue
            failures = 0
            digest, self._failed = sample.digest, sample.failed
            if self._is_away or digest != self._digest:
                self._is_away, self._digest = False, digest
                self._publish()
            await asyncio.sleep(sample.pause)


async def _wait(event: asyncio.Event, until: float) -> None:
    """Wait until an event is set, or until a time."""
    try:
        async with asyncio.timeout(max(0.0, until - time.monotonic())):
            await event.wait()
    except TimeoutError:
        pass


async def events(visit: Visit) -> Response:
    """`GET /events`: the stream of events for an open page."""
    live = visit.instance.live
    if live.is_full:
        # With this status, the browser does not try again, and the page asks at an interval.
        return Response(status_code=204)
    return EventSourceResponse(
        live.events(),
        ping=PING,
        send_timeout=2 * PING,
        headers={"Cache-Control": "no-store, no-transform"},
        shutdown_event=live.server_stops,
        shutdown_grace_period=GRACE,
    )
