"""The tables of revision 0001 as PostgreSQL describes them, and the queries that describe existing ones."""

from sqlalchemy import TextClause, text

STATES = (
    *("available", "scheduled", "suspended", "executing"),
    *("retryable", "completed", "discarded", "cancelled"),
)
_NOW = "timezone('UTC'::text, now())"
_TIME = "timestamp without time zone"
#: For each table and column, the type and the default as PostgreSQL prints them. `?` marks a nullable column.
COLUMNS: dict[str, dict[str, tuple[str, str | None]]] = {
    "oban_jobs": {
        "id": ("bigint", None),
        "state": ("oban_job_state", "'available'::oban_job_state"),
        "queue": ("text", "'default'::text"),
        "worker": ("text", None),
        "attempt": ("smallint", "0"),
        "max_attempts": ("smallint", "20"),
        "priority": ("smallint", "0"),
        "args": ("jsonb", "'{}'::jsonb"),
        "meta": ("jsonb", "'{}'::jsonb"),
        "tags": ("text[]", "'{}'::text[]"),
        "errors": ("jsonb", "'[]'::jsonb"),
        "attempted_by": ("text[]", "'{}'::text[]"),
        "inserted_at": (_TIME, _NOW),
        "scheduled_at": (_TIME, _NOW),
        "attempted_at": (f"{_TIME}?", None),
        "cancelled_at": (f"{_TIME}?", None),
        "completed_at": (f"{_TIME}?", None),
        "discarded_at": (f"{_TIME}?", None),
    },
    "oban_leaders": {
        "name": ("text", None),
        "node": ("text", None),
        "elected_at": (_TIME, None),
        "expires_at": (_TIME, None),
    },
    "oban_producers": {
        "uuid": ("uuid", None),
        "name": ("text", None),
        "node": ("text", None),
        "queue": ("text", None),
        "meta": ("jsonb", "'{}'::jsonb"),
        "started_at": (_TIME, _NOW),
        "updated_at": (_TIME, _NOW),
    },
}
#: For each table, the column of its primary key: the first one.
PRIMARY_KEYS = {table: next(iter(columns)) for table, columns in COLUMNS.items()}
#: For each CHECK constraint, its condition as PostgreSQL prints it.
CHECKS = {
    "attempt_range": "((attempt >= 0) AND (attempt <= max_attempts))",
    "positive_max_attempts": "(max_attempts > 0)",
    "priority_range": "((priority >= 0) AND (priority <= 9))",
    "queue_length": "(length(queue) > 0)",
    "worker_length": "(length(worker) > 0)",
}
#: Constraints of oban-py that one of these includes, with their definitions.
REDUNDANT_CHECKS = {"non_negative_priority": "CHECK ((priority >= 0))"}
_STAGING = "(state = ANY (ARRAY['scheduled'::oban_job_state, 'retryable'::oban_job_state]))"
#: For each index, its columns and its condition as PostgreSQL prints it.
INDEXES: dict[str, tuple[list[str], str | None]] = {
    "oban_jobs_state_queue_priority_scheduled_at_id_index": (
        ["state", "queue", "priority", "scheduled_at", "id"],
        None,
    ),
    "oban_jobs_staging_index": (["scheduled_at", "id"], _STAGING),
    **{
        f"oban_jobs_{ended}_at_index": ([f"{ended}_at"], f"(state = '{ended}'::oban_job_state)")
        for ended in ("completed", "cancelled", "discarded")
    },
}
#: The columns of the tables of later revisions, which leave an existing table as it is.
LATER_COLUMNS = {
    "oban_queues": {"name", "queue", "node", "running", "limit", "paused", "updated_at"},
    "oban_unique_keys": {"key", "turn"},
    "oban_periodic": {
        *("name", "entry", "declared", "override", "source", "paused"),
        *("declared_at", "seen_at", "lease", "last_tick", "updated_at"),
    },
    "oban_ticks": {"name", "entry", "tick", "job_id", "inserted_at"},
    "oban_attempts": {
        *("job_id", "attempt", "outcome", "node", "producer", "started_at", "ended_at"),
        *("error", "log", "progress", "trace"),
    },
}

_SCHEMA = "(SELECT oid FROM pg_namespace WHERE nspname = coalesce(CAST(:schema AS text), current_schema()))"


def _query(sql: str) -> TextClause:
    tables = ", ".join(f"'{table}'" for table in COLUMNS)
    return text(sql.replace("{schema}", _SCHEMA).replace("{tables}", tables))


FOUND_COLUMNS = _query("""
SELECT c.relname::text AS table, a.attname::text AS name, a.attnotnull AS required,
       a.attidentity::text AS identity, c.relpersistence::text AS persistence,
       CASE WHEN t.typnamespace = c.relnamespace THEN t.typname::text
            ELSE format_type(a.atttypid, a.atttypmod) END AS type,
       CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) ELSE 'generated' END AS default,
       obj_description(c.oid, 'pg_class') AS comment
  FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE c.relnamespace = {schema} AND c.relname IN ({tables})
""")
FOUND_CONSTRAINTS = _query("""
SELECT c.relname::text AS table, n.conname::text AS name, n.contype::text AS type, n.convalidated AS valid,
       pg_get_constraintdef(n.oid) AS definition
  FROM pg_constraint n JOIN pg_class c ON c.oid = n.conrelid
 WHERE c.relnamespace = {schema} AND c.relname IN ({tables})
""")
FOUND_INDEXES = _query("""
SELECT i.relname::text AS name, x.indisvalid AND NOT x.indisunique AS usable,
       pg_get_expr(x.indpred, x.indrelid) AS condition,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
              WHERE a.attrelid = i.oid ORDER BY a.attnum) AS columns
  FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
 WHERE c.relnamespace = {schema} AND c.relname = 'oban_jobs'
""")
FOUND_STATES = _query("""
SELECT enumlabel::text FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid
 WHERE t.typnamespace = {schema} AND t.typname = 'oban_job_state' ORDER BY enumsortorder
""")
FOUND_TRIGGER = _query("""
SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
 WHERE c.relnamespace = {schema} AND c.relname = 'oban_jobs' AND t.tgname = 'oban_notify_insert'
""")


def unqualified(expression: str | None, schema: str | None) -> str | None:
    """An expression as PostgreSQL prints it if the schema is on the search path."""
    for dot in (f"{schema}.", f'"{schema}".') if schema else ():
        expression = expression and expression.replace(dot, "")
    return expression


def sql_type(type_: str) -> str:
    """A type of `COLUMNS` as it is written in SQL."""
    return f"{type_.rstrip('?')} {'NULL' if type_.endswith('?') else 'NOT NULL'}"
