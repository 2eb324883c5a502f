"""Elects one node of an instance as its leader, by a lease in `oban_leaders`."""

import random
import uuid

from oban import clock
from oban.config import Options
from oban.database.aio import Database
from oban.repository import cluster
from oban.runner.services.base import Service


class Leader(Service):
    """Tries to take the lease, or renews it, every `election_interval`.

    Only the leader rescues and prunes, which saves the other nodes the work. Nothing depends on there being
    only one: two leaders at once do no harm.
    """

    def __init__(self, database: Database, options: Options) -> None:
        super().__init__("leader", options.election_interval)
        self.database = database
        self.instance = options.name
        #: Unique per start, so that no other node, and no earlier start of this one, shares it.
        self.identity = f"{options.node}/{uuid.uuid4()}"
        self.lease = options.lease
        self._leads_until = 0.0

    @property
    def leads(self) -> bool:
        """Whether this node leads now. It becomes false before another node can take the lease."""
        return clock.monotonic() < self._leads_until

    async def tick(self) -> float | None:
        # The lease begins when the database grants it, which is later than this.
        asked_at = clock.monotonic()
        try:
            retry_after = await self.database.write(cluster.elect, self.instance, self.identity, self.lease)
        except BaseException:
            self._leads_until = 0.0
            raise
        self._leads_until = asked_at + self.lease * 0.9 if retry_after is None else 0.0
        if retry_after is None:
            return None
        return min(self.interval, retry_after + random.uniform(0.01, 0.1))  # noqa: S311 - jitter

    async def resign(self) -> None:
        """Give the lease up, so that another node can lead at once. Does nothing unless this node leads."""
        if self.leads:
            self._leads_until = 0.0
            await self.database.write(cluster.resign, self.instance, self.identity)
