"""The Alembic environment: the application's tables and Oban's, on the application's engine."""

import asyncio
from typing import Any

from alembic import context
from sqlmodel import SQLModel

from oban import migration
from sqlmodel_app import models  # noqa: F401  (defines the tables of SQLModel.metadata)
from sqlmodel_app.database import engine


def run(**options: Any) -> None:
    context.configure(
        target_metadata=[SQLModel.metadata, migration.metadata],
        include_object=migration.include_object,
        process_revision_directives=migration.process_revision_directives,
        **options,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_online() -> None:
    async with engine.connect() as connection:
        await connection.run_sync(lambda connection: run(connection=connection))
    await engine.dispose()


if context.is_offline_mode():
    run(url=engine.url, literal_binds=True)
else:
    asyncio.run(run_online())
