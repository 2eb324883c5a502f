"""Deletes finished jobs when their retention has ended."""

import dataclasses
import math
from collections.abc import Sequence
from datetime import datetime

from oban import clock
from oban.config import Options, Retention
from oban.database.aio import Database
from oban.repository import prune
from oban.repository.prune import Rule
from oban.runner.bisection import bisect_jobs
from oban.runner.services.base import Service
from oban.runner.services.leader import Leader
from oban.worker import registry

#: Seconds after which the pruner tries again to delete the jobs that it could not delete.
RETRY_REFUSED_AFTER = 3600.0


class Pruner(Service):
    """Deletes jobs on the leader, every `prune_interval`, sooner while there are more of them.

    Each statement deletes up to `retention.limit` jobs of one rule: of one state, in general or with the
    retention of one queue or worker.
    """

    def __init__(self, database: Database, options: Options, leader: Leader) -> None:
        super().__init__("pruner", options.prune_interval)
        self.database = database
        self.leader = leader
        self.limit = options.retention.limit
        #: How many jobs the next statement deletes: fewer than `limit` for a while after one that timed out.
        self.size = self.limit
        self._rules = prune.rules(_with_aliases(options.retention))
        #: By the index of a rule, when the last job that could not be deleted finished, and its id. Only
        #: later ones are looked at, so that jobs like this one do not fill every batch.
        self._past: dict[int, tuple[datetime, int]] = {}
        self._retry_refused_at = math.inf

    async def tick(self) -> float | None:
        if clock.monotonic() >= self._retry_refused_at:
            self._past.clear()
            self._retry_refused_at = math.inf
        has_more = False
        for index, rule in enumerate(self._rules):
            if not self.leader.leads:
                return None
            size = self.size
            try:
                found = await self._prune(index, rule, size)
            except TimeoutError:
                self.size = max(1, size // 2)
                raise
            if found >= size:
                has_more = True
                self.size = min(self.limit, size + size // 8 + 1)
        # Not at once: other statements get their turn in between.
        return min(1.0, self.interval) if has_more else None

    async def _prune(self, index: int, rule: Rule, size: int) -> int:
        """Delete up to `size` jobs of a rule; returns the number found, deleted or not."""
        past = self._past.get(index)
        try:
            return await self.database.write(prune.prune, rule, size, past)
        except Exception as error:
            if self.database.dialect.is_retryable(error):
                raise
        found = await self.database.read(prune.prunable, rule, size, past)

        async def delete(ids: Sequence[int]) -> None:
            await self.database.write(prune.prune, rule, len(ids), only=ids)

        refused = await bisect_jobs(self.database.dialect, [id_ for _, id_ in found], "deleted", delete)
        if refused:
            self._past[index] = next(row for row in found if row[1] == refused[-1])
            retry_at = clock.monotonic() + RETRY_REFUSED_AFTER
            self._retry_refused_at = min(self._retry_refused_at, retry_at)
        return len(found)


def _with_aliases(retention: Retention) -> Retention:
    """A retention that treats the jobs under a worker's aliases as those under its name."""
    workers = dict(retention.workers)
    for name, own in retention.workers.items():
        for namesake in registry.namesakes(name):
            workers.setdefault(namesake, own)
    return dataclasses.replace(retention, workers=workers)
