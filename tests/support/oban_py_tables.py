"""The tables that oban-py 0.6.0 to 0.7.0 creates, with rows as it leaves them."""

from sqlalchemy import URL, text

from tests.support.schema import sync_engine

_NOW = "timestamp NOT NULL DEFAULT timezone('UTC', now())"
_STATES = "'available', 'scheduled', 'executing', 'retryable', 'completed', 'discarded', 'cancelled'"
_INDEX = "CREATE INDEX oban_jobs_{}_index ON oban_jobs ({}) {}"
_STATEMENTS = [
    f"CREATE TYPE oban_job_state AS ENUM ({_STATES})",
    "ALTER TYPE oban_job_state ADD VALUE 'suspended' AFTER 'scheduled'",
    "CREATE TABLE oban_jobs (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,"
    " state oban_job_state NOT NULL DEFAULT 'available',"
    " queue text NOT NULL DEFAULT 'default', worker text NOT NULL,"
    " attempt smallint NOT NULL DEFAULT 0, max_attempts smallint NOT NULL DEFAULT 20,"
    " priority smallint NOT NULL DEFAULT 0,"
    " args jsonb NOT NULL DEFAULT '{}', meta jsonb NOT NULL DEFAULT '{}',"
    " tags text[] NOT NULL DEFAULT ARRAY[]::text[], errors jsonb NOT NULL DEFAULT '[]',"
    " attempted_by text[] NOT NULL DEFAULT ARRAY[]::text[],"
    f" inserted_at {_NOW}, scheduled_at {_NOW}, attempted_at timestamp, cancelled_at timestamp,"
    " completed_at timestamp, discarded_at timestamp,"
    " CONSTRAINT attempt_range CHECK (attempt >= 0 AND attempt <= max_attempts),"
    " CONSTRAINT queue_length CHECK (char_length(queue) > 0),"
    " CONSTRAINT worker_length CHECK (char_length(worker) > 0),"
    " CONSTRAINT positive_max_attempts CHECK (max_attempts > 0),"
    " CONSTRAINT non_negative_priority CHECK (priority >= 0))",
    "CREATE UNLOGGED TABLE oban_leaders (name text PRIMARY KEY DEFAULT 'oban', node text NOT NULL,"
    " elected_at timestamp NOT NULL, expires_at timestamp NOT NULL)",
    "CREATE UNLOGGED TABLE oban_producers (uuid uuid PRIMARY KEY, name text NOT NULL DEFAULT 'oban',"
    " node text NOT NULL, queue text NOT NULL, meta jsonb NOT NULL DEFAULT '{}',"
    f" started_at {_NOW}, updated_at {_NOW})",
    _INDEX.format(
        "state_queue_priority_scheduled_at_id",
        "state, queue, priority, scheduled_at, id",
        "WITH (fillfactor = 90)",
    ),
    *(_INDEX.format(f"{at}_at", f"{at}_at", f"WHERE state = '{at}'") for at in ("completed", "cancelled")),
    _INDEX.format("discarded_at", "discarded_at", "WHERE state = 'discarded'"),
    "ALTER TABLE oban_jobs SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 50,"
    " autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 100,"
    " autovacuum_vacuum_cost_limit = 2000, autovacuum_vacuum_cost_delay = 1,"
    " autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_vacuum_insert_threshold = 1000,"
    " fillfactor = 85)",
    "CREATE FUNCTION oban_count_estimate(state text, queue text) RETURNS integer LANGUAGE sql AS 'SELECT 1'",
]
_STAGED = "WHERE state IN ('scheduled', 'retryable')"
#: The differences between the releases.
RELEASES = {
    "0.6.0": [
        _INDEX.format("staging", "scheduled_at, id", _STAGED),
        "COMMENT ON TABLE oban_jobs IS '1'",
    ],
    "0.7.0": [_INDEX.format("staging", "scheduled_at, id", f"INCLUDE (queue) {_STAGED}")],
}
_ROWS = """
INSERT INTO oban_jobs (state, worker, attempt, args, meta, tags, errors, attempted_by)
SELECT state, 'app.Worker', 1, '{"n": [1, null]}', '{"uniq_bmp": []}', '{a,b}',
       '[{"attempt": 1, "at": "2026-01-02T03:04:05Z", "error": "bad"}]', '{node,uuid}'
  FROM unnest(enum_range(NULL::oban_job_state)) AS state
"""


def install(url: URL, release: str = "0.7.0", schema: str | None = None) -> None:
    """Create the tables of a release in an empty database, with one job in each state."""
    with sync_engine(url).begin() as connection:
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema or 'public'}"))
        connection.execute(text(f"SET LOCAL search_path TO {schema or 'public'}"))
        for statement in [*_STATEMENTS, *RELEASES[release]]:
            connection.execute(text(statement))
    with sync_engine(url).begin() as connection:
        connection.execute(text(f"SET LOCAL search_path TO {schema or 'public'}"))
        connection.execute(text(_ROWS.replace(":", r"\:").replace(r"\:\:", "::")))
        connection.execute(text("INSERT INTO oban_leaders VALUES ('oban', 'node', now(), now())"))
        producer = "INSERT INTO oban_producers (uuid, node, queue) VALUES (gen_random_uuid(), 'node', 'q')"
        connection.execute(text(producer))
