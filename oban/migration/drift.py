"""How the tables of a database differ from those of the newest revision. Looks, and changes nothing."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Index, Inspector, MetaData, Table, inspect
from sqlalchemy.schema import CreateIndex

from oban.ddl import VERSION_TABLE
from oban.migration import revisions, shape
from oban.models import metadata


class Revision(NamedTuple):
    """The revision of existing tables."""

    #: None if no revision has created the tables, as with `metadata.create_all`.
    current: str | None
    newest: str
    #: Whether this version of Oban has the current one.
    known: bool


class Difference(NamedTuple):
    """Something that is missing or different."""

    #: The problem, as a sentence without a period.
    text: str
    #: What to do, also without a period.
    advice: str
    #: Whether statements of Oban fail, instead of being slow or too tolerant.
    fatal: bool


def find_revision(connection: Connection, schema: str | None) -> Revision:
    """The revision of the tables in a schema."""
    options = revisions.options(schema, connection.dialect.name)
    heads = MigrationContext.configure(connection, opts=options).get_current_heads()
    script = revisions.script()
    known = {revision.revision for revision in script.walk_revisions()}
    current = max(heads, default=None)
    return Revision(current, script.get_current_head() or "", current is None or current in known)


def missing_tables(connection: Connection, schema: str | None) -> set[str]:
    """The names of Oban's tables that do not exist."""
    return metadata.tables.keys() - set(inspect(connection).get_table_names(schema=schema))


def differences(connection: Connection, schema: str | None) -> list[Difference]:
    """What is missing or different in the tables of the newest revision."""
    inspector = inspect(connection)
    tables = _copies(schema)
    missing = missing_tables(connection, schema)
    found = [_missing_table(name, schema) for name in sorted(missing)]
    existing = [table for table in tables if table.name not in missing]
    found += _columns(inspector, existing, schema)
    if connection.dialect.name == "postgresql":
        return [
            *found,
            *_indexes(connection, inspector, existing, schema),
            *_on_postgresql(connection, schema),
        ]
    return [*found, *_indexes(connection, inspector, existing, schema)]


def _copies(schema: str | None) -> list[Table]:
    """The tables as they would be in a schema, so that statements name it."""
    copied = MetaData()
    target: Any = schema
    return [table.to_metadata(copied, schema=target) for table in metadata.sorted_tables]


def _recreate(schema: str | None) -> str:
    dot = f'"{schema}".' if schema else ""
    return (
        f"run DROP TABLE IF EXISTS {dot}{VERSION_TABLE}, and then `oban install`, which creates what is"
        " missing and keeps all rows"
    )


def _missing_table(name: str, schema: str | None) -> Difference:
    restore = "restore it from a backup" if name in shape.COLUMNS else _recreate(schema)
    return Difference(f"there is no table {name}", restore, fatal=True)


def _columns(inspector: Inspector, tables: Iterable[Table], schema: str | None) -> Iterator[Difference]:
    found = inspector.get_multi_columns(schema=schema, filter_names=[table.name for table in tables])
    keys = inspector.get_multi_pk_constraint(schema=schema, filter_names=[table.name for table in tables])
    for table in tables:
        names = {column["name"] for column in found[schema, table.name]}
        for name in (column.name for column in table.columns if column.name not in names):
            original = name in shape.COLUMNS.get(table.name, ())
            advice = "restore it from a backup" if original else _recreate(schema)
            yield Difference(f"{table.name} has no column {name}", advice, fatal=True)
        expected = [column.name for column in table.primary_key.columns]
        if expected and names.issuperset(expected):
            key = keys.get((schema, table.name))
            if (key["constrained_columns"] if key else []) != expected:
                columns = ", ".join(expected)
                add = f"ALTER TABLE {table.fullname} ADD PRIMARY KEY ({columns})"
                yield Difference(f"{table.name} has no primary key ({columns})", f"run {add}", fatal=True)


def _indexes(
    connection: Connection, inspector: Inspector, tables: Iterable[Table], schema: str | None
) -> Iterator[Difference]:
    found = inspector.get_multi_indexes(schema=schema, filter_names=[table.name for table in tables])
    usable = _usable(connection, schema)
    for table in tables:
        columns = {index["name"]: index["column_names"] for index in found.get((schema, table.name), ())}
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            name = str(index.name)
            create = _create(connection, index)
            if name not in columns:
                yield Difference(f"{table.name} has no index {name}", f"run {create}", fatal=False)
            elif columns[name] != [column.name for column in index.columns] or not usable.get(name, True):
                dot = f'"{schema}".' if schema else ""
                yield Difference(
                    f"the index {name} of {table.name} is invalid, or not the one that Oban creates",
                    f"run DROP INDEX {dot}{name}, and then {create}",
                    fatal=False,
                )


def _create(connection: Connection, index: Index) -> str:
    statement = " ".join(str(CreateIndex(index).compile(connection)).split())
    # Without CONCURRENTLY, nobody can write meanwhile.
    if connection.dialect.name == "postgresql":
        return statement.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY", 1)
    return statement


def _usable(connection: Connection, schema: str | None) -> dict[str, bool]:
    """By the name of each index of `oban_jobs`, whether it is valid and has the right condition."""
    if connection.dialect.name != "postgresql":
        return {}
    conditions = {name: condition for name, (_, condition) in shape.INDEXES.items()}
    return {
        row.name: row.usable
        and shape.unqualified(row.condition, schema)
        == conditions.get(row.name, shape.unqualified(row.condition, schema))
        for row in connection.execute(shape.FOUND_INDEXES, {"schema": schema})
    }


def _on_postgresql(connection: Connection, schema: str | None) -> Iterator[Difference]:
    """What only PostgreSQL has: the enum of states, and column types and constraints that can change."""
    dot = f'"{schema}".' if schema else ""

    def read(query: Any) -> Any:
        return connection.execute(query, {"schema": schema}).all()

    states = {row[0] for row in read(shape.FOUND_STATES)}
    for state in (state for state in shape.STATES if state not in states):
        add = f"ALTER TYPE {dot}oban_job_state ADD VALUE '{state}'"
        yield Difference(f"oban_job_state has no value {state}", f"run {add}", fatal=True)
    for column in read(shape.FOUND_COLUMNS):
        type_, _ = shape.COLUMNS[column.table].get(column.name, (None, None))
        found = column.type + ("" if column.required else "?")
        if type_ is not None and found != type_:
            yield Difference(
                f"{column.table}.{column.name} is {shape.sql_type(found)}, not {shape.sql_type(type_)}",
                "change it back with ALTER TABLE",
                fatal=False,
            )
    checks = {row.name: row for row in read(shape.FOUND_CONSTRAINTS) if row.type == "c"}
    for name, condition in shape.CHECKS.items():
        if name not in checks or checks[name].definition != f"CHECK ({condition})":
            add = f"ALTER TABLE {dot}oban_jobs ADD CONSTRAINT {name} CHECK ({condition})"
            drop = f"ALTER TABLE {dot}oban_jobs DROP CONSTRAINT {name}, and then " if name in checks else ""
            problem = "has changed" if name in checks else "is missing"
            yield Difference(f"the constraint {name} of oban_jobs {problem}", f"run {drop}{add}", fatal=False)
