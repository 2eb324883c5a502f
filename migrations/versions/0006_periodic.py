"""Create `oban_periodic`, for entries of periodic jobs, and `oban_ticks`, for the times they were due."""

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str | None = None) -> None:
    document = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.create_table(
        "oban_periodic",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("declared", document, nullable=False),
        sa.Column("override", document),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("declared_at", sa.DateTime(), nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
        sa.Column("lease", sa.Double()),
        sa.Column("last_tick", sa.DateTime()),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", "entry", name="oban_periodic_pkey"),
        schema=schema,
        if_not_exists=True,
    )
    op.create_table(
        "oban_ticks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("entry", sa.Text(), nullable=False),
        sa.Column("tick", sa.DateTime(), nullable=False),
        sa.Column("job_id", sa.BigInteger()),
        sa.Column("inserted_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", "entry", "tick", name="oban_ticks_pkey"),
        schema=schema,
        if_not_exists=True,
    )
    # To delete the old ones.
    op.create_index("oban_ticks_tick_index", "oban_ticks", ["tick"], schema=schema, if_not_exists=True)


def downgrade(op: Operations, schema: str | None = None) -> None:
    op.drop_table("oban_ticks", schema=schema)
    op.drop_table("oban_periodic", schema=schema)
