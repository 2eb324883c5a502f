"""Fills the tables by SQL, one of them with a million jobs, and sets up the planner's statistics of them."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlalchemy import URL, create_engine

from oban.unique import Unique

JOBS = 1_000_000
EXECUTING = 400
#: Prefixes of the uuids of producers: half of the executing jobs have a live one, half a dead one.
LIVE, DEAD = "11111111-1111-4111-8111-1111111111", "22222222-2222-4222-8222-2222222222"
PRODUCERS = 10
#: The number of jobs that are fetched and completed during an old snapshot, which leaves two dead rows each.
DRAINED = 100_000
#: What 110,000 completed jobs have in common, and their key.
BUSY_ARGS: dict[str, Any] = {"account": 123456, "kind": "report"}
BUSY_KEY = Unique().key({"worker": "app.Worker", "queue": "default", "args": BUSY_ARGS})
#: Keys without a job. They come first in the table, and were last claimed by a transaction that has ended.
UNUSED_KEYS, UNUSED_KEY = 100_000, "unused-"
#: The entries of periodic jobs of one instance among others, and the ticks of each: one a minute, none old.
ENTRIES, OTHER_ENTRIES, TICKS = 10, 10_000, 10_000
#: The tables whose size must not matter.
LARGE = ("oban_jobs", "oban_unique_keys", "oban_periodic", "oban_ticks")

_RULE = json.dumps(Unique().rule())
# By the last digits of their numbers, so jobs of each kind are spread over the table.
_FILL = f"""
INSERT INTO oban_jobs (state, queue, worker, attempt, priority, args, attempted_by, inserted_at,
                       scheduled_at, attempted_at, completed_at, cancelled_at, discarded_at,
                       unique_key, unique_rule)
SELECT state::oban_job_state, queue, 'app.Worker', CASE WHEN ran THEN 1 ELSE 0 END, n / 100 % 4,
       '{{"account": 123456, "kind": "report"}}',
       CASE WHEN ran THEN ARRAY['node', CASE WHEN n % 5000 < 2500 THEN '{LIVE}' ELSE '{DEAD}' END
                                || to_char(n / 5000 % {PRODUCERS}, 'FM00')] ELSE '{{}}' END,
       made, CASE WHEN state IN ('scheduled', 'retryable') AND n % 300 > 100
                  THEN now + interval '1 hour' + n * interval '1 second' ELSE made END,
       CASE WHEN ran THEN made END,
       CASE state WHEN 'completed' THEN made END, CASE state WHEN 'cancelled' THEN made END,
       CASE state WHEN 'discarded' THEN made END,
       CASE WHEN is_busy THEN '{BUSY_KEY}' END, CASE WHEN is_busy THEN '{_RULE}'::jsonb END
  FROM (SELECT n, timezone('UTC', now()) AS now,
               timezone('UTC', now()) - interval '60 minutes' - ({JOBS} - n) * interval '0.5 seconds' AS made,
               CASE WHEN n % 2500 = 0 THEN 'executing' WHEN n % 100 < 56 THEN 'completed'
                    WHEN n % 100 < 91 THEN 'available' WHEN n % 100 < 95 THEN 'scheduled'
                    WHEN n % 100 < 97 THEN 'retryable' WHEN n % 100 < 99 THEN 'cancelled'
                    ELSE 'discarded' END AS state,
               CASE WHEN n % 50000 = 60 THEN 'few' WHEN n % 100 < 76 THEN 'default'
                    WHEN n % 100 < 88 THEN 'media' ELSE 'mailers' END AS queue
          FROM generate_series(1, {JOBS}) AS n) AS numbered,
       LATERAL (SELECT state NOT IN ('available', 'scheduled', 'cancelled') AS ran,
                       state = 'completed' AND n % 5 = 1 AS is_busy) AS more
"""
_KEYS = f"""
INSERT INTO oban_unique_keys (key, turn)
SELECT '{UNUSED_KEY}' || n, 3 FROM generate_series(1, {UNUSED_KEYS}) AS n
UNION ALL SELECT '{BUSY_KEY}', 3
"""
_PERIODIC = f"""
INSERT INTO oban_periodic (name, entry, declared, source, declared_at, seen_at, last_tick, updated_at)
SELECT CASE WHEN n <= {ENTRIES} THEN 'Oban' ELSE 'other-' || n % 100 END, 'entry-' || n,
       '{{"expression": "* * * * *", "worker": "app.Worker"}}', 'code', now, now,
       date_trunc('minute', now), now
  FROM generate_series(1, {ENTRIES + OTHER_ENTRIES}) AS n,
       LATERAL (SELECT timezone('UTC', now()) AS now) AS clock
"""
_TICKS = f"""
INSERT INTO oban_ticks (name, entry, tick, job_id, inserted_at)
SELECT name, entry, last_tick - n * interval '1 minute', n, last_tick - n * interval '1 minute'
  FROM oban_periodic, generate_series(0, {TICKS} - 1) AS n
 WHERE name = 'Oban' ORDER BY n DESC
"""
_INDEXES = "SELECT indexdef, indexname FROM pg_indexes WHERE tablename = 'oban_jobs' AND indexname !~ 'pkey'"
#: The rows that earlier tests have rolled back are dead as well.
VACUUM = f"VACUUM (INDEX_CLEANUP ON) {', '.join(LARGE)}"
ANALYZE = f"ANALYZE {', '.join(LARGE)}"
_OIDS = ", ".join(f"'{table}'::regclass" for table in LARGE)
_PRODUCER_ROWS = f"""
INSERT INTO oban_producers (uuid, name, node, queue, updated_at)
SELECT (digits || to_char(n, 'FM00'))::uuid, 'Oban', 'node', 'default',
       timezone('UTC', now()) + days * interval '1 day'
  FROM (VALUES ('{LIVE}', 1), ('{DEAD}', -1)) AS kinds (digits, days),
       generate_series(0, {PRODUCERS - 1}) AS n
"""


@contextmanager
def _connected(url: URL) -> Iterator[Callable[..., Any]]:
    """A function that runs each statement in its own transaction and returns the rows of the last one."""
    engine = create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:

        def run(*statements: str) -> Any:
            for statement in statements:
                result = connection.exec_driver_sql(statement.replace("%", "%%"))
            return result.all() if result.returns_rows else None

        yield run
    engine.dispose()


def fill(url: URL) -> None:
    """Fill an empty table: without triggers and WAL, with the indexes last, and without autovacuum."""
    with _connected(url) as run:
        indexes = run(_INDEXES)
        run(
            "ALTER TABLE oban_jobs SET UNLOGGED",
            "ALTER TABLE oban_jobs DISABLE TRIGGER USER",
            *(f"DROP INDEX {name}" for _, name in indexes),
            _FILL,
            *(definition for definition, _ in indexes),
            _PRODUCER_ROWS,
            *(_KEYS, _PERIODIC, _TICKS),
            *(f"ALTER TABLE {table} SET (autovacuum_enabled = off)" for table in LARGE),
            "VACUUM ANALYZE oban_producers",
        )


def vacuum(url: URL) -> None:
    """Remove the rows that earlier tests have left dead, so that an index alone can answer."""
    with _connected(url) as run:
        run(VACUUM)


@contextmanager
def _loaded(url: URL) -> Iterator[None]:
    """There are no statistics, as the tables and their indexes were just created and filled."""
    with _connected(url) as run:
        run(
            VACUUM,
            f"DELETE FROM pg_statistic WHERE starelid IN ({_OIDS})",
            "UPDATE pg_class SET reltuples = -1, relpages = 0, relallvisible = 0"
            f" WHERE oid IN ({_OIDS})"
            f" OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid IN ({_OIDS}))",
        )
    yield


@contextmanager
def _analyzed(url: URL) -> Iterator[None]:
    with _connected(url) as run:
        run(VACUUM, ANALYZE)
    yield


@contextmanager
def _idle(url: URL) -> Iterator[None]:
    """The statistics are from a moment at which no job was executing."""
    with _connected(url) as run:
        run(
            VACUUM,
            "UPDATE oban_jobs SET state = 'suspended' WHERE state = 'executing'",
            ANALYZE,
            "UPDATE oban_jobs SET state = 'executing' WHERE state = 'suspended'",
        )
    yield


@contextmanager
def _bloated(url: URL) -> Iterator[None]:
    """Jobs of one queue were fetched and completed, but an old snapshot keeps two dead rows of each."""
    first = "WHERE queue = 'media' ORDER BY priority, scheduled_at, id"
    some = f"id IN (SELECT id FROM oban_jobs {first} LIMIT {DRAINED})"
    with _connected(url) as run, _connected(url) as other:
        run(VACUUM, ANALYZE)
        other("BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1")
        run(
            f"UPDATE oban_jobs SET state = 'executing' WHERE state = 'available' AND {some}",
            "UPDATE oban_jobs SET state = 'completed', completed_at = scheduled_at"
            f" WHERE state = 'executing' AND {some}",
        )
        yield


#: In this order, as the last one cannot be undone.
CONDITIONS: dict[str, Callable[[URL], AbstractContextManager[None]]] = {
    "loaded": _loaded,
    "analyzed": _analyzed,
    "idle": _idle,
    "bloated": _bloated,
}
