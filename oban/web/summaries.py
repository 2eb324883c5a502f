"""`Summaries`: what the overview shows, computed in the background for all pages of an instance."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from oban import dialects
from oban.client import Oban
from oban.diagnosis.health_findings import Health
from oban.dialects.base import Dialect
from oban.web.background import Background
from oban.web.failed_jobs import FailedJobs, read_failed_jobs
from oban.web.sessions import Sessions
from oban.web.trends import WINDOWS, Query, Trends, Window

#: Seconds for which the numbers of each window, and other figures, are kept.
MAX_AGE: Mapping[str, float] = {"1h": 10.0, "24h": 60.0, "7d": 300.0, "failures": 10.0, "health": 60.0}


class Summaries:
    """What the overview shows. Nothing is computed while nobody looks at it.

    Attributes:
        trends: The numbers over time, by the name of the window.
        failures: Which jobs have failed today.
        health: The result of `oban.health()`.
    """

    def __init__(self, oban: Oban, sessions: Sessions) -> None:
        self._oban, self._sessions = oban, sessions
        self.trends: dict[str, Background[Trends]] = {
            name: Background(self._reader(window), MAX_AGE[name], f"the numbers of the {window.title}")
            for name, window in WINDOWS.items()
        }
        self.failures = Background(self._failures, MAX_AGE["failures"], "the failures of today")
        self.health: Background[Health] = Background(oban.health, MAX_AGE["health"], "the checks")

    def _reader(self, window: Window) -> Callable[[], Awaitable[Trends]]:
        async def read() -> Trends:
            async with self._sessions.read() as session:
                return await Query(session, self._dialect, window, await self._now(session)).read()

        return read

    async def _failures(self) -> FailedJobs:
        async with self._sessions.read() as session:
            return await read_failed_jobs(self._oban, session, self._dialect, await self._now(session))

    async def _now(self, session: AsyncSession) -> datetime:
        now: datetime = (await session.execute(select(self._dialect.now()))).scalar_one()
        return now

    @property
    def _dialect(self) -> Dialect:
        return dialects.for_bind(self._oban.engine.sync_engine)

    async def close(self) -> None:
        """Stop computing."""
        for trends in self.trends.values():
            await trends.close()
        await self.failures.close()
        await self.health.close()
