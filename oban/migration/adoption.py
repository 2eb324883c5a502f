"""Adopts tables that no revision created: those of `metadata.create_all`, and of oban-py 0.6 to 0.7.

`adopt` is the first half of revision 0001. It gives existing tables the shape that the second half would
create, and keeps every row and all columns, functions and constraints that are not Oban's.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from alembic.operations import Operations
from sqlalchemy import Connection, TextClause, inspect, text

from oban.errors import SchemaMismatch
from oban.migration import shape

logger: logging.Logger = logging.getLogger("oban.migration")

#: The key in the options of Alembic's context with the list of messages to the user.
MESSAGES = "oban_messages"


def adopt(op: Operations, schema: str | None, trigger: Sequence[str]) -> bool:
    """Give existing tables the shape that revision 0001 creates; False if there are none to adopt.

    `trigger` is the SQL that creates the trigger of `oban_jobs` and all else that metadata does not describe,
    with `{schema}` for the schema and a dot. All but CREATE TRIGGER can be repeated. Sentences about the
    changes are added to `MESSAGES` of Alembic's context. Raises `SchemaMismatch`, and changes nothing, if the
    tables are of another shape.
    """
    context = op.get_context()
    if context.as_sql:
        return False
    connection = op.get_bind()
    existing = set(inspect(connection).get_table_names(schema=schema))
    if not (found := existing & shape.COLUMNS.keys()):
        return False
    tables = _Tables(connection, schema)
    if missing := shape.COLUMNS.keys() - existing:
        raise tables.mismatch(
            f"there is {_names(found)} but no {_names(missing)};"
            " rename or drop these tables, or let Oban use a schema of its own, with a prefix"
        )
    for table in existing & shape.LATER_COLUMNS.keys():
        tables.check_names(table, shape.LATER_COLUMNS[table])
    changes = [SchemaChange("Existing Oban tables were adopted, with every row.")]
    if connection.dialect.name == "postgresql":
        tables.lock()
        changes += tables.changes(trigger)
    else:
        for table, columns in shape.COLUMNS.items():
            tables.check_names(table, columns)
    messages = context.opts.setdefault(MESSAGES, [])
    for change in changes:
        for statement in change.statements:
            connection.execute(text(statement))
        if change.message:
            logger.info(change.message)
            messages.append(change.message)
    return True


def check_absent(connection: Connection, schema: str | None) -> None:
    """Raise `SchemaMismatch` if there are Oban tables, which no revision created."""
    existing = set(inspect(connection).get_table_names(schema=schema))
    if found := existing & {*shape.COLUMNS, *shape.LATER_COLUMNS}:
        raise SchemaMismatch(
            f"{_names(found)} have no known version, and nothing was removed;"
            " run `oban install` first, which adopts such tables, or drop them yourself"
        )


@dataclass
class SchemaChange:
    #: The message to the user; empty if there is none.
    message: str
    statements: list[str] = field(default_factory=list)


class _Tables:
    """The existing tables of one schema, and how they differ from those of revision 0001."""

    def __init__(self, connection: Connection, schema: str | None) -> None:
        self.connection = connection
        self.schema = schema
        self.dot = f'"{schema}".' if schema else ""

    def mismatch(self, problem: str) -> SchemaMismatch:
        where = f" in the schema {self.schema}" if self.schema else ""
        return SchemaMismatch(f"the tables{where} are not of a known shape: {problem}; nothing was changed")

    def read(self, query: TextClause) -> Sequence[Any]:
        return self.connection.execute(query, {"schema": self.schema}).all()

    def unqualified(self, expression: str | None) -> str | None:
        return shape.unqualified(expression, self.schema)

    def qualified(self, expression: str) -> str:
        return expression.replace("::oban", f"::{self.dot}oban")

    def lock(self) -> None:
        """Keep everybody else from writing between looking at the tables and changing them."""
        names = ", ".join(self.dot + table for table in shape.COLUMNS)
        self.connection.execute(text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))

    def check_names(self, table: str, columns: Iterable[str]) -> None:
        found = inspect(self.connection).get_columns(table, schema=self.schema)
        if missing := set(columns) - {column["name"] for column in found}:
            raise self.mismatch(f"{table} has no column {_names(missing)}")

    def changes(self, trigger: Sequence[str]) -> Iterator[SchemaChange]:
        yield from self._states()
        columns = self.read(shape.FOUND_COLUMNS)
        for table in shape.COLUMNS:
            yield from self._columns(
                table, {column.name: column for column in columns if column.table == table}
            )
        constraints = self.read(shape.FOUND_CONSTRAINTS)
        yield from self._primary_keys(constraints)
        yield from self._checks({row.name: row for row in constraints if row.type == "c"})
        yield from self._indexes()
        drop = f"DROP TRIGGER IF EXISTS oban_notify_insert ON {self.dot}oban_jobs"
        exists = self.read(shape.FOUND_TRIGGER)[0][0]
        message = "" if exists else "A trigger now announces inserted jobs to the nodes."
        yield SchemaChange(message, [drop, *(sql.format(schema=self.dot) for sql in trigger)])

    def _states(self) -> Iterator[SchemaChange]:
        states = [row[0] for row in self.read(shape.FOUND_STATES)]
        if states == [state for state in shape.STATES if state != "suspended"]:
            add = f"ALTER TYPE {self.dot}oban_job_state ADD VALUE 'suspended' AFTER 'scheduled'"
            yield SchemaChange("The state suspended was added.", [add])
        elif set(states) != set(shape.STATES):
            raise self.mismatch(f"the states of oban_job_state are {', '.join(states) or 'unknown'}")

    def _columns(self, table: str, found: dict[str, Any]) -> Iterator[SchemaChange]:
        self._check_columns(table, found)
        alter = f"ALTER TABLE {self.dot}{table}"
        defaults = []
        for name, (_, default) in shape.COLUMNS[table].items():
            if found[name].identity == "a":
                by_default = f"{alter} ALTER COLUMN {name} SET GENERATED BY DEFAULT"
                yield SchemaChange(f"An INSERT can now set {table}.{name}.", [by_default])
            if self.unqualified(found[name].default) != default:
                action = "DROP DEFAULT" if default is None else f"SET DEFAULT {self.qualified(default)}"
                defaults.append(f"{alter} ALTER COLUMN {name} {action}")
        if defaults:
            yield SchemaChange(f"Defaults of {table} were changed to Oban's.", defaults)
        some = next(iter(found.values()))
        if some.persistence == "u":
            yield SchemaChange(f"{table} is now logged: it survives a crash.", [f"{alter} SET LOGGED"])
        if some.comment and some.comment.isdigit():
            remove = f"COMMENT ON TABLE {self.dot}{table} IS NULL"
            yield SchemaChange(f"The version {some.comment} in the comment on {table} was removed.", [remove])

    def _check_columns(self, table: str, found: dict[str, Any]) -> None:
        expected = shape.COLUMNS[table]
        if table == "oban_jobs" and "errors" in found and found["errors"].type == "jsonb[]":
            raise self.mismatch(
                "they are those of Oban for Elixir, which stores errors as jsonb[] and could not use them any"
                " more after a change; let Oban use a schema of its own, with a prefix"
            )
        self.check_names(table, expected)
        for name, (type_, _) in expected.items():
            found_type = found[name].type + ("" if found[name].required else "?")
            if found_type != type_:
                raise self.mismatch(
                    f"{table}.{name} is {shape.sql_type(found_type)}, not {shape.sql_type(type_)}"
                )
        if table == "oban_jobs" and not found["id"].identity:
            raise self.mismatch("oban_jobs.id is not GENERATED AS IDENTITY")
        for name in sorted(found.keys() - expected.keys()):
            column = found[name]
            if column.required and column.default is None and not column.identity:
                raise self.mismatch(
                    f"{table}.{name} is NOT NULL without a default, and Oban does not know it"
                )

    def _primary_keys(self, constraints: Sequence[Any]) -> Iterator[SchemaChange]:
        for table, column in shape.PRIMARY_KEYS.items():
            found = [row for row in constraints if row.table == table and row.type == "p"]
            if not found or found[0].definition != f"PRIMARY KEY ({column})":
                raise self.mismatch(f"{column} is not the primary key of {table}")
            if (name := found[0].name) != f"{table}_pkey":
                rename = f'ALTER TABLE {self.dot}{table} RENAME CONSTRAINT "{name}" TO {table}_pkey'
                yield SchemaChange(f"The primary key of {table} was renamed.", [rename])

    def _checks(self, found: dict[str, Any]) -> Iterator[SchemaChange]:
        actions = [
            f"DROP CONSTRAINT {name}"
            for name, definition in shape.REDUNDANT_CHECKS.items()
            if name in found and found[name].definition == definition
        ]
        changed = []
        for name, condition in shape.CHECKS.items():
            if name in found and found[name].valid and found[name].definition == f"CHECK ({condition})":
                continue
            self._check_rows(name, condition)
            actions += [f"DROP CONSTRAINT {name}"] if name in found else []
            actions.append(f"ADD CONSTRAINT {name} CHECK ({condition})")
            changed.append(name)
        if actions:
            # A single statement reads the table only once.
            alter = f"ALTER TABLE {self.dot}oban_jobs {', '.join(actions)}"
            yield SchemaChange(
                f"Constraints of oban_jobs were changed to Oban's: {', '.join(changed)}.", [alter]
            )

    def _check_rows(self, name: str, condition: str) -> None:
        broken = f"FROM {self.dot}oban_jobs WHERE NOT ({condition})"
        count, first = self.connection.execute(text(f"SELECT count(*), min(id) {broken}")).one()
        if count:
            rows = f"{count:,} rows of {self.dot}oban_jobs" if count > 1 else f"a row of {self.dot}oban_jobs"
            raise SchemaMismatch(
                f"{rows} would break the constraint {name}, {condition}, first the one with the id {first};"
                " change or delete them first; nothing was changed"
            )

    def _indexes(self) -> Iterator[SchemaChange]:
        found = {row.name: row for row in self.read(shape.FOUND_INDEXES)}
        for name, (columns, condition) in shape.INDEXES.items():
            create = f"CREATE INDEX {name} ON {self.dot}oban_jobs ({', '.join(columns)})"
            create += f" WHERE {self.qualified(condition)}" if condition else ""
            if name not in found:
                yield SchemaChange(f"The index {name} was created.", [create])
                continue
            index = found[name]
            same = self.unqualified(index.condition) == condition and list(index.columns) == columns
            if not (index.usable and same):
                drop = f"DROP INDEX {self.dot}{name}"
                yield SchemaChange(f"The index {name} was rebuilt.", [drop, create])


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
