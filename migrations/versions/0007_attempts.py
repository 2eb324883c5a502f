"""Create `oban_attempts`, the history of jobs: a row for each attempt that has ended."""

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade(op: Operations, schema: str | None = None) -> None:
    document = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.create_table(
        "oban_attempts",
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("node", sa.Text()),
        sa.Column("producer", sa.Text()),
        sa.Column("started_at", sa.DateTime()),
        sa.Column("ended_at", sa.DateTime(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("log", document),
        sa.Column("progress", document),
        sa.Column("trace", sa.Text()),
        schema=schema,
        if_not_exists=True,
    )
    # A B-tree would cost every acknowledgement more than the row itself. Rows of jobs with neighboring ids
    # lie close together, as BRIN needs them.
    op.create_index(
        "oban_attempts_job_id_index",
        "oban_attempts",
        ["job_id"],
        schema=schema,
        if_not_exists=True,
        postgresql_using="brin",
        postgresql_with={"pages_per_range": 8},
        postgresql_ops={"job_id": "int8_minmax_multi_ops"},
    )
    if op.get_context().dialect.name == "postgresql":
        table = f'"{schema}".oban_attempts' if schema else "oban_attempts"
        # With SQLAlchemy 2.0, CREATE TABLE cannot say it.
        op.execute(
            f"ALTER TABLE {table} SET ("
            "autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02)"
        )
        # Without a key, a publication of the table would make each DELETE fail.
        op.execute(f"ALTER TABLE {table} REPLICA IDENTITY FULL")


def downgrade(op: Operations, schema: str | None = None) -> None:
    op.drop_table("oban_attempts", schema=schema)
