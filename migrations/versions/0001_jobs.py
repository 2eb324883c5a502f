"""Create `oban_jobs`, `oban_leaders` and `oban_producers`, or adopt those that exist."""

from typing import Any

import sqlalchemy as sa
from alembic.operations import Operations
from sqlalchemy.dialects import postgresql

from oban.migration import adoption

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

STATES = (
    *("available", "scheduled", "suspended", "executing"),
    *("retryable", "completed", "discarded", "cancelled"),
)
EVENTS = ("attempted", "cancelled", "completed", "discarded")

# The enum can be left over from tables that were dropped. PostgreSQL refuses to drop one that is in use.
DROP_ENUM = """
DO $$ BEGIN
  EXECUTE 'DROP TYPE IF EXISTS ' || coalesce(quote_ident({schema}) || '.', '') || 'oban_job_state';
END $$
"""
NOTIFY = """
CREATE OR REPLACE FUNCTION {schema}oban_notify_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- Longer names cannot come from Oban, and a payload of 8,000 bytes would fail the insert.
  PERFORM pg_notify(TG_TABLE_SCHEMA || '.oban_insert', jsonb_build_object('queue', queue)::text)
     FROM (SELECT DISTINCT queue FROM inserted
            WHERE state = 'available' AND octet_length(queue) <= 1024) AS queues;
  RETURN NULL;
END $$
"""
TRIGGER = """
CREATE TRIGGER oban_notify_insert AFTER INSERT ON {schema}oban_jobs
REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION {schema}oban_notify_insert()
"""
# Most rows of a queue table are dead: vacuum early and without pauses, and leave room for HOT updates.
STORAGE = """
ALTER TABLE {schema}oban_jobs SET (
  autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 50,
  autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 100,
  autovacuum_vacuum_cost_limit = 2000, autovacuum_vacuum_cost_delay = 1,
  autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_vacuum_insert_threshold = 1000,
  fillfactor = 85
)
"""


def upgrade(op: Operations, schema: str | None = None) -> None:
    if adoption.adopt(op, schema, [NOTIFY, TRIGGER, STORAGE]):
        return
    native = op.get_context().dialect.name == "postgresql"
    dot = f'"{schema}".' if schema else ""
    if native:
        op.execute(DROP_ENUM.format(schema=f"'{schema}'" if schema else "current_schema()"))
        op.execute(f"CREATE TYPE {dot}oban_job_state AS ENUM ('" + "', '".join(STATES) + "')")
        state: Any = postgresql.ENUM(*STATES, name="oban_job_state", schema=schema, create_type=False)
        key: Any = sa.BigInteger()
        document: Any = postgresql.JSONB()
        strings: Any = postgresql.ARRAY(sa.Text())
        empty, now = "'{}'", "timezone('UTC', now())"
        checks = []
    else:
        state, key, document, strings = sa.Text(), sa.Integer(), sa.JSON(), sa.JSON()
        empty, now = "'[]'", "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))"
        known = "state IN ('" + "', '".join(STATES) + "')"
        checks = [sa.CheckConstraint(known, name="known_state")]

    def column(name: str, type_: Any, default: str | None = None) -> sa.Column[Any]:
        server_default = None if default is None else sa.text(default)
        return sa.Column(name, type_, nullable=False, server_default=server_default)

    op.create_table(
        "oban_jobs",
        sa.Column("id", key, sa.Identity(), nullable=False),
        column("state", state, "'available'"),
        column("queue", sa.Text(), "'default'"),
        column("worker", sa.Text()),
        column("attempt", sa.SmallInteger(), "0"),
        column("max_attempts", sa.SmallInteger(), "20"),
        column("priority", sa.SmallInteger(), "0"),
        column("args", document, "'{}'"),
        column("meta", document, "'{}'"),
        column("tags", strings, empty),
        column("errors", document, "'[]'"),
        column("attempted_by", strings, empty),
        column("inserted_at", sa.DateTime(), now),
        column("scheduled_at", sa.DateTime(), now),
        *(sa.Column(f"{event}_at", sa.DateTime()) for event in EVENTS),
        sa.PrimaryKeyConstraint("id", name="oban_jobs_pkey"),
        sa.CheckConstraint("attempt >= 0 AND attempt <= max_attempts", name="attempt_range"),
        sa.CheckConstraint("max_attempts > 0", name="positive_max_attempts"),
        sa.CheckConstraint("priority >= 0 AND priority <= 9", name="priority_range"),
        sa.CheckConstraint("length(queue) > 0", name="queue_length"),
        sa.CheckConstraint("length(worker) > 0", name="worker_length"),
        *checks,
        schema=schema,
        sqlite_autoincrement=True,
    )

    def index(name: str, columns: list[str], where: str | None = None) -> None:
        where_ = None if where is None else sa.text(where)
        conditions: Any = {"postgresql_where": where_, "sqlite_where": where_}
        op.create_index(f"oban_jobs_{name}_index", "oban_jobs", columns, schema=schema, **conditions)

    index("state_queue_priority_scheduled_at_id", ["state", "queue", "priority", "scheduled_at", "id"])
    index("staging", ["scheduled_at", "id"], "state IN ('scheduled', 'retryable')")
    for state in ("completed", "cancelled", "discarded"):
        index(f"{state}_at", [f"{state}_at"], f"state = '{state}'")

    op.create_table(
        "oban_leaders",
        column("name", sa.Text()),
        column("node", sa.Text()),
        column("elected_at", sa.DateTime()),
        column("expires_at", sa.DateTime()),
        sa.PrimaryKeyConstraint("name", name="oban_leaders_pkey"),
        schema=schema,
    )
    op.create_table(
        "oban_producers",
        column("uuid", sa.Uuid()),
        column("name", sa.Text()),
        column("node", sa.Text()),
        column("queue", sa.Text()),
        column("meta", document, "'{}'"),
        column("started_at", sa.DateTime(), now),
        column("updated_at", sa.DateTime(), now),
        sa.PrimaryKeyConstraint("uuid", name="oban_producers_pkey"),
        schema=schema,
    )
    if native:
        for statement in (NOTIFY, TRIGGER, STORAGE):
            op.execute(statement.format(schema=dot))


def downgrade(op: Operations, schema: str | None = None) -> None:
    for table in ("oban_producers", "oban_leaders", "oban_jobs"):
        op.drop_table(table, schema=schema)
    if op.get_context().dialect.name == "postgresql":
        dot = f'"{schema}".' if schema else ""
        op.execute(f"DROP FUNCTION {dot}oban_notify_insert()")
        op.execute(f"DROP TYPE {dot}oban_job_state")
