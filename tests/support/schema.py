"""Describes tables, indexes and types of a database in a form that can be compared."""

import sqlite3
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, inspect, text

#: The tables of the first revision, and those of the newest one.
FIRST = {"oban_jobs", "oban_leaders", "oban_producers"}
TABLES = FIRST | {"oban_queues", "oban_unique_keys", "oban_periodic", "oban_ticks", "oban_attempts"}
VERSION_TABLE = "oban_alembic_version"


def render(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def sync_engine(url: URL) -> Engine:
    driver = "postgresql+psycopg" if url.get_backend_name() == "postgresql" else "sqlite"
    return create_engine(url.set(drivername=driver), poolclass=NullPool)


def tables(url: URL, schema: str | None = None) -> set[str]:
    engine = sync_engine(url)
    with engine.connect() as connection:
        return set(inspect(connection).get_table_names(schema=schema))


def described(url: URL, schema: str | None = None) -> dict[str, Any]:
    """Everything in a database, or in one schema, in a form that can be compared."""
    with sync_engine(url).connect() as connection:
        found = _reflected(connection, schema)
        if connection.dialect.name == "sqlite":
            rows = connection.execute(text("SELECT type, name, sql FROM sqlite_master ORDER BY type, name"))
            found["sql"] = [(kind, name, " ".join((sql or "").split())) for kind, name, sql in rows]
        else:
            found |= _of_postgresql(connection, schema or "public")
        return found


def _reflected(connection: Connection, schema: str | None) -> dict[str, Any]:
    inspector = inspect(connection)
    return {
        table: {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"], column["default"])
                for column in inspector.get_columns(table, schema=schema)
            ],
            "primary key": inspector.get_pk_constraint(table, schema=schema),
            "checks": sorted(
                (str(check["name"]), check["sqltext"])
                for check in inspector.get_check_constraints(table, schema=schema)
            ),
            "indexes": sorted(
                (str(index["name"]), tuple(index["column_names"]), condition(index))
                for index in inspector.get_indexes(table, schema=schema)
            ),
        }
        for table in sorted(inspector.get_table_names(schema=schema))
    }


def condition(index: Any) -> str:
    """The WHERE condition of a partial index."""
    options = index["dialect_options"]
    return str(options.get("sqlite_where", options.get("postgresql_where", "")))


_POSTGRESQL = {
    "types": "SELECT t.typname, array_agg(e.enumlabel::text ORDER BY e.enumsortorder) FROM pg_type t"
    " JOIN pg_enum e ON e.enumtypid = t.oid WHERE t.typnamespace = CAST(:schema AS regnamespace)"
    " GROUP BY t.typname",
    "functions": "SELECT proname, prosrc, proconfig FROM pg_proc"
    " WHERE pronamespace = CAST(:schema AS regnamespace)",
    "triggers": "SELECT tgname, replace(pg_get_triggerdef(t.oid), :schema || '.', '') FROM pg_trigger t"
    " JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = CAST(:schema AS regnamespace)"
    " AND NOT tgisinternal",
    "options": "SELECT relname, reloptions, relpersistence FROM pg_class WHERE relkind = 'r'"
    " AND relnamespace = CAST(:schema AS regnamespace)",
    # The reflected ones show no method.
    "other indexes": "SELECT indexname, replace(indexdef, schemaname || '.', '') FROM pg_indexes"
    " WHERE schemaname = :schema AND indexdef NOT LIKE '% USING btree %'",
    "replica identities": "SELECT relname, relreplident FROM pg_class WHERE relreplident = 'f'"
    " AND relnamespace = CAST(:schema AS regnamespace)",
    "collations": "SELECT relname, attname, collname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid"
    " JOIN pg_collation o ON o.oid = attcollation WHERE relnamespace = CAST(:schema AS regnamespace)"
    " AND relkind = 'r' AND NOT attisdropped AND collname <> 'default'",
    "identity": "SELECT table_name, column_name, identity_generation FROM information_schema.columns"
    " WHERE table_schema = :schema AND is_identity = 'YES'",
}


def _of_postgresql(connection: Connection, schema: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, query in _POSTGRESQL.items():
        rows = connection.execute(text(query), {"schema": schema})
        found[kind] = sorted(str(tuple(row)) for row in rows)
    return found


def is_empty(url: URL, schema: str | None = None) -> bool:
    """Whether a database has no table, index, type, function, trigger and sequence."""
    with sync_engine(url).connect() as connection:
        if connection.dialect.name == "sqlite":
            # SQLite's own table of AUTOINCREMENT counters cannot be dropped.
            query = "SELECT count(*) FROM sqlite_master WHERE name <> 'sqlite_sequence'"
            return bool(connection.scalar(text(query)) == 0)
        query = (
            "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = CAST(:schema AS regnamespace))"
            " + (SELECT count(*) FROM pg_type WHERE typnamespace = CAST(:schema AS regnamespace))"
            " + (SELECT count(*) FROM pg_proc WHERE pronamespace = CAST(:schema AS regnamespace))"
        )
        return bool(connection.scalar(text(query), {"schema": schema or "public"}) == 0)


def run_script(url: URL, script: str) -> None:
    """Run an SQL script as `psql` or `sqlite3` would."""
    if url.get_backend_name() == "sqlite":
        connection = sqlite3.connect(str(url.database))
        connection.executescript(script)
        connection.close()
        return
    with sync_engine(url).connect() as checked_out:
        driver: Any = checked_out.connection.driver_connection
        driver.autocommit = True
        driver.execute(script)
