"""Holds outcomes until the database has them."""

import logging
from dataclasses import replace

from sqlalchemy.exc import DBAPIError

from oban.repository import execution
from oban.repository.execution import Ack
from oban.repository.transaction import Database

logger = logging.getLogger("oban.acknowledger")


class Acknowledger:
    """The outcomes of one producer that are not stored yet. Repeating one does no harm."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._held: list[Ack] = []

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, ack: Ack) -> None:
        """Keep an outcome until it is stored."""
        self._held.append(ack)

    def take(self) -> list[Ack]:
        """All outcomes held, to be stored by the caller now."""
        taken, self._held = self._held, []
        return taken

    def put_back(self, acks: list[Ack]) -> None:
        """Hold outcomes again that could not be stored."""
        self._held = acks + self._held

    async def isolate(self, acks: list[Ack]) -> None:
        """Store outcomes one by one, after a statement for all of them was refused.

        One that is refused by itself is stored as a failure that says why. Raises when the
        database cannot be reached; what is left is held then.
        """
        while acks:
            ack = acks[0]
            try:
                await self._store_alone(ack)
            except BaseException:
                self.put_back(acks)
                raise
            acks = acks[1:]

    async def _store_alone(self, ack: Ack) -> None:
        try:
            await self.database.write(execution.acknowledge, [ack])
        except DBAPIError as error:
            if self.database.dialect.is_connection_error(error):
                raise
            logger.error("the outcome of job %s cannot be stored: %s", ack.id, error.orig)
            reason = f"the outcome could not be stored: {type(error.orig).__name__}"
            plain = replace(ack, outcome="failed", error=reason, value=None, delay=ack.delay or 15)
            await self.database.write(execution.acknowledge, [plain])
