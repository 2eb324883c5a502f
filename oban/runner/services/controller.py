"""Keeps the queues of this node as they were configured, and as was said since."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from oban.config import Options
from oban.database.aio import Database
from oban.errors import ConfigError
from oban.repository import queue_settings
from oban.repository.queue_settings import QueueCommand, QueueState
from oban.runner.services.base import Service

#: Most changes of other implementations that wait to be stored.
MAX_HEARD = 1000
#: Signals that are about something else than queues.
_OTHERS = ("pkill", "stage")


class Controller(Service):
    """Reads what is stored and applies it: when told to look, and every `control_interval`.

    What other implementations say they only signal: it is stored for this node first.
    """

    def __init__(
        self,
        database: Database,
        options: Options,
        arrange: Callable[[Mapping[str, QueueState]], Awaitable[None]],
    ) -> None:
        super().__init__("controller", options.control_interval)
        self.database = database
        self.options = options
        self._arrange = arrange
        self._heard: list[QueueCommand] = []
        #: The signal that comes next, if it is stored already.
        self._stored: object = None
        self._turn = asyncio.Lock()

    async def tick(self) -> float | None:
        await self.sync()
        return None

    async def sync(self) -> None:
        """Apply what is stored by now. Returns once it is in effect; raises the database's error."""
        name, node, configured = self.options.name, self.options.node, self.options.queues
        # One at a time, so that what was read later is applied later.
        async with self._turn:
            await self._store_heard()
            wanted = await self.database.read(queue_settings.wanted, name, node, configured)
            await self._arrange(wanted)

    async def _store_heard(self) -> None:
        heard, self._heard = self._heard, []
        if not heard:
            return
        name, node, configured = self.options.name, self.options.node, self.options.queues
        try:
            await self.database.write(queue_settings.store_received, name, node, configured, heard)
        except BaseException as error:
            # Otherwise it is refused for what it says, and would be again and again.
            if not isinstance(error, Exception) or self.database.dialect.is_connection_error(error):
                self._heard = heard + self._heard
            raise

    def on_signal(self, payload: dict[str, Any]) -> None:
        """Take in a signal; raises `ConfigError` or `InvalidJob` for one that makes no sense."""
        if payload.get("action") in _OTHERS:
            return
        if payload.get("action") == queue_settings.STORED:
            self._stored = payload.get("signal")
            return
        stored, self._stored = payload == self._stored, None
        ident = payload.get("ident", queue_settings.ANY_NODE)
        if ident not in (queue_settings.ANY_NODE, f"{self.options.name}.{self.options.node}"):
            return
        if payload and not stored:
            if len(self._heard) >= MAX_HEARD:
                raise ConfigError("too many changes of queues wait to be stored")
            self._heard.append(_change(payload))
        self.wake()


def _change(payload: dict[str, Any]) -> QueueCommand:
    how = {key: payload[key] for key in ("limit", "paused") if key in payload}
    action = payload.get("action")
    if action == "scale" and how.get("limit") is None:
        raise ConfigError("limit is missing")
    return QueueCommand.make(str(action), payload.get("queue"), **how)
