"""A revision of an application, which passes Alembic's `op` to `upgrade` and `downgrade`."""

from alembic import op
from sqlalchemy import URL, Connection, Engine

from oban import migration


def upgrade() -> None:
    migration.upgrade(op, revision="base:0007")


def downgrade() -> None:
    migration.downgrade(op, revision="0007:base")


def install(connection: Connection, engine: Engine, url: URL) -> list[str]:
    return [*migration.upgrade(connection), *migration.upgrade(engine), *migration.upgrade(url)]
