"""Runs the queues of this node as they are configured, and as commands have changed them since."""

import asyncio
from typing import Any

from oban.config import Options
from oban.database.aio import Database
from oban.errors import ConfigError
from oban.repository import announce, queue_settings
from oban.repository.queue_settings import QueueCommand
from oban.runner.queues import Queues
from oban.runner.services.base import Service

#: How many commands of other implementations can wait to be stored.
MAX_RECEIVED = 1000
#: The actions of signals that are not about queues.
_OTHER_ACTIONS = ("pkill", "stage", announce.RESIGN, announce.PERIODIC)


class Controller(Service):
    """Reads the stored commands and applies them, on a signal and when the stager finds that they changed.

    The stager looks every `control_interval`. The controller also reads them every `heartbeat_interval`, as
    somebody may have changed a row by hand.

    Oban stores a command before it sends the signal. Other implementations only send it, so the controller
    stores their commands first, for this node.
    """

    def __init__(self, database: Database, options: Options, queues: Queues) -> None:
        super().__init__(
            "controller", max(options.control_interval, options.heartbeat_interval), database.telemetry
        )
        self.database = database
        self._queues = queues
        #: The name, the node and the configured queues, which the repository's functions take.
        self._settings = (options.name, options.node, options.queues)
        #: How signals address this node.
        self._idents = (queue_settings.ANY_NODE, f"{options.name}.{options.node}")
        self._received: list[QueueCommand] = []
        #: What the last poll found of the settings.
        self._polled: object = None
        #: The signal that comes next, if its command is stored already.
        self._stored_signal: object = None
        self._lock = asyncio.Lock()

    async def begin(self) -> None:
        """Run the queues for the first time since the start of the node."""
        await self.database.write(queue_settings.store_start, *self._settings)
        await self.tick()

    async def tick(self) -> float | None:
        """Apply the commands that are stored now. Returns when they are in effect; raises driver errors."""
        # One call after the other, so that what was read last is applied last.
        async with self._lock:
            await self._store_received()
            await self._queues.apply(await self.database.read(queue_settings.load_states, *self._settings))
            return None

    async def _store_received(self) -> None:
        received, self._received = self._received, []
        if not received:
            return
        try:
            await self.database.write(queue_settings.store_received, *self._settings, received)
        except BaseException as error:
            # Any other error is about the commands, and would come again and again.
            if not isinstance(error, Exception) or self.database.dialect.is_connection_error(error):
                self._received = received + self._received
            raise

    def on_poll(self, settings: object) -> None:
        """Tick if `settings` are not those of the last poll, or if a stopped queue can be removed."""
        if settings != self._polled or any(producer.stopped for producer in self._queues.producers.values()):
            self._polled = settings
            self.wake()

    def on_signal(self, payload: dict[str, Any]) -> None:
        """Handle a signal. Raises `ConfigError` or `InvalidJob` if it is not a valid command."""
        if payload.get("action") in _OTHER_ACTIONS:
            return
        if payload.get("action") == queue_settings.STORED:
            self._stored_signal = payload.get("signal")
            return
        is_stored, self._stored_signal = payload == self._stored_signal, None
        if payload.get("ident", queue_settings.ANY_NODE) not in self._idents:
            return
        if payload and not is_stored:
            if len(self._received) >= MAX_RECEIVED:
                raise ConfigError("too many queue commands are waiting to be stored")
            self._received.append(_command(payload))
        self.wake()


def _command(payload: dict[str, Any]) -> QueueCommand:
    settings = {key: payload[key] for key in ("limit", "paused") if key in payload}
    action = payload.get("action")
    if action == "scale" and settings.get("limit") is None:
        raise ConfigError("limit is missing")
    return QueueCommand.make(str(action), payload.get("queue"), **settings)
