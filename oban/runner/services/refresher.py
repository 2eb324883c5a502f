"""Heartbeats: says that the node's producers are alive."""

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from oban import clock
from oban.database.aio import Database
from oban.repository import cluster
from oban.repository.cluster import Heartbeat
from oban.runner.services.base import Service

#: Leases after which the thread stops to vouch for an event loop that shows no life.
PATIENCE = 10


class Refresher(Service):
    """Keeps the rows of this node's producers fresh, on another loop than that which runs the jobs.

    `last_seen` tells when that loop was last seen alive, by the monotonic clock.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease: float,
        interval: float,
        heartbeats: Callable[[], Sequence[Heartbeat]],
        last_seen: Callable[[], float],
    ) -> None:
        super().__init__("refresher", interval)
        self.database = database
        self.lease = lease
        # A heart that fails to beat tries again before the lease is over.
        self.max_backoff = min(interval, self.max_backoff)
        self._heartbeats = heartbeats
        self._last_seen = last_seen
        self._beaten = -math.inf
        self._steady_since = 0.0
        self._gone: set[UUID] = set()
        self._turn = asyncio.Lock()

    @property
    def is_alive(self) -> bool:
        """Whether the producers count as alive, so that they may fetch."""
        return clock.monotonic() < self._beaten + self.lease * 0.75

    @property
    def steady(self) -> bool:
        """Whether this node's heart has beaten without a gap for so long that all others beat again, too.

        What silenced this one may have silenced them: one more try of theirs may run into its time limit,
        of a quarter of the lease, and the next comes an interval later.
        """
        beaten = clock.monotonic() - self._steady_since
        return self.is_alive and beaten >= self.lease / 4 + 2 * self.interval

    async def tick(self) -> float | None:
        async with self._turn:
            asked = clock.monotonic()
            if asked - self._last_seen() > PATIENCE * self.lease:
                raise RuntimeError(f"the event loop has been blocked for more than {PATIENCE} leases")
            # With the lease that the node goes by: another one may be the leader's.
            beats = [
                beat._replace(meta={**beat.meta, "lease": self.lease})
                for beat in self._heartbeats()
                if beat.uuid not in self._gone
            ]
            await self.database.write(cluster.heartbeat, beats)
            # After a longer gap, others may have been silent for a lease: they may have beaten last an
            # interval before this one, and beat next an interval later.
            if clock.monotonic() > self._beaten + self.interval + self.lease / 4:
                self._steady_since = clock.monotonic()
            self._beaten = asked
            return None

    async def withdraw(self, uuids: Iterable[UUID]) -> None:
        """Take back the rows of producers that have ended; no later heartbeat brings them again."""
        self._gone.update(uuids)
        async with self._turn:
            gone = self._gone.copy()
            await self.database.write(cluster.delete_producers, list(gone))
            self._gone -= gone.difference(beat.uuid for beat in self._heartbeats())
