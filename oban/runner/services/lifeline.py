"""Rescues the jobs of nodes that are gone, and discards those that can never run."""

import logging
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from oban import clock, encoding
from oban.database.aio import Database
from oban.repository import cluster, rescue
from oban.repository.rescue import Rescued
from oban.runner.bisection import bisect_failures
from oban.runner.services.base import Service
from oban.runner.services.leader import Leader

logger = logging.getLogger("oban.lifeline")


class Lifeline(Service):
    """On the leader: an executing job whose producer was not heard of for one lease is an orphan.

    Time alone makes no orphan, but of jobs of other implementations, whose nodes keep no row. A
    database that was away, or locked, silences everybody: nothing is rescued unless `steady`, when
    this node itself has been able to say for some time that it is alive. A clock of the database that
    is set forward makes everybody look silent, too: then, all have a lease to be heard again.
    """

    def __init__(
        self,
        database: Database,
        leader: Leader,
        *,
        lease: float,
        max_age: float,
        interval: float,
        steady: Callable[[], bool],
    ) -> None:
        super().__init__("lifeline", interval)
        self.database = database
        self.leader = leader
        self.lease = lease
        self.max_age = max_age
        self._steady = steady
        #: When each producer was last seen to have a row.
        self._seen: dict[UUID, float] = {}
        #: The database's clock less the monotonic one, when last looked at, and when it jumped forward.
        self._offset = math.inf
        self._jumped = -math.inf
        self._unsteady = clock.monotonic()

    def _observed_for(self, now: datetime) -> float:
        """For how many seconds everybody has been able to be heard; `now` by the database's clock."""
        at = clock.monotonic()
        offset = now.timestamp() - at
        if offset - self._offset > self.lease / 4:
            self._jumped = at
            logger.warning("the database's clock went forward by %.1f s", offset - self._offset)
        self._offset = offset
        if not self._steady():
            self._unsteady = at
        # That all who go by the same lease have been able to, is what being steady means.
        return min(at - self._jumped, max(at - self._unsteady, self.lease))

    async def tick(self) -> float | None:
        if not self.leader.leads:
            self._seen.clear()
            # Who leads next has to know whether the clock has jumped.
            self._observed_for(await self.database.read(cluster.database_time))
            return None
        vanished = await self._vanished()
        if not self._steady():
            self._observed_for(await self.database.read(cluster.database_time))
        elif await self._rescue(vanished) == rescue.BATCH:
            return 0
        spent = await self._sweep()
        if spent:
            logger.warning("discarded, available with no attempt left: jobs %s", ", ".join(map(str, spent)))
        return 0 if len(spent) == rescue.BATCH else None

    async def _rescue(self, vanished: list[UUID]) -> int:
        # Whoever vanished before then has no job left that this does not take.
        before = clock.monotonic() - 2 * self.lease
        try:
            rescued = await self.database.write(
                rescue.rescue,
                self.lease,
                self.max_age,
                vanished,
                still_steady=self._steady,
                observed_for=self._observed_for,
            )
        except Exception as error:
            if self.database.dialect.is_retryable(error):
                raise
            rescued = await self._one_by_one(vanished)
        for job in rescued:
            end = "discarded, as that was its last attempt" if job.discarded else "rescued"
            names = (encoding.log_safe(job.worker), encoding.log_safe(job.node))
            logger.warning("job %s (%s) of the node %s, which is gone: %s", job.id, *names, end)
        if len(rescued) < rescue.BATCH:
            for uuid in await self.database.write(
                rescue.delete_stale_producers, self.lease, self._observed_for
            ):
                self._seen.pop(uuid, None)
            if self._steady():
                self._seen = {uuid: at for uuid, at in self._seen.items() if at > before}
        return len(rescued)

    async def _sweep(self) -> list[int]:
        try:
            return await self.database.write(rescue.discard_exhausted)
        except Exception as error:
            if self.database.dialect.is_retryable(error):
                raise
        swept: list[int] = []

        async def sweep(ids: Sequence[int]) -> None:
            swept.extend(await self.database.write(rescue.discard_exhausted, ids))

        after = 0
        while ids := await self.database.read(rescue.exhausted, after):
            after = ids[-1]
            await bisect_failures(self.database.dialect, ids, "discarded", sweep)
        return swept

    async def _one_by_one(self, vanished: list[UUID]) -> list[Rescued]:
        """Rescue what can be, where a row that cannot makes the statement fail for all."""
        rescued: list[Rescued] = []
        judged = (self.lease, self.max_age, vanished)

        async def rescue_part(ids: Sequence[int]) -> None:
            rescued.extend(
                await self.database.write(
                    rescue.rescue,
                    *judged,
                    only=ids,
                    still_steady=self._steady,
                    observed_for=self._observed_for,
                )
            )

        after = 0
        while ids := await self.database.read(rescue.orphans, *judged, after, self._observed_for):
            after = ids[-1]
            await bisect_failures(self.database.dialect, ids, "rescued", rescue_part)
        return rescued

    async def _vanished(self) -> list[UUID]:
        """Producers whose rows were lost, by a TRUNCATE, say, and not written anew for one lease."""
        now = clock.monotonic()
        self._seen |= dict.fromkeys(await self.database.read(cluster.producer_uuids), now)
        return [uuid for uuid, seen in self._seen.items() if now - seen > self.lease]
