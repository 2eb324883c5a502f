"""Targets that `upgrade` does not take."""

import alembic
from sqlalchemy.ext.asyncio import AsyncEngine

from oban import migration


def upgrade(engine: AsyncEngine) -> None:
    migration.upgrade(engine)  # error
    migration.upgrade(alembic)  # error
