"""Holds outcomes until the database has them."""

import logging
import random
from collections.abc import Iterator, Sequence

from oban import clock, dialects
from oban.database.aio import Database
from oban.repository import acknowledge
from oban.repository.acknowledge import Ack
from oban.runner.bisection import bisect_failures

logger = logging.getLogger("oban.acknowledger")

#: How often an outcome is tried by itself before what it carries is taken to be the cause.
TRIES = 5
#: Longest time between two attempts to store what is refused, in seconds.
MAX_PAUSE = 60.0
#: Outcomes that one statement stores at most, and the characters in them; fewer after one that took too long.
MAX_BATCH = 1000
MAX_TEXT = 16 * 1024 * 1024
#: What may wait before no more jobs are fetched: something is wrong with the whole table, then.
MAX_REFUSED = 10_000
MAX_WAITING_TEXT = 256 * 1024 * 1024


class Acknowledger:
    """The outcomes of one producer that are not stored yet. Repeating one does no harm."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._held: list[Ack] = []
        #: Refused by themselves, with the number of times.
        self._refused: list[tuple[Ack, int]] = []
        self._pause = 0.1
        self._again_at = 0.0
        self._batch = MAX_BATCH

    def __len__(self) -> int:
        return len(self._held) + len(self._refused)

    def __iter__(self) -> Iterator[Ack]:
        yield from self._held
        for ack, _ in self._refused:
            yield ack

    @property
    def is_full(self) -> bool:
        """Whether so much waits that memory would fill up if more jobs ran."""
        return len(self._refused) >= MAX_REFUSED or sum(map(_size, self)) >= MAX_WAITING_TEXT

    @property
    def due(self) -> float | None:
        """Seconds until what waits is tried again, if there is any."""
        if self._held:
            return 0.0
        return max(0.0, self._again_at - clock.monotonic()) if self._refused else None

    def hold(self, ack: Ack) -> None:
        """Keep an outcome until it is stored."""
        self._held.append(ack)

    def take(self, most: int = MAX_BATCH) -> list[Ack]:
        """Up to `most` outcomes, to be stored by the caller now; no more than one statement should hold."""
        number = size = 0
        for ack in self._held[: min(most, self._batch)]:
            size += _size(ack)
            if number and size > MAX_TEXT:
                break
            number += 1
        taken, self._held = self._held[:number], self._held[number:]
        self._batch = min(self._batch * 2, MAX_BATCH)
        return taken

    def put_back(self, acks: list[Ack]) -> None:
        """Hold outcomes again that could not be stored; half as many are taken next."""
        if acks:
            self._held = acks + self._held
            self._batch = max(1, min(self._batch, len(acks)) // 2)

    async def isolate(self, acks: list[Ack]) -> None:
        """Store outcomes in smaller and smaller parts, after a statement for all of them failed.

        An outcome that is refused even alone is tried again later. If it is refused again and again, or
        because of its value, a failure with the reason is stored instead. Raises the driver's error when
        the database cannot be reached; the outcomes that were not tried are then held again.
        """
        pending = list(acks)
        try:
            await bisect_failures(pending, self._store_part, self.database.dialect.is_connection_error)
        finally:
            self.put_back(pending)

    async def _store_part(self, acks: Sequence[Ack]) -> None:
        if len(acks) == 1:
            await self._store_alone(acks[0], 0)
        else:
            await self.database.write(acknowledge.acknowledge, acks)

    async def try_refused(self) -> None:
        """Try again, with growing pauses, to store what was refused."""
        if self._refused and clock.monotonic() >= self._again_at:
            pending, self._refused = self._refused, []
            try:
                while pending:
                    await self._store_alone(*pending[0])
                    del pending[0]
            finally:
                self._refused = pending + self._refused
            self._pause = min(self._pause * 2, MAX_PAUSE) if self._refused else 0.1

    async def _store_alone(self, ack: Ack, tries: int) -> None:
        try:
            await self.database.write(acknowledge.acknowledge, [ack])
        # A driver's error, or one of the encoder: whatever it is, only this outcome shall have it.
        except Exception as error:
            dialect = self.database.dialect
            if dialect.is_connection_error(error):
                raise
            if dialect.is_bad_value(error) or (tries >= TRIES and not dialect.is_retryable(error)):
                try:
                    await self.database.write(acknowledge.acknowledge, [self._without_values(ack, error)])
                    return
                # Then it is not what the outcome says that is refused: it is kept as it is.
                except Exception as refused:
                    if dialect.is_connection_error(refused):
                        raise
            self._refused.append((ack, tries + 1))
            self._again_at = clock.monotonic() + random.uniform(0.5, 1) * self._pause  # noqa: S311

    def _without_values(self, ack: Ack, error: Exception) -> Ack:
        cause = dialects.driver_error(error)
        logger.error("the outcome of job %s cannot be stored: %s", ack.id, cause)
        reason = f"the outcome could not be stored: {type(cause).__name__}"
        return ack._replace(outcome="failed", error=reason, value=None, snoozed=None, delay=ack.delay or 15)


def _size(ack: Ack) -> int:
    return len(ack.error or "") + len(ack.value or "")
