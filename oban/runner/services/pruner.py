"""Deletes finished jobs that have been kept long enough."""

import math
from collections.abc import Sequence
from datetime import datetime

from oban import clock
from oban.config import Retention
from oban.database.aio import Database
from oban.repository import rescue
from oban.repository.rescue import Rule
from oban.runner.bisection import bisect_failures
from oban.runner.services.base import Service
from oban.runner.services.leader import Leader

#: Seconds after which jobs that could not be deleted are tried again.
AGAIN = 3600.0


class Pruner(Service):
    """On the leader: one statement per state, and per queue and worker that is kept in its own way."""

    def __init__(self, database: Database, leader: Leader, *, retention: Retention, interval: float) -> None:
        super().__init__("pruner", interval)
        self.database = database
        self.leader = leader
        self.limit = retention.limit
        #: How many jobs a statement deletes: fewer, for a while, when that took too long.
        self.size = retention.limit
        self._rules = rescue.rules(retention)
        #: By the index of a rule, the last job that could not be deleted: only later ones are looked at.
        self._past: dict[int, tuple[datetime, int]] = {}
        self._forget_at = math.inf

    async def tick(self) -> float | None:
        if clock.monotonic() >= self._forget_at:
            self._past.clear()
            self._forget_at = math.inf
        full = False
        for number, rule in enumerate(self._rules):
            if not self.leader.leads:
                return None
            size = self.size
            try:
                met = await self._prune(number, rule, size)
            except TimeoutError:
                self.size = max(1, size // 2)
                raise
            if met >= size:
                full = True
                self.size = min(self.limit, size + size // 8 + 1)
        # There may be more: soon, but not in one go, which would leave no room for others.
        return min(1.0, self.interval) if full else None

    async def _prune(self, number: int, rule: Rule, size: int) -> int:
        """Delete what a rule says; the number of jobs that were met."""
        past = self._past.get(number)
        try:
            return await self.database.write(rescue.prune, rule, size, past)
        except Exception as error:
            if self.database.dialect.is_retryable(error) or isinstance(error, TimeoutError):
                raise
        met = await self.database.read(rescue.prunable, rule, size, past)

        async def delete(ids: Sequence[int]) -> None:
            await self.database.write(rescue.prune, rule, len(ids), only=ids)

        refused = await bisect_failures(self.database.dialect, [id_ for _, id_ in met], "deleted", delete)
        if refused:
            self._past[number] = next(row for row in met if row[1] == refused[-1])
            self._forget_at = min(self._forget_at, clock.monotonic() + AGAIN)
        return len(met)
