"""`Sessions`: the dashboard's own connections, on which every request has a time limit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.pool import StaticPool

from oban import dialects
from oban.client import Oban
from oban.database.engines import with_own_pool

#: Seconds that a request can use the database, including the wait for a connection.
TIMEOUT = 5.0
#: Connections of a dashboard: with more requests at once, some wait.
CONNECTIONS = 4


class Sessions:
    """Sessions on a pool of their own, so that the dashboard takes no connection of the application."""

    def __init__(self, oban: Oban) -> None:
        self._oban = oban
        self._engine: AsyncEngine | None = None

    @property
    def engine(self) -> AsyncEngine:
        """The engine with the dashboard's own pool, made at its first use."""
        if self._engine is None:
            source = self._oban.engine
            if isinstance(source.sync_engine.pool, StaticPool):
                # A database in memory has one connection, which everybody shares.
                self._engine = source
            else:
                dialect = dialects.for_bind(source.sync_engine)
                limits = None if self._oban.options.behind_pooler else dialect.session_limits_sql(TIMEOUT)
                self._engine = with_own_pool(source, CONNECTIONS, TIMEOUT, limits)
        return self._engine

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session to read in. Raises `TimeoutError` when the time is over."""
        async with asyncio.timeout(TIMEOUT), AsyncSession(self.engine) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A session to write in, which is committed at the end."""
        async with asyncio.timeout(TIMEOUT), AsyncSession(self.engine, expire_on_commit=False) as session:
            yield session
            await session.commit()

    async def close(self) -> None:
        """Close the connections of the dashboard."""
        if self._engine is not None and self._engine is not self._oban.engine:
            await self._engine.dispose()
        self._engine = None
