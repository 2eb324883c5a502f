"""What every notifier does: take in announcements and hand them to those who subscribed."""

import base64
import gzip
import logging
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import orjson

from oban.repository.transaction import Database, Notice

logger = logging.getLogger("oban.notifier")

Handler = Callable[[dict[str, Any]], None]
#: Payload of "something has changed, look for yourselves".
ANYTHING: dict[str, Any] = {}


class Notifier(ABC):
    """Channels: `insert` (a queue has work: `{"queue": name}`) and `signal` (`{"action": …}`).

    A handler gets a payload; an empty one means that anything may have happened.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._handlers: defaultdict[str, list[Handler]] = defaultdict(list)

    def subscribe(self, channel: str, handler: Handler) -> None:
        """Let `handler` have what is announced on a channel. Called on the event loop."""
        self._handlers[channel].append(handler)

    @abstractmethod
    async def start(self) -> None:
        """Begin to receive; returns once announcements arrive."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop receiving and give the connection back."""

    def dispatch(self, channel: str, payload: dict[str, Any]) -> None:
        """Hand a payload to the subscribers of a channel; one that fails does not stop the others."""
        for handler in self._handlers[channel]:
            try:
                handler(payload)
            except Exception:
                logger.exception("a handler of the channel %s failed", channel)

    def dispatch_all(self, notices: list[Notice]) -> None:
        """Hand out several notices."""
        for channel, payload in notices:
            self.dispatch(channel, payload)

    def wake_everybody(self) -> None:
        """Announce on every channel that anything may have happened."""
        for channel in list(self._handlers):
            self.dispatch(channel, ANYTHING)


def decode(text: str) -> dict[str, Any] | None:
    """The payload in a text, JSON or base64 of gzipped JSON as Oban writes it; None if it is garbage."""
    try:
        raw = text if text.startswith("{") else gzip.decompress(base64.b64decode(text))
        payload = orjson.loads(raw)
    except (ValueError, OSError, EOFError):
        return None
    return payload if isinstance(payload, dict) else None
