"""Add the key and the rule of unique jobs, and the table of keys that guards inserts."""

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INDEX = "oban_jobs_unique_key_index"
# False if CREATE INDEX CONCURRENTLY has failed.
VALID = sa.text("""
SELECT x.indisvalid FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
 WHERE x.indrelid = to_regclass(:jobs) AND i.relname = :index
""")


def upgrade(op: Operations, schema: str | None = None) -> None:
    native = op.get_context().dialect.name == "postgresql"
    jobs = _jobs(schema)
    if added := _missing_columns(op, schema):
        # Nullable and without a default, so that no row is written.
        if native:
            columns = ", ".join(f"ADD COLUMN IF NOT EXISTS {name} {type_}" for name, type_ in added.items())
            op.execute(f"ALTER TABLE {jobs} {columns}")
        else:
            for name, type_ in added.items():
                op.execute(f"ALTER TABLE {jobs} ADD COLUMN {name} {type_}")
    if not _has_index(op, schema):
        unique = sa.text("unique_key IS NOT NULL")
        op.create_index(
            INDEX,
            "oban_jobs",
            # The last column spares a look-up by `scheduled_at` the rows that are not due within its period.
            ["unique_key", "state", "inserted_at", "scheduled_at"],
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
    )
    if native:
        # With SQLAlchemy 2.0, CREATE TABLE cannot say it.
        storage = "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02"
        op.execute(f"ALTER TABLE {_table('oban_unique_keys', schema)} SET ({storage})")


def downgrade(op: Operations, schema: str | None = None) -> None:
    op.drop_table("oban_unique_keys", schema=schema)
    op.drop_index(INDEX, "oban_jobs", schema=schema)
    for name in ("unique_rule", "unique_key"):
        op.execute(f"ALTER TABLE {_jobs(schema)} DROP COLUMN {name}")


def _jobs(schema: str | None) -> str:
    return _table("oban_jobs", schema)


def _table(name: str, schema: str | None) -> str:
    return f'"{schema}".{name}' if schema else name


def _connection(op: Operations) -> sa.Connection | None:
    """The connection, to look at the table; None for a printed script."""
    context = op.get_context()
    return None if context.as_sql else context.connection


def _missing_columns(op: Operations, schema: str | None) -> dict[str, str]:
    """The columns to add, with their types.

    On PostgreSQL, ALTER TABLE would wait for every transaction on the table, and stop new ones, even if there
    were nothing to add.
    """
    native = op.get_context().dialect.name == "postgresql"
    columns = {
        "unique_key": 'text COLLATE "C"' if native else "TEXT",
        "unique_rule": "jsonb" if native else "JSON",
    }
    if (connection := _connection(op)) is not None:
        for column in sa.inspect(connection).get_columns("oban_jobs", schema=schema):
            columns.pop(column["name"], None)
    return columns


def _has_index(op: Operations, schema: str | None) -> bool:
    """Whether the index is there, so that CREATE INDEX need not wait for writers. Drops an invalid one."""
    connection = _connection(op)
    if connection is None or connection.dialect.name != "postgresql":
        return False
    valid = connection.scalar(VALID, {"jobs": _jobs(schema), "index": INDEX})
    if valid is False:
        op.drop_index(INDEX, "oban_jobs", schema=schema)
    return bool(valid)
