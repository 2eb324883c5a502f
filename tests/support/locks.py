"""Locks for which transactions wait."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine


async def waits_for_lock(engine: AsyncEngine) -> bool:
    """Whether a transaction in the engine's PostgreSQL database waits for another one."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with engine.connect() as connection:
        return bool((await connection.execute(text(query))).scalar_one())
