"""Let an INSERT of scheduled jobs announce when the first of them is due."""

from alembic.operations import Operations

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BEFORE = """
CREATE OR REPLACE FUNCTION {schema}oban_notify_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- Longer names cannot come from Oban, and a payload of 8,000 bytes would fail the insert.
  PERFORM pg_notify(TG_TABLE_SCHEMA || '.oban_insert', jsonb_build_object('queue', queue)::text)
     FROM (SELECT DISTINCT queue FROM inserted
            WHERE state = 'available' AND octet_length(queue) <= 1024) AS queues;
  RETURN NULL;
END $$
"""
NOTIFY = """
CREATE OR REPLACE FUNCTION {schema}oban_notify_insert() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  now_in_utc CONSTANT timestamp := timezone('UTC', clock_timestamp());
  earliest timestamp;
BEGIN
  -- Longer names cannot come from Oban, and a payload of 8,000 bytes would fail the insert.
  PERFORM pg_notify(TG_TABLE_SCHEMA || '.oban_insert', jsonb_build_object('queue', queue)::text)
     FROM (SELECT DISTINCT queue FROM inserted
            WHERE state = 'available' AND octet_length(queue) <= 1024) AS queues;
  SELECT min(scheduled_at) INTO earliest FROM inserted
   WHERE state = 'scheduled' AND scheduled_at < 'infinity';
  IF earliest IS NOT NULL THEN
    -- Nothing can be subtracted from infinity: greatest() comes first.
    PERFORM pg_notify(TG_TABLE_SCHEMA || '.oban_signal', jsonb_build_object('action', 'stage',
      'in', extract(epoch FROM greatest(earliest, now_in_utc) - now_in_utc))::text);
  END IF;
  RETURN NULL;
END $$
"""


def upgrade(op: Operations, schema: str | None = None) -> None:
    _replace(op, schema, NOTIFY)


def downgrade(op: Operations, schema: str | None = None) -> None:
    # Replacing a function needs the privilege to create one, and revision 0001 drops it without that.
    if op.get_context().opts.get("destination_rev") != "base":
        _replace(op, schema, BEFORE)


def _replace(op: Operations, schema: str | None, function: str) -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute(function.format(schema=f'"{schema}".' if schema else ""))
