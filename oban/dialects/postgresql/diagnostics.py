"""`Diagnostics` for PostgreSQL."""

import math
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from oban.dialects.diagnostics import Diagnostics, OpenTransaction, TableStorage, Transactions

#: Milliseconds that a statement waits for a lock, as of a migration.
LOCK_TIMEOUT = 1000
_SETTINGS = ("statement_timeout", "lock_timeout")
_CURRENT = sa.text("SELECT " + ", ".join(f"current_setting('{name}') AS {name}" for name in _SETTINGS))
_SET = sa.text("SELECT " + ", ".join(f"set_config('{name}', :{name}, true)" for name in _SETTINGS))
#: The key of the settings before `limit`, in the `info` of a connection.
_BEFORE = "oban.limits"
_TABLES = sa.text("""
SELECT CAST(c.relname AS text), coalesce(s.n_live_tup, 0), coalesce(s.n_dead_tup, 0),
       pg_total_relation_size(c.oid),
       current_setting('autovacuum') = 'on' AND NOT EXISTS (
         SELECT FROM pg_options_to_table(c.reloptions)
          WHERE option_name = 'autovacuum_enabled' AND lower(option_value) IN ('false', 'off', 'no', '0'))
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
 WHERE n.nspname = :schema AND c.relname IN :names AND c.relkind = 'r'
 ORDER BY c.relname
""").bindparams(sa.bindparam("names", expanding=True))
_STATES = sa.text("""
SELECT frequent.state, CAST(c.reltuples * frequent.share AS bigint)
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = 'state'
 CROSS JOIN unnest(CAST(CAST(s.most_common_vals AS text) AS text[]), s.most_common_freqs)
       AS frequent (state, share)
 WHERE n.nspname = :schema AND c.relname = 'oban_jobs' AND c.reltuples > 0
""")
# Details of sessions of other roles are NULL without the privilege, but whether they hold a snapshot or have
# written is not. VACUUM's own transaction holds nothing back.
_SESSIONS = sa.text("""
SELECT pid, CAST(usename AS text) AS role, application_name AS application, state,
       extract(epoch FROM clock_timestamp() - xact_start) AS seconds
  FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid()
   AND coalesce(backend_type, 'client backend') = 'client backend'
   AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL OR state LIKE 'idle in transaction%')
   AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum WHERE pid IS NOT NULL)
 ORDER BY xact_start NULLS FIRST
""")
_PREPARED = sa.text("""
SELECT gid, CAST(owner AS text) AS role, extract(epoch FROM clock_timestamp() - prepared) AS seconds
  FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared
""")
# A row that several transactions have locked in shared modes is not found: its `xmax` names none of them.
_LOCKER = """
SELECT l.pid, CAST(usename AS text) AS role, application_name AS application, a.state,
       extract(epoch FROM clock_timestamp() - xact_start) AS seconds
  FROM {table} j
  JOIN pg_locks l ON l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
   AND l.transactionid = j.xmax AND l.pid <> pg_backend_pid()
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE j.id = :id
"""
_SCHEMAS = sa.text("""
SELECT CAST(nspname AS text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE relname = 'oban_jobs' AND relkind = 'r' ORDER BY nspname LIMIT 20
""")
_GRANT = "GRANT pg_read_all_stats TO "


class PostgreSQLDiagnostics(Diagnostics):
    def limit(self, connection: Connection, seconds: float) -> None:
        before = connection.execute(_CURRENT).one()._asdict()
        timeout = math.ceil(seconds * 1000)
        lock = min(LOCK_TIMEOUT, timeout)
        limits = {"statement_timeout": str(timeout), "lock_timeout": str(lock)}
        connection.execute(_SET, limits)
        connection.info[_BEFORE] = before

    def unlimit(self, connection: Connection) -> None:
        if (before := connection.info.pop(_BEFORE, None)) is not None:
            connection.execute(_SET, before)

    def version(self, connection: Connection) -> str:
        return f"PostgreSQL {connection.scalar(sa.text('SHOW server_version'))}"

    def tables(self, connection: Connection, schema: str | None, names: Sequence[str]) -> list[TableStorage]:
        rows = connection.execute(_TABLES, {"schema": schema, "names": list(names)})
        return [TableStorage(*row) for row in rows]

    def estimated_states(self, connection: Connection, schema: str | None) -> dict[str, int]:
        return dict(map(tuple, connection.execute(_STATES, {"schema": schema})))

    def transactions(self, connection: Connection, seconds: float) -> Transactions:
        sessions = connection.execute(_SESSIONS).all()
        found = [
            OpenTransaction(
                _session(row),
                float(row.seconds),
                f"SELECT pg_terminate_backend({row.pid})",
            )
            for row in sessions
            if row.seconds is not None and row.seconds >= seconds
        ]
        prepared = [
            OpenTransaction(
                f"the prepared transaction {row.gid} (role {row.role})",
                float(row.seconds),
                "ROLLBACK PREPARED '{}'".format(row.gid.replace("'", "''")),
            )
            for row in connection.execute(_PREPARED)
            if row.seconds >= seconds
        ]
        role = connection.scalar(sa.text("SELECT quote_ident(current_user)"))
        return Transactions(found + prepared, sum(row.seconds is None for row in sessions), f"{_GRANT}{role}")

    def schemas(self, connection: Connection) -> list[str]:
        return list(connection.execute(_SCHEMAS).scalars())

    def locker(self, connection: Connection, schema: str | None, job_id: int) -> OpenTransaction | None:
        quote = connection.dialect.identifier_preparer.quote
        table = "oban_jobs" if schema is None else f"{quote(schema)}.oban_jobs"
        row = connection.execute(sa.text(_LOCKER.format(table=table)), {"id": job_id}).first()
        if row is None:
            return None
        # The age is hidden from other roles.
        seconds = math.nan if row.seconds is None else float(row.seconds)
        return OpenTransaction(_session(row), seconds, f"SELECT pg_terminate_backend({row.pid})")


def _session(row: Any) -> str:
    return f"process {row.pid} (role {row.role}{_named(row.application)}, {row.state})"


def _named(application: str | None) -> str:
    return f", {application}" if application else ""
