"""Leads the instance: holds its lease, and knows on its own clock when that may have ended."""

import random

from oban import clock
from oban.database.aio import Database
from oban.repository import cluster
from oban.runner.services.base import Service


class Leader(Service):
    """One node of an instance leads, as long as it renews its lease.

    Being the leader saves work, and nothing rests on it: what the leader does is safe when two do it.
    """

    def __init__(
        self, database: Database, *, name: str, identity: str, lease: float, interval: float
    ) -> None:
        super().__init__("leader", interval)
        self.database = database
        self.instance = name
        #: Unique per start, so that no other node, nor an earlier life of this one, can be taken for it.
        self.identity = identity
        self.lease = lease
        self._until = 0.0

    @property
    def leads(self) -> bool:
        """Whether this node leads now; false from before the moment at which another one can."""
        return clock.monotonic() < self._until

    async def tick(self) -> float | None:
        # What is granted counts from later than this, so that the belief ends before the lease.
        asked = clock.monotonic()
        try:
            held = await self.database.write(cluster.elect, self.instance, self.identity, self.lease)
        except BaseException:
            self._until = 0.0
            raise
        if held is None:
            self._until = asked + self.lease * 0.9
            return None
        self._until = 0.0
        return min(self.interval, held + random.uniform(0.01, 0.1))  # noqa: S311 - jitter

    async def resign(self) -> None:
        """Let another node lead at once, rather than when the lease ends."""
        if self.leads:
            self._until = 0.0
            await self.database.write(cluster.resign, self.instance, self.identity)
