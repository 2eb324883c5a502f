"""${message}."""

from alembic.operations import Operations

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade(op: Operations, schema: str | None = None) -> None:
    ${upgrades if upgrades else "pass"}


def downgrade(op: Operations, schema: str | None = None) -> None:
    ${downgrades if downgrades else "pass"}
