"""`Live`: tells open pages when to refresh, by server-sent events."""

import asyncio
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from oban.client import Oban
from oban.web.sessions import Sessions
from oban.web.visit import Visit

#: Seconds between two refreshes of an open page.
INTERVAL = 2.0


class Live:
    """Tells the open pages of one instance when to refresh."""

    def __init__(self, oban: Oban, sessions: Sessions) -> None:
        self._oban, self._sessions = oban, sessions

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """An event `refresh` whenever a page should load its content again."""
        while True:
            await asyncio.sleep(INTERVAL)
            yield ServerSentEvent(event="refresh", data="")

    async def close(self) -> None:
        """End all streams."""


async def events(visit: Visit) -> Response:
    """`GET /events`: the stream of events for an open page."""
    return EventSourceResponse(visit.instance.live.events())
