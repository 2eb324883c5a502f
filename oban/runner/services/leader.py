"""Elects one node of an instance as its leader, by a lease in `oban_leaders`."""

import asyncio
import logging
import random
import uuid
from collections.abc import Callable
from typing import Any

from oban import clock
from oban.config import Options
from oban.database.aio import Database
from oban.repository import announce, cluster
from oban.runner.services.base import Service
from oban.telemetry import LeaderElected, LeaderLost, LeaderResigned

logger = logging.getLogger("oban.leader")

#: Least seconds between two looks at the lease that notifications cause. On SQLite, each change of the data
#: may be that the leader has resigned.
LOOK_PAUSE = 1.0
#: Seconds over which the nodes spread their first looks after a leader has resigned, so that most of them
#: find a new one.
SPREAD = 0.2


def _do_nothing() -> None:
    pass


class Leader(Service):
    """Tries to take the lease, or renews it, every `election_interval`.

    Only the leader rescues and prunes, which saves the other nodes the work. Nothing depends on there being
    only one: two leaders at once do no harm.

    A node that does not lead only reads the lease until it has ended. It looks sooner when the leader
    resigns: after a signal or, where signals do not reach every process, after any change of the data.
    Without notifications it looks every `control_interval`. With `leadership=False` it looks as well, and
    warns if there is no leader.
    """

    def __init__(self, database: Database, options: Options) -> None:
        super().__init__("leader", options.election_interval, database.telemetry)
        self.database = database
        self.instance = options.name
        #: Unique per start, so that no other node, and no earlier start of this one, shares it.
        self.identity = f"{options.node}/{uuid.uuid4()}"
        self.lease = options.lease
        self._can_lead = options.leadership
        self._look_interval = self.interval
        if options.notifier == "poll":
            self._look_interval = min(self.interval, options.control_interval)
        self._leads_until = 0.0
        #: The number of times that this node was elected, and whether there was no leader for longer than the
        #: lease before, as far as rows tell: a leader that resigns leaves none.
        self.term = 0
        self.follows_vacancy = False
        #: Called when this node is elected.
        self.on_elected: Callable[[], None] = _do_nothing
        self._resigning = False
        #: Whether the last event was `LeaderElected`.
        self._is_elected = False
        self._looked_at = 0.0
        self._next_look: asyncio.TimerHandle | None = None
        #: Since when there has been no leader, as far as this node knows; None after it has warned.
        self._vacant_since: float | None = clock.monotonic()

    @property
    def leads(self) -> bool:
        """Whether this node leads now. It becomes false before another node can take the lease."""
        return clock.monotonic() < self._leads_until

    async def tick(self) -> float | None:
        was_vacant: bool | None = None
        if not self.leads:
            self._note_lost()
            self._looked_at = clock.monotonic()
            ends_in = await self.database.read(cluster.lease_of_another, self.instance, self.identity)
            if not self._can_lead:
                self._warn_if_vacant(ends_in)
                return None
            if ends_in > 0:
                return self._pause(ends_in)
            was_vacant = ends_in < -self.lease
        # The lease begins when the database grants it, which is later than this.
        asked_at = clock.monotonic()
        try:
            retry_after = await self.database.write(cluster.elect, self.instance, self.identity, self.lease)
        except BaseException:
            self._leads_until = 0.0
            self._note_lost()
            raise
        if retry_after is not None:
            self._leads_until = 0.0
            self._note_lost()
            return self._pause(retry_after)
        self._leads_until = asked_at + self.lease * 0.9
        if was_vacant is not None:
            self.term += 1
            self.follows_vacancy = was_vacant
            self._is_elected = True
            self.telemetry.emit(LeaderElected)
            self.on_elected()
        return None

    def _pause(self, ends_in: float) -> float:
        return min(self._look_interval, ends_in + random.uniform(0.01, 0.1))  # noqa: S311 - jitter

    def _note_lost(self) -> None:
        if self._is_elected:
            self._is_elected = False
            self.telemetry.emit(LeaderLost)

    def _warn_if_vacant(self, ends_in: float) -> None:
        now = clock.monotonic()
        if ends_in > 0:
            self._vacant_since = now
        elif self._vacant_since is not None and now - self._vacant_since > self.lease:
            self._vacant_since = None
            logger.warning(
                "no node of the instance %s leads, so no jobs are rescued or pruned: run at least one node"
                " without leadership=False",
                self.instance,
            )

    def on_signal(self, payload: dict[str, Any]) -> None:
        """Look soon whether the lease is free: the leader has resigned, or anything may have changed."""
        if not self._can_lead or self.leads or self._next_look is not None:
            return
        match payload:
            case {"action": announce.RESIGN, "name": self.instance, "node": node} if node != self.identity:
                self._look_soon()
            case {} if not payload:
                self._look_soon()

    def _look_soon(self) -> None:
        since = clock.monotonic() - self._looked_at
        pause = max(random.uniform(0, SPREAD), LOOK_PAUSE - since)  # noqa: S311 - jitter
        self._next_look = asyncio.get_running_loop().call_later(pause, self._look)

    def _look(self) -> None:
        self._next_look = None
        if not self.leads:
            self.wake()

    async def resign(self) -> None:
        """Give the lease up, so that another node takes it at once. Does nothing unless this node leads."""
        if self._next_look is not None:
            self._next_look.cancel()
        if self.leads:
            self._leads_until, self._resigning = 0.0, True
        elif not self._resigning:
            self._note_lost()
        # Again, if an earlier call was interrupted.
        if self._resigning:
            await self.database.write(cluster.resign, self.instance, self.identity)
            # Not in the same transaction: see `cluster.elect`.
            await self.database.write(announce.announce_resigned, self.instance, self.identity)
            self._resigning = False
            self._is_elected = False
            self.telemetry.emit(LeaderResigned)
