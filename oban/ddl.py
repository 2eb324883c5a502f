"""What `oban_jobs` needs besides the table, for `metadata.create_all` and `drop_all`.

On PostgreSQL these are the enum of states, the trigger that wakes the runners, and autovacuum settings.
The revisions in `migrations/` create the same.
"""

import weakref
from typing import Any

from sqlalchemy import CheckConstraint, Connection, Table, TwoPhaseTransaction, event, text
from sqlalchemy.dialects import postgresql

from oban.types import STATES

#: The table in which Oban records its revision, separate from the application's.
VERSION_TABLE = "oban_alembic_version"
ENUM = "oban_job_state"
#: The name of the trigger, and of the function that it calls.
TRIGGER = "oban_notify_insert"

# Functions and operators of the inserting session's search_path must not replace those of pg_catalog.
NOTIFY = """
CREATE OR REPLACE FUNCTION {schema}oban_notify_insert() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  now_in_utc CONSTANT timestamp := timezone('UTC', clock_timestamp());
  earliest timestamp;
BEGIN
  IF lower(current_setting('oban.notify', true)) IN ('off', 'false', 'no', '0') THEN
    RETURN NULL;
  END IF;
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
CREATE_TRIGGER = """
CREATE TRIGGER oban_notify_insert AFTER INSERT ON {schema}oban_jobs
REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION {schema}oban_notify_insert()
"""
# The rows are updated all the time, and a few of them are deleted.
_KEYS_STORAGE = """
ALTER TABLE {schema}oban_unique_keys SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02)
"""
# Rows are only inserted, and deleted in the order of their insertion. VACUUM also adds new rows to the BRIN
# index. Without a key, a publication of the table would make each DELETE fail.
_ATTEMPTS_STORAGE = """
ALTER TABLE {schema}oban_attempts SET (
  autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02
)
"""
_ATTEMPTS_IDENTITY = "ALTER TABLE {schema}oban_attempts REPLICA IDENTITY FULL"
# Of a column that is declared as an identity, or as serial by other implementations.
_SEQUENCE = text("SELECT pg_get_serial_sequence(:jobs, 'id')")
_MUTE = text("SELECT set_config('oban.notify', 'off', true)")
#: The key of a reference to the last transaction that was muted, in the `info` of its connection.
_MUTED = "oban.muted"
# Most rows of a queue table are dead: vacuum early and without pauses, and leave room for HOT updates.
_STORAGE = """
ALTER TABLE {schema}oban_jobs SET (
  autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 50,
  autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 100,
  autovacuum_vacuum_cost_limit = 2000, autovacuum_vacuum_cost_delay = 1,
  autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_vacuum_insert_threshold = 1000,
  fillfactor = 85
)
"""


def mute_two_phase(connection: Connection) -> None:
    """Announce nothing in the rest of a transaction that will be prepared: PostgreSQL would refuse that."""
    transaction = connection.get_transaction()
    if not isinstance(transaction, TwoPhaseTransaction) or connection.dialect.name != "postgresql":
        return
    # A savepoint that is rolled back takes the setting with it.
    if connection.in_nested_transaction():
        connection.execute(_MUTE)
        return
    muted = connection.info.get(_MUTED)
    if muted is None or muted() is not transaction:
        connection.execute(_MUTE)
        connection.info[_MUTED] = weakref.ref(transaction)


def restart_ids(jobs: Table, connection: Connection, schema: str | None) -> None:
    """Give the next job the id 1, unless the transaction is rolled back."""
    if connection.dialect.name == "postgresql":
        dot = f"{connection.dialect.identifier_preparer.quote_schema(schema)}." if schema else ""
        sequence = connection.scalar(_SEQUENCE, {"jobs": f"{dot}{jobs.name}"})
        connection.execute(text(f"ALTER SEQUENCE {sequence} RESTART"))
    else:
        connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": jobs.name})


def notify_source() -> str:
    """The body of the trigger's function, as PostgreSQL stores it."""
    return NOTIFY.split("$$")[1]


def attach(jobs: Table) -> None:
    """Make CREATE TABLE and DROP TABLE of `oban_jobs`, and of its copies, also create and drop the rest."""
    event.listen(jobs, "before_create", _create_enum, propagate=True)
    event.listen(jobs, "after_create", _create_trigger, propagate=True)
    event.listen(jobs, "after_drop", _drop, propagate=True)
    for check in jobs.constraints:
        if check.name == "known_state":
            # Copying a constraint loses its ddl_if().
            event.listen(check, "after_parent_attach", _only_on_sqlite, propagate=True)


def attach_to_keys(keys: Table) -> None:
    """Make CREATE TABLE of `oban_unique_keys`, and of its copies, also set how the table is stored."""
    # `Table(postgresql_with=…)` needs SQLAlchemy 2.1.
    event.listen(keys, "after_create", _set_keys_storage, propagate=True)


def _set_keys_storage(keys: Table, connection: Connection, **_: Any) -> None:
    if connection.dialect.name == "postgresql":
        _execute(keys, connection, _KEYS_STORAGE)


def attach_to_attempts(attempts: Table) -> None:
    """Do the same for CREATE TABLE of `oban_attempts`."""
    event.listen(attempts, "after_create", _set_attempts_storage, propagate=True)


def _set_attempts_storage(attempts: Table, connection: Connection, **_: Any) -> None:
    if connection.dialect.name == "postgresql":
        _execute(attempts, connection, _ATTEMPTS_STORAGE, _ATTEMPTS_IDENTITY)


def _only_on_sqlite(check: CheckConstraint, _: Table) -> None:
    check.ddl_if(dialect="sqlite")


def _create_enum(jobs: Table, connection: Connection, **_: Any) -> None:
    if connection.dialect.name == "postgresql":
        schema = connection.schema_for_object(jobs)
        states = postgresql.ENUM(*STATES, name=ENUM, schema=schema)
        # create_mock_engine() only prints statements, so it cannot check.
        states.create(connection, checkfirst=isinstance(connection, Connection))


def _create_trigger(jobs: Table, connection: Connection, **_: Any) -> None:
    if connection.dialect.name == "postgresql":
        _execute(jobs, connection, NOTIFY, CREATE_TRIGGER, _STORAGE)


def _drop(jobs: Table, connection: Connection, **_: Any) -> None:
    # If the version table stayed, a later upgrade would expect the tables to exist.
    _execute(jobs, connection, f"DROP TABLE IF EXISTS {{schema}}{VERSION_TABLE}")
    if connection.dialect.name == "postgresql":
        function = "DROP FUNCTION IF EXISTS {schema}oban_notify_insert()"
        _execute(jobs, connection, function, "DROP TYPE IF EXISTS {schema}oban_job_state")


def _execute(jobs: Table, connection: Connection, *statements: str) -> None:
    schema = connection.schema_for_object(jobs)
    dot = f"{connection.dialect.identifier_preparer.quote_schema(schema)}." if schema else ""
    for statement in statements:
        connection.execute(text(statement.format(schema=dot)))
