"""What all notifiers share: the channels, their subscribers, and the decoding of payloads."""

import asyncio
import base64
import contextlib
import logging
import zlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import orjson

from oban import clock
from oban.database.aio import Database
from oban.errors import ObanError
from oban.log_limits import LogLimit
from oban.telemetry import ListenerConnected, ListenerDisconnected
from oban.telemetry.errors import error_fields

logger = logging.getLogger("oban.notifier")

Handler = Callable[[dict[str, Any]], None]
#: The payload that stands for any change: subscribers look at the tables.
ANY_CHANGE: dict[str, Any] = {}
#: Longest JSON text that a gzipped payload can contain, in bytes. Those that Oban sends are far shorter.
MAX_INFLATED = 64 * 1024


class Notifier(ABC):
    """Receives payloads on channels and passes them to the channels' subscribers.

    Channels are `insert` (a queue has work: `{"queue": name}`) and `signal` (`{"action": …}`). An empty
    payload means that anything may have changed.
    """

    #: How it notices what other processes do: `listen`, `data_version` or `poll`.
    kind: str

    def __init__(self, database: Database) -> None:
        self.database = database
        self._handlers: defaultdict[str, list[Handler]] = defaultdict(list)
        self._log_limits: defaultdict[str, LogLimit] = defaultdict(LogLimit)
        self._start_stop = asyncio.Lock()
        self._started = False
        #: Whether the last event was `ListenerConnected`; None before the first event.
        self._is_connected: bool | None = None
        #: When notifications stopped to arrive; minus infinity before the first one, None while they arrive.
        self._silent_since: float | None = None
        #: Receives in the background, if the notifier needs that.
        self._task: asyncio.Task[None] | None = None

    @property
    def hears(self) -> bool | None:
        """Whether notifications arrive; None if that is not known. Can be read from any thread."""
        return None

    def _note_connected(self) -> None:
        if self._is_connected is not True:
            self._is_connected = True
            self.database.telemetry.emit(ListenerConnected, kind=self.kind)

    def _note_disconnected(self, error: Exception) -> None:
        if self._is_connected is not False:
            self._is_connected = False
            if self.database.telemetry.wants(ListenerDisconnected):
                fields = error_fields(error)
                self.database.telemetry.emit(ListenerDisconnected, kind=self.kind, **fields)

    def silent_for(self) -> float:
        """The seconds for which notifications have not arrived, as far as this notifier knows.

        Infinite before the first one, and 0 while they arrive or if it does not expect any. Called from any
        thread.
        """
        since = self._silent_since
        return 0.0 if since is None else clock.monotonic() - since

    def _note_hearing(self, hears: bool) -> None:
        if hears:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = clock.monotonic()

    def subscribe(self, channel: str, handler: Handler) -> None:
        """Call `handler` with each payload of a channel, on the event loop."""
        self._handlers[channel].append(handler)

    async def start(self) -> None:
        """Start to receive; does nothing if it is started. Returns once payloads arrive."""
        async with self._start_stop:
            if not self._started:
                # Set first, so that `stop` cleans up after a start that was interrupted.
                self._started = True
                await self._open()

    async def stop(self) -> None:
        """Stop receiving and close the connection."""
        async with self._start_stop:
            if self._started:
                self._started = False
                await self._close()

    @abstractmethod
    async def _open(self) -> None: ...

    async def _close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def dispatch(self, channel: str, payload: dict[str, Any]) -> None:
        """Pass a payload to each subscriber of a channel, also if one of them fails.

        A subscriber raises an `ObanError` if it does not understand the payload.
        """
        for handler in self._handlers[channel]:
            try:
                handler(payload)
            # Anyone who can notify can send many of these, so they are logged as rarely as garbage.
            except ObanError as error:
                if count := self._log_limits[f"refused {channel}"].count():
                    logger.warning(
                        "ignored a payload on channel %s: %.200s (%s since the last report)",
                        *(channel, error, count),
                    )
            except Exception:
                if count := self._log_limits[f"failed {channel}"].count():
                    logger.exception(
                        "a subscriber of channel %s failed (%s since the last report)", channel, count
                    )

    def receive(self, channel: str, text: str) -> None:
        """Decode and dispatch a notification. Garbage is ignored, and logged up to once a minute."""
        payload = decode(text)
        if payload is not None:
            self.dispatch(channel, payload)
        elif count := self._log_limits[f"garbage {channel}"].count():
            logger.warning(
                "ignored garbage on channel %s (%s since the last report): %.100r", channel, count, text
            )

    def wake_all(self) -> None:
        """Tell the subscribers of every channel that anything may have changed."""
        for channel in list(self._handlers):
            self.dispatch(channel, ANY_CHANGE)


def decode(text: str) -> dict[str, Any] | None:
    """Decode a payload: JSON, or base64 of gzipped JSON as Oban for Elixir sends it. None for garbage."""
    try:
        payload = orjson.loads(text if text.startswith("{") else _inflate(base64.b64decode(text)))
    except (ValueError, zlib.error):
        return None
    return payload if isinstance(payload, dict) else None


def _inflate(zipped: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    inflated = inflater.decompress(zipped, MAX_INFLATED)
    if not inflater.eof:
        raise ValueError("truncated or too long")
    return inflated
