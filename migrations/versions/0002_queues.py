"""Create `oban_queues`, for commands to queues, and an index for jobs that have no attempts left."""

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str | None = None) -> None:
    native = op.get_context().dialect.name == "postgresql"
    now = "timezone('UTC', now())" if native else "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"
    op.create_table(
        "oban_queues",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False, server_default=sa.text("''")),
        sa.Column("running", sa.Boolean()),
        sa.Column("limit", sa.Integer()),
        sa.Column("paused", sa.Boolean()),
        sa.Column("updated_at", sa.DateTime(), nullable=False, server_default=sa.text(now)),
        sa.PrimaryKeyConstraint("name", "queue", "node", name="oban_queues_pkey"),
        schema=schema,
        # As in every later revision, because `metadata.create_all` may have created it.
        if_not_exists=True,
    )
    exhausted = sa.text("state = 'available' AND attempt >= max_attempts")
    op.create_index(
        "oban_jobs_exhausted_index",
        "oban_jobs",
        ["id"],
        schema=schema,
        if_not_exists=True,
        postgresql_where=exhausted,
        sqlite_where=exhausted,
    )


def downgrade(op: Operations, schema: str | None = None) -> None:
    op.drop_index("oban_jobs_exhausted_index", "oban_jobs", schema=schema)
    op.drop_table("oban_queues", schema=schema)
