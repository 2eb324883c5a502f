"""`Sampler`: reads a sample of an instance, at a bounded cost however many pages are open."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from oban import dialects
from oban.client import Oban
from oban.errors import ObanError
from oban.repository.stats import Stats
from oban.web.errors import WebError
from oban.web.sessions import Sessions

#: What is raised if the database does not answer, or not in time.
NO_ANSWER = (TimeoutError, ObanError, SQLAlchemyError, OSError, WebError)
#: Up to how many jobs of each queue and state are counted.
COUNT_LIMIT = 10_000
#: Seconds between two samples while pages are open.
INTERVAL = 2.0
#: The most of the time that one connection can spend on samples.
DUTY = 0.03
#: Seconds that the end of the dashboard waits for the sample that is being read.
CLOSE_TIMEOUT = 1.0
#: The longest pause between two samples, in seconds.
MAX_PAUSE = 30.0


@dataclass(frozen=True, slots=True)
class LiveSample:
    """What an instance did a moment ago.

    Attributes:
        stats: The result of `oban.stats(count_limit=COUNT_LIMIT)`.
        read_at: When it was read, by `time.monotonic()`.
        seconds: How long reading it took.
        estimates: How many jobs there are of each frequent state, by the statistics of the database.
    """

    stats: Stats
    read_at: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    estimates: Mapping[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """The number of jobs by state, of each queue up to the limit."""
        return self.stats.counts

    @property
    def truncated(self) -> frozenset[str]:
        """The states that have more jobs than `counts` tells."""
        return frozenset(state for queue in self.stats.queues for state in queue.truncated)

    def number(self, state: str) -> str:
        """The number of jobs in a state as pages show it: "1,234", "≈ 980,000", or "50,000+" for at least."""
        count = self.counts[state]
        if state not in self.truncated:
            return f"{count:,}"
        estimate = self.estimates.get(state, 0)
        if estimate <= count:
            return f"{count:,}+"
        return f"≈ {round(estimate, 2 - len(str(estimate))):,}"

    @property
    def failed(self) -> int:
        """How many jobs were discarded within the last hour."""
        return self.stats.finished["discarded"].last_hour

    @property
    def digest(self) -> Any:
        """What differs when pages would show something else, apart from the passage of time."""
        stats = self.stats
        queues = [(each.queue, each.status, each.counts, each.limit, each.nodes) for each in stats.queues]
        nodes = [(each.node, each.alive) for each in stats.nodes]
        finished = {state: each.last_minute for state, each in stats.finished.items()}
        return queues, nodes, finished, stats.due, stats.leader, stats.settings

    @property
    def pause(self) -> float:
        """Seconds until the next sample may be read: the longer, the dearer this one was."""
        return min(MAX_PAUSE, max(INTERVAL, self.seconds / DUTY))


class Sampler:
    """Reads samples, one at a time, for all pages of an instance."""

    def __init__(self, oban: Oban, sessions: Sessions) -> None:
        self._oban, self._sessions = oban, sessions
        self._last: LiveSample | None = None
        self._reading: asyncio.Task[LiveSample] | None = None

    async def sample(self, max_age: float = INTERVAL) -> LiveSample:
        """The last sample if it is at most `max_age` seconds old, else a new one.

        Those who ask at the same time get the same one. Where a sample takes long, it is used for longer, so
        that samples never take more than `DUTY` of the time.

        Raises:
            WebError, TimeoutError, ObanError, SQLAlchemyError, OSError: The database does not answer.
        """
        last = self._last
        if last is not None and time.monotonic() - last.read_at <= max(max_age, last.pause):
            return last
        return await self.read()

    async def read(self) -> LiveSample:
        """Read a sample, or wait for the one that is being read."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
            # Nobody may be left to get the error.
            self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        # A client that goes away does not take the sample from the others.
        return await asyncio.shield(self._reading)

    async def _read(self) -> LiveSample:
        started = time.monotonic()
        estimates: dict[str, int] = {}
        if self._sessions.engine is self._oban.engine:
            # Everybody shares the only connection, whose transactions the client keeps apart.
            stats = await self._oban.stats(count_limit=COUNT_LIMIT)
        else:
            async with self._sessions.read() as session:
                stats = await self._oban.stats(session, count_limit=COUNT_LIMIT)
                if any(queue.truncated for queue in stats.queues):
                    estimates = await (await session.connection()).run_sync(self._estimate)
        now = time.monotonic()
        self._last = LiveSample(stats, now, now - started, estimates)
        return self._last

    def _estimate(self, connection: Connection) -> dict[str, int]:
        dialect = dialects.for_bind(connection)
        schema = self._oban.options.prefix or dialect.table_schema(connection)
        return dialects.diagnostics(dialect).estimated_states(connection, schema)

    async def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            # A driver that is interrupted while it connects leaves a connection open.
            await asyncio.wait({self._reading}, timeout=CLOSE_TIMEOUT)
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
