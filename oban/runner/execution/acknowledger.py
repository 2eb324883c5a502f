"""Collects outcomes, and keeps them until the database has stored them."""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from oban import backoff, clock, dialects, error_texts
from oban.database.aio import Database
from oban.repository import acknowledge
from oban.repository.acknowledge import Ack
from oban.runner.bisection import bisect_failures
from oban.runner.execution import queue_events
from oban.telemetry import Telemetry

logger = logging.getLogger("oban.acknowledger")

#: How often an outcome is refused on its own before something else is stored instead.
TRIES = 5
#: The longest pause between two tries to store an outcome that is refused, in seconds.
MAX_RETRY_PAUSE = 60.0
#: The most outcomes in one statement, and the most characters in their values.
MAX_BATCH = 1000
MAX_BATCH_CHARACTERS = 16 * 1024 * 1024
#: If more than this waits to be stored, no more jobs are fetched: there must be a problem with the table.
MAX_REFUSED = 10_000
MAX_CHARACTERS = 256 * 1024 * 1024


class Refused(NamedTuple):
    """An outcome that the database has refused even on its own."""

    ack: Ack
    tries: int
    #: When to try again, by the monotonic clock.
    retry_at: float


class Acknowledger:
    """The outcomes of one producer that are not stored yet. It is safe to store an outcome twice."""

    def __init__(self, database: Database, queue: str = "", telemetry: Telemetry | None = None) -> None:
        self.database = database
        self._queue = queue
        self._telemetry = telemetry or Telemetry()
        self._pending: list[Ack] = []
        self._refused: list[Refused] = []
        self._batch_size = MAX_BATCH

    def __len__(self) -> int:
        return len(self._pending) + len(self._refused)

    def __iter__(self) -> Iterator[Ack]:
        yield from self._pending
        yield from (refused.ack for refused in self._refused)

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be stored that more jobs could use up the memory."""
        return len(self._refused) >= MAX_REFUSED or sum(map(_characters, self)) >= MAX_CHARACTERS

    @property
    def due_in(self) -> float | None:
        """Seconds until there is something to store; None if nothing waits."""
        if self._pending:
            return 0.0
        if not self._refused:
            return None
        return max(0.0, min(refused.retry_at for refused in self._refused) - clock.monotonic())

    def add(self, ack: Ack) -> None:
        """Keep an outcome until it is stored."""
        self._pending.append(ack)

    def take(self, limit: int = MAX_BATCH) -> list[Ack]:
        """Remove and return up to `limit` outcomes, no more than one statement can store."""
        count = characters = 0
        for ack in self._pending[: min(limit, self._batch_size)]:
            characters += _characters(ack)
            if count and characters > MAX_BATCH_CHARACTERS:
                break
            count += 1
        taken, self._pending = self._pending[:count], self._pending[count:]
        self._batch_size = min(self._batch_size * 2, MAX_BATCH)
        return taken

    def put_back(self, acks: list[Ack]) -> None:
        """Keep outcomes from `take` that could not be stored. The next batch is half as large."""
        if acks:
            self._pending = acks + self._pending
            self._batch_size = max(1, min(self._batch_size, len(acks)) // 2)

    async def isolate(self, acks: list[Ack]) -> None:
        """Store outcomes in smaller and smaller parts, after a statement failed that stored them all.

        An outcome that is refused even on its own is tried again later. If it is refused for its values, or
        `TRIES` times, one of its `replacements` is stored. Raises the driver's error if the database cannot
        be reached, and keeps the outcomes that were not tried.
        """
        untried = list(acks)
        try:
            await bisect_failures(untried, self._store_part, self.database.dialect.is_connection_error)
        finally:
            self.put_back(untried)

    async def _store_part(self, acks: Sequence[Ack]) -> None:
        if len(acks) == 1:
            await self._store_alone(acks[0], 0)
        else:
            started_at = clock.monotonic()
            await self.database.write(acknowledge.acknowledge, acks)
            queue_events.outcomes_stored(self._telemetry, self._queue, len(acks), started_at)

    async def retry_refused(self) -> None:
        """Store the outcomes that were refused and are due again. The pauses of each one grow."""
        if not self._refused:
            return
        now = clock.monotonic()
        untried = [refused for refused in self._refused if refused.retry_at <= now]
        self._refused = [refused for refused in self._refused if refused.retry_at > now]
        try:
            while untried:
                await self._store_alone(untried[0].ack, untried[0].tries)
                del untried[0]
        finally:
            self._refused = untried + self._refused

    async def _store_alone(self, ack: Ack, tries: int) -> None:
        started_at = clock.monotonic()
        try:
            await self.database.write(acknowledge.acknowledge, [ack])
        # An error of the driver or of the encoder. Whatever it is, it must not hold up other outcomes.
        except Exception as error:
            dialect = self.database.dialect
            if dialect.is_connection_error(error):
                raise
            if dialect.is_bad_value(error) or (tries >= TRIES and not dialect.is_retryable(error)):
                for replacement in replacements(ack, error):
                    try:
                        await self.database.write(acknowledge.acknowledge, [replacement])
                    except Exception as refused:
                        if dialect.is_connection_error(refused):
                            raise
                    else:
                        log_replaced(ack, replacement, error)
                        queue_events.replaced(self._telemetry, ack, replacement, error)
                        return
            # Nothing of the outcome is the reason, so it stays as it is.
            pause = backoff.pause(tries - 1, MAX_RETRY_PAUSE)
            self._refused.append(Refused(ack, tries + 1, clock.monotonic() + pause))
        else:
            queue_events.outcomes_stored(self._telemetry, self._queue, 1, started_at)


def replacements(ack: Ack, error: Exception, *, may_fail: bool = True) -> Iterator[Ack]:
    """The outcomes to store instead of one that the database refused, the best one first.

    The job ends as it did, without what it reported. If that is refused as well, then without what it
    recorded and with the reason in `errors`, or without any new entry. With `may_fail`, the last one is a
    failure, for a database that refuses the new state itself.
    """
    reason = f"the outcome could not be stored: {type(dialects.driver_error(error)).__name__}"
    if ack.outcome == "completed":
        reason = f"the job was completed, but {reason}"
    if ack.progress is not None or ack.log is not None:
        ack = ack._replace(progress=None, log=None)
        yield ack
    if ack.meta is not None:
        yield ack._replace(error=reason, meta=None)
    bare = ack._replace(error=reason, value=None, snoozed=None, meta=None)
    if has_values(ack):
        yield bare
        yield bare._replace(error=None)
    if may_fail:
        yield bare._replace(outcome="failed", delay=ack.delay or 15)


def has_values(ack: Ack) -> bool:
    """Whether an outcome has anything that depends on the job, which a database could refuse."""
    return not (
        (ack.value is None and ack.error is None and ack.snoozed is None and ack.meta is None)
        and (ack.progress is None and ack.log is None)
    )


def log_replaced(ack: Ack, stored: Ack, error: Exception) -> None:
    """Log that the database refused an outcome, and which one was stored instead."""
    cause = dialects.driver_error(error)
    if stored.outcome == ack.outcome:
        text = "job %s, attempt %s: its outcome, %s, was stored without its value or text, which the database"
        text += " refused: %s"
    else:
        text = "job %s failed, attempt %s, because its outcome, %s, could not be stored: %s"
    logger.error(
        text,
        *(ack.id, ack.attempt, ack.outcome, error_texts.error_line(cause)),
        exc_info=cause,
        extra={"job_id": ack.id, "attempt": ack.attempt},
    )


def _characters(ack: Ack) -> int:
    texts = len(ack.error or "") + len(ack.value or "") + len(ack.meta or "")
    return texts + len(ack.progress or "") + len(ack.log or "")
