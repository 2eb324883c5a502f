"""Add the key and the rule of unique jobs, and the table of keys that guards inserts."""

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

COLUMNS = ("unique_key", "unique_rule")


def upgrade(op: Operations, schema: str | None = None) -> None:
    native = op.get_context().dialect.name == "postgresql"
    dot = f'"{schema}".' if schema else ""
    if native:
        # Without a default, so that no row is written.
        op.execute(
            f'ALTER TABLE {dot}oban_jobs ADD COLUMN IF NOT EXISTS unique_key text COLLATE "C",'
            " ADD COLUMN IF NOT EXISTS unique_rule jsonb"
        )
    else:
        found = _columns(op)
        for name, type_ in zip(COLUMNS, ("TEXT", "JSON"), strict=True):
            if name not in found:
                op.execute(f"ALTER TABLE oban_jobs ADD COLUMN {name} {type_}")
    unique = sa.text("unique_key IS NOT NULL")
    op.create_index(
        "oban_jobs_unique_key_index",
        "oban_jobs",
        ["unique_key", "state", "inserted_at"],
        schema=schema,
        if_not_exists=True,
        postgresql_where=unique,
        sqlite_where=unique,
    )
    turn = "CAST(CAST(pg_current_xact_id() AS text) AS bigint)" if native else "0"
    op.create_table(
        "oban_unique_keys",
        sa.Column("key", sa.Text(collation="C" if native else None), nullable=False),
        sa.Column("turn", sa.BigInteger(), nullable=False, server_default=sa.text(turn)),
        sa.PrimaryKeyConstraint("key", name="oban_unique_keys_pkey"),
        schema=schema,
        if_not_exists=True,
        postgresql_with={"fillfactor": 70, "autovacuum_vacuum_scale_factor": 0.02},
    )


def downgrade(op: Operations, schema: str | None = None) -> None:
    op.drop_table("oban_unique_keys", schema=schema)
    op.drop_index("oban_jobs_unique_key_index", "oban_jobs", schema=schema)
    dot = f'"{schema}".' if schema else ""
    for name in COLUMNS:
        op.execute(f"ALTER TABLE {dot}oban_jobs DROP COLUMN {name}")


def _columns(op: Operations) -> set[str]:
    """The columns that the table has already: `metadata.create_all` may have created it."""
    connection = op.get_context().connection
    if op.get_context().as_sql or connection is None:
        return set()
    return {column["name"] for column in sa.inspect(connection).get_columns("oban_jobs")}
