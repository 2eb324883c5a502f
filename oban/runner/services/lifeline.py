"""Rescues the jobs of dead nodes, and discards jobs that can never run. From heartbeats to a rescue:

1. Every node refreshes the rows of its producers in `oban_producers` (see `Refresher`), with its lease.
2. A producer is stale, on the leader, when its last heartbeat is older than its lease, which is the longer
   one of its row and this node; a row without a lease, of another implementation, gets at least a minute
   (`cluster.stale_producers`). A producer has vanished when its row was seen before and has been missing for
   a lease.
3. An orphan is a job that began to execute more than a lease ago under a stale or vanished producer. A job
   whose producer has no row, as in some other implementations, becomes one after `rescue_after`.
4. An orphan becomes available again, or is discarded if that was its last attempt. Should its old run go on
   after all, its outcome is not stored, because an acknowledgement names the attempt and the producer.

An outage, or a jump of the database's clock, can make all live nodes look dead at once. So nothing is
rescued unless
- this node's own heartbeats are steady (`Refresher.is_steady`), before the orphans are looked for and again
  once they are locked, as the wait for the locks may have kept live nodes from sending heartbeats;
- live nodes have been able to send heartbeats for the lease of the producer (`HeartbeatWindow`).
"""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from oban import clock, error_texts
from oban.config import Options
from oban.database.aio import Database
from oban.repository import cluster, rescue
from oban.runner.bisection import bisect_jobs
from oban.runner.services.base import Service
from oban.runner.services.leader import Leader
from oban.telemetry import JobsDiscarded, JobsRescued, NodeDied, RescuedJob
from oban.types import JobState

logger = logging.getLogger("oban.lifeline")

T = TypeVar("T")


class Lifeline(Service):
    """Rescues orphans on the leader, every `rescue_interval`, while `is_steady()`."""

    def __init__(
        self, database: Database, options: Options, leader: Leader, is_steady: Callable[[], bool]
    ) -> None:
        super().__init__("lifeline", options.rescue_interval, database.telemetry)
        self.database = database
        self.leader = leader
        self._lease = options.lease
        self._rescue_after = options.rescue_after
        self._is_steady = is_steady
        self._window = HeartbeatWindow(options.lease, is_steady)
        #: When the row of each producer was last seen, by the monotonic clock.
        self._last_seen: dict[UUID, float] = {}

    async def tick(self) -> float | None:
        if not self.leader.leads:
            self._last_seen.clear()
            await self._update_window()
            return None
        vanished = await self._find_vanished()
        if not self._is_steady():
            await self._update_window()
        elif await self._rescue(vanished) == rescue.BATCH:
            return 0
        discarded = await self._discard_exhausted()
        return 0 if len(discarded) == rescue.BATCH else None

    async def _update_window(self) -> None:
        """Watch the database's clock while nothing is rescued, for when this node leads and is steady."""
        self._window.update(await self.database.read(cluster.database_time))

    async def _find_vanished(self) -> list[UUID]:
        """Producers whose rows were lost, by a TRUNCATE for instance, and not written again for one lease."""
        now = clock.monotonic()
        self._last_seen |= dict.fromkeys(await self.database.read(cluster.producer_uuids), now)
        return [uuid for uuid, seen_at in self._last_seen.items() if now - seen_at > self._lease]

    async def _rescue(self, vanished: list[UUID]) -> int:
        """Rescue a batch of orphans, and tidy up after the last batch; returns the number of jobs."""
        started_at = clock.monotonic()
        rescued = await self._change(
            "rescued",
            partial(rescue.rescue, still_steady=self._is_steady),
            rescue.orphans,
            lease=self._lease,
            max_age=self._rescue_after,
            vanished=vanished,
            observed_for=self._window.update,
        )
        for job in rescued:
            _log_rescued(job)
        if rescued and self.telemetry.wants(JobsRescued):
            self.telemetry.emit(JobsRescued, jobs=tuple(map(_rescued_job, rescued)), count=len(rescued))
        if len(rescued) < rescue.BATCH:
            await self._forget_dead(started_at)
        return len(rescued)

    async def _forget_dead(self, rescued_at: float) -> None:
        """Delete the rows of dead producers, and forget those that vanished, once their jobs are rescued."""
        deleted = await self.database.write(rescue.delete_stale_producers, self._lease, self._window.update)
        for producer in deleted:
            self._last_seen.pop(producer.uuid, None)
        if deleted and self.telemetry.wants(NodeDied):
            self._emit_died(deleted)
        if self._is_steady():
            # A producer that was last seen before this fetched its last job more than a lease ago.
            oldest = rescued_at - 2 * self._lease
            self._last_seen = {uuid: at for uuid, at in self._last_seen.items() if at > oldest}

    def _emit_died(self, producers: Iterable[rescue.DeadProducer]) -> None:
        queues: dict[tuple[str, str], list[str]] = {}
        for producer in producers:
            queues.setdefault((producer.instance, producer.node), []).append(producer.queue)
        for (_, node), names in sorted(queues.items()):
            self.telemetry.emit(NodeDied, name=node, queues=tuple(sorted(names)))

    async def _discard_exhausted(self) -> list[int]:
        """Discard a batch of available jobs that have no attempt left; returns their ids."""
        discarded = await self._change("discarded", rescue.discard_exhausted, rescue.exhausted)
        if discarded:
            ids = ", ".join(map(str, discarded))
            logger.warning("discarded jobs that were available with no attempt left: %s", ids)
            self.telemetry.emit(JobsDiscarded, ids=tuple(discarded), count=len(discarded))
        return discarded

    async def _change(
        self, verb: str, change: Callable[..., list[T]], find: Callable[..., list[int]], **criteria: Any
    ) -> list[T]:
        """Change a batch of jobs in one statement, or all jobs but those that make the statement fail.

        `change` takes `only=`, the ids to change, and `find` takes `after=`, the id after which to look.
        """
        try:
            return await self.database.write(change, **criteria)
        except Exception as error:
            if self.database.dialect.is_retryable(error):
                raise
        changed: list[T] = []

        async def change_part(ids: Sequence[int]) -> None:
            changed.extend(await self.database.write(change, only=ids, **criteria))

        after = 0
        while ids := await self.database.read(find, after=after, **criteria):
            after = ids[-1]
            await bisect_jobs(self.database.dialect, ids, verb, change_part)
        return changed


def _log_rescued(job: rescue.Rescued) -> None:
    level, text = logging.WARNING, "job %s (%s) was rescued, attempt %s of %s: its node %s is dead"
    if job.discarded:
        level, text = logging.ERROR, "job %s (%s) failed, attempt %s of %s, discarded: its node %s is dead"
    worker, node = error_texts.log_safe(job.worker), error_texts.log_safe(job.node)
    extra = {
        "job_id": job.id,
        "worker": worker,
        "queue": error_texts.log_safe(job.queue),
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "node": node,
        "state": "discarded" if job.discarded else "available",
    }
    logger.log(level, text, job.id, worker, job.attempt, job.max_attempts, node, extra=extra)


def _rescued_job(job: rescue.Rescued) -> RescuedJob:
    values = job._asdict()
    state = JobState.DISCARDED if values.pop("discarded") else JobState.AVAILABLE
    return RescuedJob(**values, state=state)


class HeartbeatWindow:
    """How long live nodes have been able to send heartbeats.

    A missing heartbeat does not always mean a dead node. While the database is away, or locked, no node can
    send one; when the database's clock is set forward, all of them look old at once. So a producer is not
    judged before it has had the time of its lease to send one.
    """

    def __init__(self, lease: float, is_steady: Callable[[], bool]) -> None:
        self._lease = lease
        self._is_steady = is_steady
        #: The database's clock minus the monotonic one.
        self._offset = math.inf
        #: When the database's clock was set forward, and when this node was last not steady.
        self._jumped_at = -math.inf
        self._unsteady_at = clock.monotonic()

    def update(self, database_time: datetime) -> float:
        """Note the database's present time and whether this node is steady; returns the window in seconds."""
        now = clock.monotonic()
        offset = database_time.timestamp() - now
        if offset - self._offset > self._lease / 4:
            self._jumped_at = now
            logger.warning("the database's clock was set forward by %.1f s", offset - self._offset)
        self._offset = offset
        if not self._is_steady():
            self._unsteady_at = now
        # While this node is steady, every node could send heartbeats for at least one lease. A node with a
        # longer lease has to wait until this window is as long.
        return min(now - self._jumped_at, max(now - self._unsteady_at, self._lease))
