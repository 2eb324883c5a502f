"""Sends heartbeats: keeps the rows of this node's producers in `oban_producers` fresh."""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from oban import clock
from oban.config import Options
from oban.database.aio import Database
from oban.repository import cluster
from oban.repository.cluster import Heartbeat
from oban.runner.services.base import Service
from oban.telemetry import HeartbeatFailed, HeartbeatSent
from oban.telemetry.errors import error_fields

#: Stop heartbeats after the jobs' event loop was blocked for this many leases.
MAX_BLOCKED_LEASES = 10


class Refresher(Service):
    """Sends the heartbeats of all producers of this node, every `heartbeat_interval`.

    It runs on another event loop than the jobs (see `HeartbeatThread`), so that a job that blocks its loop
    does not look like a dead node. `loop_answered_at` returns when the jobs' loop last answered, by the
    monotonic clock: after `MAX_BLOCKED_LEASES` the heartbeats stop, and the jobs are rescued. `facts` returns
    what all heartbeats tell about the node.
    """

    def __init__(
        self,
        database: Database,
        options: Options,
        heartbeats: Callable[[], Sequence[Heartbeat]],
        loop_answered_at: Callable[[], float],
        facts: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        super().__init__("refresher", options.heartbeat_interval, database.telemetry)
        self.database = database
        self.lease = options.lease
        # A heartbeat that fails must be repeated before the lease is over.
        self.max_backoff = min(self.interval, self.max_backoff)
        self._heartbeats = heartbeats
        self._facts = facts
        self._loop_answered_at = loop_answered_at
        self._sent_at = -math.inf
        self._steady_since = 0.0
        #: Producers that have ended, for as long as `heartbeats` may still return them.
        self._ended: set[UUID] = set()
        self._lock = asyncio.Lock()

    def may_fetch(self) -> bool:
        """Whether the last heartbeat is so recent that no other node takes the producers to be dead."""
        return clock.monotonic() < self._sent_at + self.lease * 0.75

    def is_steady(self) -> bool:
        """Whether this node has sent heartbeats without a gap for so long that all live nodes have, too.

        After an outage, this node may be the first to send a heartbeat. Another live node then
        - tries within an interval,
        - fails within a quarter of the lease, its time limit, if its connection broke in the outage,
        - and tries again within another interval, with success.
        """
        seconds = clock.monotonic() - self._steady_since
        return self.may_fetch() and seconds >= self.lease / 4 + 2 * self.interval

    async def tick(self) -> float | None:
        try:
            await self._send()
        except Exception as error:
            if self.telemetry.wants(HeartbeatFailed):
                self.telemetry.emit(HeartbeatFailed, **error_fields(error))
            raise
        return None

    async def _send(self) -> None:
        async with self._lock:
            now = clock.monotonic()
            if now - self._loop_answered_at() > MAX_BLOCKED_LEASES * self.lease:
                raise RuntimeError(
                    f"the event loop has been blocked for more than {MAX_BLOCKED_LEASES} leases"
                )
            # The leader may have another lease; it judges each producer by the longer one.
            shared = {**self._facts(), "lease": self.lease}
            heartbeats = [
                heartbeat._replace(meta={**heartbeat.meta, **shared})
                for heartbeat in self._heartbeats()
                if heartbeat.uuid not in self._ended
            ]
            await self.database.write(cluster.heartbeat, heartbeats)
            # Another node's gap can be two intervals longer than this one: its last heartbeat may have come
            # an interval earlier, and its next one comes up to an interval later. With the default interval,
            # a quarter of the lease, that gap exceeds the lease, and the node looks dead until then.
            if clock.monotonic() > self._sent_at + self.interval + self.lease / 4:
                self._steady_since = clock.monotonic()
            self._sent_at = now
        if self.telemetry.wants(HeartbeatSent):
            queues = tuple(heartbeat.queue for heartbeat in heartbeats)
            self.telemetry.emit(HeartbeatSent, queues=queues, duration=clock.monotonic() - now)

    async def delete_producers(self, uuids: Iterable[UUID]) -> None:
        """Delete the rows of producers that have ended, so that no later heartbeat writes them again."""
        self._ended.update(uuids)
        async with self._lock:
            ended = self._ended.copy()
            await self.database.write(cluster.delete_producers, list(ended))
            self._ended -= ended.difference(heartbeat.uuid for heartbeat in self._heartbeats())
