"""Sends heartbeats: keeps the rows of this node's producers in `oban_producers` fresh."""

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from oban import clock
from oban.database.aio import Database
from oban.repository import cluster
from oban.repository.cluster import Heartbeat
from oban.runner.services.base import Service

#: For how many leases the node sends heartbeats though its event loop is blocked.
MAX_BLOCKED_LEASES = 10


class Refresher(Service):
    """Sends the heartbeats of all producers of this node, every `interval` seconds.

    It runs on another event loop than the jobs (see `HeartbeatThread`), so that a job that blocks its loop
    does not look like a dead node. `last_seen` returns when the jobs' loop was last seen alive, by the
    monotonic clock: after `MAX_BLOCKED_LEASES` the heartbeats stop, and the jobs are rescued.
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
        # A heartbeat that fails must be repeated before the lease is over.
        self.max_backoff = min(interval, self.max_backoff)
        self._heartbeats = heartbeats
        self._last_seen = last_seen
        self._sent_at = -math.inf
        self._steady_since = 0.0
        #: Producers that have ended, for as long as `heartbeats` may still return them.
        self._ended: set[UUID] = set()
        self._lock = asyncio.Lock()

    @property
    def is_alive(self) -> bool:
        """Whether other nodes take the producers to be alive, so that they may fetch jobs."""
        return clock.monotonic() < self._sent_at + self.lease * 0.75

    @property
    def is_steady(self) -> bool:
        """Whether this node has sent heartbeats without a gap for so long that all live nodes have, too.

        Whatever kept this node from sending heartbeats may have done the same to other nodes. Their next try
        may still run into its time limit, a quarter of the lease, and the one after that comes an interval
        later.
        """
        seconds = clock.monotonic() - self._steady_since
        return self.is_alive and seconds >= self.lease / 4 + 2 * self.interval

    async def tick(self) -> float | None:
        async with self._lock:
            now = clock.monotonic()
            if now - self._last_seen() > MAX_BLOCKED_LEASES * self.lease:
                raise RuntimeError(
                    f"the event loop has been blocked for more than {MAX_BLOCKED_LEASES} leases"
                )
            # The leader may have another lease; it judges each producer by the longer one.
            heartbeats = [
                heartbeat._replace(meta={**heartbeat.meta, "lease": self.lease})
                for heartbeat in self._heartbeats()
                if heartbeat.uuid not in self._ended
            ]
            await self.database.write(cluster.heartbeat, heartbeats)
            # Another node may have sent its last heartbeat an interval before this node did, and send its
            # next one an interval later: after a gap longer than this, it may look dead by now.
            if clock.monotonic() > self._sent_at + self.interval + self.lease / 4:
                self._steady_since = clock.monotonic()
            self._sent_at = now
            return None

    async def delete_producers(self, uuids: Iterable[UUID]) -> None:
        """Delete the rows of producers that have ended, so that no later heartbeat writes them again."""
        self._ended.update(uuids)
        async with self._lock:
            ended = self._ended.copy()
            await self.database.write(cluster.delete_producers, list(ended))
            self._ended -= ended.difference(heartbeat.uuid for heartbeat in self._heartbeats())
