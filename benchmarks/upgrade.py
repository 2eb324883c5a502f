"""Upgrades tables with many jobs while others use them: how long it takes, what it locks, what it keeps.

    python -m benchmarks.upgrade postgresql://postgres@127.0.0.1/empty --rows 1000000
    python -m benchmarks.upgrade sqlite:////tmp/empty.db

The database must be empty. The tables are filled at the first revision, go up to the newest one, down and up
again, the last time with the columns and the index made beforehand, as the documentation advises.
"""

import argparse
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, make_url, text

from oban import migration

FIRST = "0003"
#: Seconds between two looks at the locks.
SAMPLE = 0.002
#: The columns of the first revision. Their values must stay.
COLUMNS = (
    *("id", "state", "queue", "worker", "attempt", "max_attempts", "priority", "args", "meta", "tags"),
    *("errors", "attempted_by", "inserted_at", "scheduled_at", "attempted_at", "cancelled_at"),
    *("completed_at", "discarded_at"),
)
STATES = (
    *("available", "scheduled", "suspended", "executing"),
    *("retryable", "completed", "discarded", "cancelled"),
)
#: What the documentation advises to run before an upgrade of a large table.
BEFOREHAND = (
    'ALTER TABLE oban_jobs ADD COLUMN IF NOT EXISTS unique_key text COLLATE "C",'
    " ADD COLUMN IF NOT EXISTS unique_rule jsonb",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS oban_jobs_unique_key_index"
    " ON oban_jobs (unique_key, state, inserted_at, scheduled_at) WHERE unique_key IS NOT NULL",
)
_ENDED = ", ".join(
    f"CASE WHEN state = '{state}' THEN made END" for state in ("cancelled", "completed", "discarded")
)
_INTO = (
    "INSERT INTO oban_jobs (state, queue, worker, attempt, priority, args, meta, tags, errors, attempted_by,"
    " inserted_at, scheduled_at, attempted_at, cancelled_at, completed_at, discarded_at)"
)
_STATE = " ".join(f"WHEN {n} THEN '{state}'" for n, state in enumerate(STATES))
_ERRORS = """'[{"attempt": 1, "at": "2026-01-02T03:04:05Z", "error": "bad"}]'"""
_FILL = {
    "postgresql": f"""
{_INTO}
SELECT state::oban_job_state, 'queue-' || n % 7, 'app.Worker', n % 3, n % 10,
       jsonb_build_object('n', n, 'text', repeat('x', 100)), '{{"by": "ä"}}', ARRAY['a', 'b' || n % 5],
       {_ERRORS}, ARRAY['node', 'uuid'], made, made, made, {_ENDED}
  FROM (SELECT n, CASE n % 8 {_STATE} END AS state,
               timezone('UTC', now()) - n * interval '1 second' AS made
          FROM generate_series(1, %d) AS n) AS numbered
""",
    "sqlite": f"""
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < %d)
{_INTO}
SELECT state, 'queue-' || n % 7, 'app.Worker', n % 3, n % 10,
       json_object('n', n, 'text', printf('%.100c', 'x')), '{{"by": "ä"}}', json_array('a', 'b' || n % 5),
       {_ERRORS}, '["node", "uuid"]', made, made, made, {_ENDED}
  FROM (SELECT n, CASE n % 8 {_STATE} END AS state,
               strftime('%Y-%m-%d %H:%M:%f000', '2026-01-02', '-' || n || ' seconds') AS made
          FROM numbers) AS numbered
""",
}
_LOCKS = text("""
SELECT l.mode FROM pg_locks l JOIN pg_stat_activity a USING (pid)
 WHERE a.application_name = 'oban-upgrade' AND l.granted AND l.relation = to_regclass('oban_jobs')
""")


@dataclass
class Step:
    """How long one upgrade or downgrade took, and what others noticed of it, in seconds."""

    name: str
    seconds: float = 0.0
    #: The longest call of a reader and of a writer that were at work meanwhile.
    reader: float = 0.0
    writer: float = 0.0
    #: For how long each mode of a lock on `oban_jobs` was seen. Empty on SQLite.
    locks: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        locks = ", ".join(f"{mode} {seconds:.3f} s" for mode, seconds in sorted(self.locks.items()))
        return (
            f"{self.name}: {self.seconds:.3f} s; longest read {self.reader:.3f} s, longest write"
            f" {self.writer:.3f} s" + (f"; locks: {locks}" if locks else "")
        )


def engine_of(url: URL, **arguments: Any) -> Engine:
    if url.get_backend_name() == "postgresql":
        url, options = url.set(drivername="postgresql+psycopg"), arguments
    else:
        url, options = url.set(drivername="sqlite"), {"timeout": 300}
    return create_engine(url, poolclass=NullPool, connect_args=options)


def measure(url: URL, rows: int) -> Iterator[Step]:
    """Fill an empty database and upgrade it. Raises `AssertionError` if a row is changed or missing."""
    database = url.get_backend_name()
    engine = engine_of(url, application_name="oban-upgrade")
    migration.upgrade(engine, revision=FIRST)
    with engine.begin() as connection:
        if database == "postgresql":
            connection.exec_driver_sql("ALTER TABLE oban_jobs DISABLE TRIGGER USER")
        connection.exec_driver_sql(_FILL[database].replace("%d", str(rows)).replace("%", _percent(database)))
        if database == "postgresql":
            connection.exec_driver_sql("ALTER TABLE oban_jobs ENABLE TRIGGER USER")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # As a node does, so that readers do not wait for the writer; and a table that has been in use.
        settle = "VACUUM ANALYZE oban_jobs" if database == "postgresql" else "PRAGMA journal_mode = WAL"
        connection.exec_driver_sql(settle)
    before = checksum(engine)
    steps: list[tuple[str, Callable[[], Any]]] = [
        ("up", lambda: migration.upgrade(engine)),
        ("down", lambda: migration.downgrade(engine, revision=FIRST)),
    ]
    if database == "postgresql":
        steps += [("beforehand", lambda: _run(engine, *BEFOREHAND))]
    steps += [("up again", lambda: migration.upgrade(engine))]
    for name, action in steps:
        step = Step(name)
        with _observed(url, step):
            since = time.perf_counter()
            action()
            step.seconds = time.perf_counter() - since
        assert checksum(engine) == before, f"{name} has changed rows"
        yield step


def checksum(engine: Engine) -> tuple[int, str]:
    """The number of jobs, and a hash of all their values in the columns of the first revision."""
    columns = ", ".join(COLUMNS)
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            hashed = f"sum(hashtextextended(CAST(ROW({columns}) AS text), 0))"
            count, total = connection.execute(text(f"SELECT count(*), {hashed} FROM oban_jobs")).one()
            return count, str(total)
        made, count = hashlib.blake2b(), 0
        for row in connection.exec_driver_sql(f"SELECT {columns} FROM oban_jobs ORDER BY id"):
            made.update(repr(tuple(row)).encode())
            count += 1
        return count, made.hexdigest()


def _percent(database: str) -> str:
    return "%%" if database == "postgresql" else "%"


def _run(engine: Engine, *statements: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@contextmanager
def _observed(url: URL, step: Step) -> Iterator[None]:
    """Read and write one job all the time, and look at the locks of the upgrade."""
    stop = threading.Event()
    seen: dict[str, tuple[float, float]] = {}

    def longest(statement: str, name: str) -> Callable[[Connection], None]:
        def call(connection: Connection) -> None:
            since = time.perf_counter()
            connection.exec_driver_sql(statement)
            setattr(step, name, max(getattr(step, name), time.perf_counter() - since))

        return call

    def look(connection: Connection) -> None:
        now = time.perf_counter()
        for mode in connection.scalars(_LOCKS):
            seen[mode] = (seen.get(mode, (now,))[0], now)

    observers = [
        longest("SELECT state FROM oban_jobs WHERE id = 1", "reader"),
        longest("UPDATE oban_jobs SET priority = priority WHERE id = 1", "writer"),
    ]
    if url.get_backend_name() == "postgresql":
        observers.append(look)

    started = threading.Barrier(len(observers) + 1)

    def observe(action: Callable[[Connection], None]) -> None:
        with engine_of(url).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            started.wait()
            while not stop.wait(SAMPLE):
                action(connection)

    threads = [threading.Thread(target=observe, args=(action,)) for action in observers]
    for thread in threads:
        thread.start()
    started.wait()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        step.locks = {mode: last - first for mode, (first, last) in seen.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upgrade", description=__doc__)
    parser.add_argument("url", type=make_url, help="an empty database")
    parser.add_argument("--rows", type=int, default=1_000_000, help="jobs in the table (default: 1,000,000)")
    options = parser.parse_args(arguments)
    for step in measure(options.url, options.rows):
        print(step, flush=True)


if __name__ == "__main__":
    main()
