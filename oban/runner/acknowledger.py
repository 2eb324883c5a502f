"""Holds outcomes until the database has them."""

import logging

from oban import clock, dialects
from oban.repository import execution
from oban.repository.execution import Ack
from oban.repository.transaction import Database

logger = logging.getLogger("oban.acknowledger")

#: Longest time between two attempts to store an outcome that the database refuses, in seconds.
MAX_PAUSE = 60.0


class Acknowledger:
    """The outcomes of one producer that are not stored yet. Repeating one does no harm."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._held: list[Ack] = []
        self._refused: list[Ack] = []
        self._pause = 1.0
        self._again_at = 0.0

    def __len__(self) -> int:
        return len(self._held) + len(self._refused)

    def hold(self, ack: Ack) -> None:
        """Keep an outcome until it is stored."""
        self._held.append(ack)

    def take(self) -> list[Ack]:
        """The outcomes to be stored by the caller now."""
        taken, self._held = self._held, []
        return taken

    def put_back(self, acks: list[Ack]) -> None:
        """Hold outcomes again that could not be stored."""
        self._held = acks + self._held

    async def isolate(self, acks: list[Ack]) -> None:
        """Store outcomes one by one, after a statement for all of them was refused.

        One that is refused by itself is stored as a failure that says why. If that is refused, too,
        it is kept apart and tried again later. Raises when the database cannot be reached.
        """
        for done, ack in enumerate(acks):
            try:
                await self._store_alone(ack)
            except BaseException:
                self.put_back(acks[done:])
                raise

    async def try_refused(self) -> None:
        """Try again, from time to time, to store what was refused."""
        if self._refused and clock.monotonic() >= self._again_at:
            again, self._refused = self._refused, []
            await self.isolate(again)
            self._pause = min(self._pause * 2, MAX_PAUSE) if self._refused else 1.0

    async def _store_alone(self, ack: Ack) -> None:
        try:
            await self.database.write(execution.acknowledge, [ack])
        # A driver's error, or one of the encoder: whatever it is, only this outcome shall have it.
        except Exception as error:
            if self.database.dialect.is_connection_error(error):
                raise
            await self._store_reason(ack, error)

    async def _store_reason(self, ack: Ack, error: Exception) -> None:
        cause = dialects.cause(error)
        logger.error("the outcome of job %s cannot be stored: %s", ack.id, cause)
        reason = f"the outcome could not be stored: {type(cause).__name__}"
        plain = ack._replace(outcome="failed", error=reason, value=None, snoozed=None, delay=ack.delay or 15)
        try:
            await self.database.write(execution.acknowledge, [plain])
        except Exception as refused:
            if self.database.dialect.is_connection_error(refused):
                raise
            self._refused.append(ack)
            self._again_at = clock.monotonic() + self._pause
