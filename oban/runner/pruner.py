"""Deletes finished jobs that have been kept long enough."""

from oban.config import Retention
from oban.repository import maintenance
from oban.repository.transaction import Database
from oban.runner.leader import Leader
from oban.runner.service import Service


class Pruner(Service):
    """On the leader: one statement per state, and per queue and worker that is kept in its own way."""

    def __init__(self, database: Database, leader: Leader, *, retention: Retention, interval: float) -> None:
        super().__init__("pruner", interval)
        self.database = database
        self.leader = leader
        self.limit = retention.limit
        self._rules = maintenance.rules(retention)

    async def tick(self) -> float | None:
        full = False
        for rule in self._rules:
            if not self.leader.leads:
                return None
            full |= await self.database.write(maintenance.prune, rule, self.limit) == self.limit
        # There may be more: soon, but not in one go, which would leave no room for others.
        return min(1.0, self.interval) if full else None
