"""Deletes finished jobs when their retention has ended, and the keys and attempts that deleted jobs left."""

import dataclasses
import math
from collections.abc import Sequence
from datetime import datetime

from oban import clock
from oban.config import Options, Retention
from oban.database.aio import Database
from oban.registry import registry
from oban.repository import orphaned_attempts, prune, unique_keys
from oban.repository.prune import Finished, Rule
from oban.runner.bisection import bisect_jobs
from oban.runner.services.base import Service
from oban.runner.services.leader import Leader
from oban.telemetry import JobsPruned

#: Seconds after which the pruner tries again to delete the jobs that it could not delete.
RETRY_REFUSED_AFTER = 3600.0
#: Seconds between two walks through all keys of unique jobs.
KEYS_INTERVAL = 3600.0
#: Seconds between two walks through all attempts.
ATTEMPTS_INTERVAL = 3600.0


class Pruner(Service):
    """Deletes jobs on the leader, every `prune_interval`, sooner while there are more of them.

    Each statement deletes up to `retention.limit` jobs of one rule: of one state, in general or with the
    retention of one queue or worker. The keys of these jobs are deleted as well. All other keys without a
    job, for example of jobs that were deleted with `delete_job`, are found by a walk through all keys once an
    hour. In the same way, a walk finds the attempts of jobs that something else than Oban has deleted.
    """

    def __init__(self, database: Database, options: Options, leader: Leader) -> None:
        super().__init__("pruner", options.prune_interval, database.telemetry)
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
        #: Keys of jobs that were deleted. Only transactions that write at the same time need keys.
        self._keys: set[str] | None = None if database.dialect.single_writer else set()
        #: When the next walk through all keys begins, and the last key of the walk under way.
        self._walk_at = -math.inf
        self._walked: str | None = None
        #: When the next walk through all attempts begins, and where the one under way continues.
        self._attempts_walk_at = -math.inf
        self._attempts_start = 0

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
        if self._keys is not None and self.leader.leads:
            self._keys = await self._delete_keys(self._keys)
            has_more |= await self._walk_keys(self._keys)
        if self.leader.leads:
            has_more |= await self._walk_attempts()
        # Not at once: other statements get their turn in between.
        return min(1.0, self.interval) if has_more else None

    async def _prune(self, index: int, rule: Rule, size: int) -> int:
        """Delete up to `size` jobs of a rule; returns the number found, deleted or not."""
        past = self._past.get(index)
        try:
            return await self._delete(rule, size, past, None)
        except Exception as error:
            if self.database.dialect.is_retryable(error):
                raise
        found = await self.database.read(prune.prunable, rule, size, past)

        async def delete(ids: Sequence[int]) -> None:
            await self._delete(rule, len(ids), None, ids)

        refused = await bisect_jobs(self.database.dialect, [id_ for _, id_ in found], "deleted", delete)
        if refused:
            self._past[index] = next(row for row in found if row[1] == refused[-1])
            retry_at = clock.monotonic() + RETRY_REFUSED_AFTER
            self._retry_refused_at = min(self._retry_refused_at, retry_at)
        return len(found)

    async def _delete(self, rule: Rule, size: int, after: Finished | None, only: Sequence[int] | None) -> int:
        started_at = clock.monotonic()
        count = await self.database.write(prune.prune, rule, size, after, only, self._keys)
        if count:
            duration = clock.monotonic() - started_at
            self.telemetry.emit(JobsPruned, state=rule.state, count=count, duration=duration)
        return count

    async def _delete_keys(self, keys: set[str]) -> set[str]:
        """Delete keys of deleted jobs, unless other jobs have them; returns those to try again."""
        ordered = sorted(keys)
        # If this fails, the next walk finds them.
        keys.clear()
        claimed: list[str] = []
        for start in range(0, len(ordered), unique_keys.BATCH):
            batch = ordered[start : start + unique_keys.BATCH]
            claimed += await self.database.write(unique_keys.delete_keys, batch)
        return set(claimed[: unique_keys.BATCH])

    async def _walk_keys(self, claimed: set[str]) -> bool:
        """Take the next step of a walk through all keys; returns whether there is another one.

        Adds the keys that could not be deleted yet.
        """
        if self._walked is None and clock.monotonic() < self._walk_at:
            return False
        keys = await self.database.read(unique_keys.keys_after, self._walked or "")
        if keys:
            claimed.update(await self.database.write(unique_keys.delete_keys, keys))
        self._walked = keys[-1] if len(keys) == unique_keys.BATCH else None
        if self._walked is None:
            self._walk_at = clock.monotonic() + KEYS_INTERVAL
        return self._walked is not None

    async def _walk_attempts(self) -> bool:
        """Take the next step of a walk through all attempts; returns whether there is another one."""
        if clock.monotonic() < self._attempts_walk_at:
            return False
        start = self._attempts_start
        if start < await self.database.read(orphaned_attempts.table_size):
            self._attempts_start = await self.database.write(orphaned_attempts.delete_orphans, start)
            return True
        self._attempts_start = 0
        self._attempts_walk_at = clock.monotonic() + ATTEMPTS_INTERVAL
        return False


def _with_aliases(retention: Retention) -> Retention:
    """A retention that treats the jobs under a worker's aliases as those under its name."""
    workers = dict(retention.workers)
    for name, own in retention.workers.items():
        for namesake in registry.namesakes(name):
            workers.setdefault(namesake, own)
    return dataclasses.replace(retention, workers=workers)
