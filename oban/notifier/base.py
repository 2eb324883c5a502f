"""What every notifier does: take in announcements and hand them to those who subscribed."""

import asyncio
import base64
import logging
import math
import zlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import orjson

from oban import clock
from oban.database.aio import Database
from oban.database.transaction import Notice
from oban.errors import ObanError

logger = logging.getLogger("oban.notifier")

Handler = Callable[[dict[str, Any]], None]
#: Payload of "something has changed, look for yourselves".
ANYTHING: dict[str, Any] = {}
#: Longest JSON text that a zipped payload may hold, in bytes. What Oban sends is far shorter.
MAX_INFLATED = 64 * 1024
#: Least time between two log entries about the same kind of trouble, in seconds.
LOG_INTERVAL = 60.0


class Notifier(ABC):
    """Channels: `insert` (a queue has work: `{"queue": name}`) and `signal` (`{"action": …}`).

    A handler gets a payload; an empty one means that anything may have happened.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._handlers: defaultdict[str, list[Handler]] = defaultdict(list)
        self._sparing: defaultdict[str, _Sparing] = defaultdict(_Sparing)
        self._changing = asyncio.Lock()
        self._started = False

    def subscribe(self, channel: str, handler: Handler) -> None:
        """Let `handler` have what is announced on a channel. Called on the event loop."""
        self._handlers[channel].append(handler)

    async def start(self) -> None:
        """Begin to receive; returns once announcements arrive. Does nothing if they do."""
        async with self._changing:
            if not self._started:
                # Even if it is interrupted in the middle, there is something to stop.
                self._started = True
                await self._open()

    async def stop(self) -> None:
        """Stop receiving and give the connection back."""
        async with self._changing:
            if self._started:
                self._started = False
                await self._close()

    @abstractmethod
    async def _open(self) -> None: ...

    @abstractmethod
    async def _close(self) -> None: ...

    def dispatch(self, channel: str, payload: dict[str, Any]) -> None:
        """Hand a payload to the subscribers of a channel; one that fails does not stop the others.

        An `ObanError` says that the payload makes no sense.
        """
        for handler in self._handlers[channel]:
            try:
                handler(payload)
            # Whoever may notify can send as many of these as of garbage.
            except ObanError as error:
                if count := self._sparing[f"refused {channel}"].count():
                    logger.warning(
                        "ignored on the channel %s: %.200s (%s since last said)", channel, error, count
                    )
            except Exception:
                if count := self._sparing[f"handler {channel}"].count():
                    logger.exception(
                        "a handler of the channel %s failed (%s since last said)", channel, count
                    )

    def receive(self, channel: str, text: str) -> None:
        """Hand out what came as text. Garbage is passed over, and logged once a minute at most."""
        payload = decode(text)
        if payload is not None:
            self.dispatch(channel, payload)
        elif count := self._sparing[f"garbage {channel}"].count():
            logger.warning(
                "ignored on the channel %s, not a payload (%s since last said): %.100r", channel, count, text
            )

    def dispatch_all(self, notices: list[Notice]) -> None:
        """Hand out several notices."""
        for channel, payload in notices:
            self.dispatch(channel, payload)

    def wake_everybody(self) -> None:
        """Announce on every channel that anything may have happened."""
        for channel in list(self._handlers):
            self.dispatch(channel, ANYTHING)


class _Sparing:
    """Counts what happens again and again, so that it is logged once in a while only."""

    def __init__(self) -> None:
        self._count = 0
        self._silent_until = -math.inf

    def count(self) -> int:
        """One more: how many there were since the last log entry, or 0 if it is too early for another."""
        self._count += 1
        now = clock.monotonic()
        if now < self._silent_until:
            return 0
        count, self._count = self._count, 0
        self._silent_until = now + LOG_INTERVAL
        return count


def decode(text: str) -> dict[str, Any] | None:
    """The payload in a text, JSON or base64 of gzipped JSON as Oban writes it; None if it is garbage."""
    try:
        payload = orjson.loads(text if text.startswith("{") else _inflated(base64.b64decode(text)))
    except (ValueError, zlib.error):
        return None
    return payload if isinstance(payload, dict) else None


def _inflated(zipped: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    inflated = inflater.decompress(zipped, MAX_INFLATED)
    if not inflater.eof:
        raise ValueError("cut off, or too long")
    return inflated
