"""Tables that are there before the first revision: made by `metadata.create_all`, or by oban-py 0.6 to 0.7.

`adopt` is the first half of revision 0001: it brings such tables to what the second half would have
made, and leaves every row, and every column, function and constraint of somebody else's, as it is.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from alembic.operations import Operations
from sqlalchemy import Connection, bindparam, inspect, text

from oban.errors import SchemaMismatch

logger: logging.Logger = logging.getLogger("oban.migration")

_STATES = (
    *("available", "scheduled", "suspended", "executing"),
    *("retryable", "completed", "discarded", "cancelled"),
)
_NOW = "timezone('UTC'::text, now())"
_WHEN = "timestamp without time zone"
#: By table and column: the type, and the default as PostgreSQL prints it. A `?` marks what may be NULL.
_COLUMNS: dict[str, dict[str, tuple[str, str | None]]] = {
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
        "inserted_at": (_WHEN, _NOW),
        "scheduled_at": (_WHEN, _NOW),
        "attempted_at": (f"{_WHEN}?", None),
        "cancelled_at": (f"{_WHEN}?", None),
        "completed_at": (f"{_WHEN}?", None),
        "discarded_at": (f"{_WHEN}?", None),
    },
    "oban_leaders": {
        "name": ("text", None),
        "node": ("text", None),
        "elected_at": (_WHEN, None),
        "expires_at": (_WHEN, None),
    },
    "oban_producers": {
        "uuid": ("uuid", None),
        "name": ("text", None),
        "node": ("text", None),
        "queue": ("text", None),
        "meta": ("jsonb", "'{}'::jsonb"),
        "started_at": (_WHEN, _NOW),
        "updated_at": (_WHEN, _NOW),
    },
}
#: The first of its columns is the primary key of each.
_KEYS = {table: next(iter(columns)) for table, columns in _COLUMNS.items()}
#: By name: the condition, as PostgreSQL prints it.
_CHECKS = {
    "attempt_range": "((attempt >= 0) AND (attempt <= max_attempts))",
    "positive_max_attempts": "(max_attempts > 0)",
    "priority_range": "((priority >= 0) AND (priority <= 9))",
    "queue_length": "(length(queue) > 0)",
    "worker_length": "(length(worker) > 0)",
}
#: Checks of others that one of ours includes, by name, with their definition.
_INCLUDED = {"non_negative_priority": "CHECK ((priority >= 0))"}
_STAGING = "(state = ANY (ARRAY['scheduled'::oban_job_state, 'retryable'::oban_job_state]))"
#: By name: the columns, and the condition as PostgreSQL prints it.
_INDEXES: dict[str, tuple[list[str], str | None]] = {
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
#: What may be in the way of revision 0002, which leaves it as it is.
_QUEUES = {"name", "queue", "node", "running", "limit", "paused", "updated_at"}

_WITHIN = "(SELECT oid FROM pg_namespace WHERE nspname = coalesce(CAST(:schema AS text), current_schema()))"
_READ_COLUMNS = f"""
SELECT c.relname, a.attname, a.attnotnull, a.attidentity::text, c.relpersistence::text,
       CASE WHEN t.typnamespace = c.relnamespace THEN t.typname::text
            ELSE format_type(a.atttypid, a.atttypmod) END,
       CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) ELSE 'generated' END,
       obj_description(c.oid, 'pg_class')
  FROM pg_class c
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE c.relnamespace = {_WITHIN} AND c.relname IN :tables
"""  # noqa: S608 - made of constants
_READ_CONSTRAINTS = f"""
SELECT c.relname, n.conname, n.contype::text, n.convalidated, pg_get_constraintdef(n.oid)
  FROM pg_constraint n JOIN pg_class c ON c.oid = n.conrelid
 WHERE c.relnamespace = {_WITHIN} AND c.relname IN :tables
"""  # noqa: S608
_READ_INDEXES = f"""
SELECT i.relname, x.indisvalid AND NOT x.indisunique, pg_get_expr(x.indpred, x.indrelid),
       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.oid ORDER BY a.attnum)
  FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
 WHERE c.relnamespace = {_WITHIN} AND c.relname = 'oban_jobs'
"""  # noqa: S608
_READ_LABELS = f"""
SELECT enumlabel::text FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid
 WHERE t.typnamespace = {_WITHIN} AND t.typname = 'oban_job_state' ORDER BY enumsortorder
"""  # noqa: S608
_READ_TRIGGER = f"""
SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
 WHERE c.relnamespace = {_WITHIN} AND c.relname = 'oban_jobs' AND t.tgname = 'oban_notify_insert'
"""  # noqa: S608


def adopt(op: Operations, schema: str | None, beside: Sequence[str]) -> bool:
    """Bring tables that are there to what revision 0001 makes; whether there are any.

    `beside` are the statements that make what `oban_jobs` has beside itself: with `{schema}` for the
    prefix and its dot, and repeatable but for a CREATE TRIGGER. What was done is added to the list
    `opts["said"]` of Alembic's context. Raises `SchemaMismatch`, before anything is changed.
    """
    context = op.get_context()
    if context.as_sql:
        return False
    connection = op.get_bind()
    there = set(inspect(connection).get_table_names(schema=schema))
    if not there & _COLUMNS.keys():
        return False
    tables = _Tables(connection, schema)
    if missing := _COLUMNS.keys() - there:
        raise tables.mismatch(
            f"there is {_names(there & _COLUMNS.keys())} but no {_names(missing)};"
            " rename or drop what is there, or let Oban use a schema of its own, with a prefix"
        )
    if "oban_queues" in there:
        found = {column["name"] for column in inspect(connection).get_columns("oban_queues", schema=schema)}
        if missing := _QUEUES - found:
            raise tables.mismatch(f"oban_queues has no column {_names(missing)}")
    if connection.dialect.name == "postgresql":
        tables.lock()
        changes = [*tables.changes(), *tables.trigger(beside)]
    else:
        changes = list(tables.columns_exist())
    said = context.opts.setdefault("said", [])
    for change in [_Change("Oban tables were there already; every row of them is kept."), *changes]:
        for statement in change.statements:
            connection.execute(text(statement))
        if change.sentence:
            logger.info(change.sentence)
            said.append(change.sentence)
    return True


def is_absent(connection: Connection, schema: str | None) -> bool:
    """True if there are no tables; raises `SchemaMismatch` for those there are, which no revision made."""
    found = {*_COLUMNS, "oban_queues"} & set(inspect(connection).get_table_names(schema=schema))
    if found:
        raise SchemaMismatch(
            f"no version is known of {_names(found)}, and nothing was removed;"
            " run `oban install` first, which adopts such tables, or drop them yourself"
        )
    return True


@dataclass
class _Change:
    #: What is said about it, unless it is empty.
    sentence: str
    statements: list[str] = field(default_factory=list)


class _Tables:
    """What is there, and what has to be changed about it."""

    def __init__(self, connection: Connection, schema: str | None) -> None:
        self.connection = connection
        self.schema = schema
        self.dot = f'"{schema}".' if schema else ""

    def mismatch(self, problem: str) -> SchemaMismatch:
        where = f" in the schema {self.schema}" if self.schema else ""
        return SchemaMismatch(f"the tables{where} are not of a known shape: {problem}; nothing was changed")

    def read(self, query: str) -> Sequence[Any]:
        statement = text(query)
        given: dict[str, Any] = {"schema": self.schema}
        if ":tables" in query:
            statement = statement.bindparams(bindparam("tables", expanding=True))
            given["tables"] = list(_COLUMNS)
        return self.connection.execute(statement, given).all()

    def plain(self, expression: str | None) -> str | None:
        """An expression as it would be printed within the schema."""
        for dot in (f"{self.schema}.", self.dot) if self.schema else ():
            expression = expression and expression.replace(dot, "")
        return expression

    def placed(self, expression: str) -> str:
        """The reverse of `plain`."""
        return expression.replace("::oban", f"::{self.dot}oban")

    def lock(self) -> None:
        names = ", ".join(self.dot + table for table in _COLUMNS)
        # Nobody writes, between what is found and what is made of it.
        self.connection.execute(text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))

    def columns_exist(self) -> Iterator[_Change]:
        for table, expected in _COLUMNS.items():
            found = {column["name"] for column in inspect(self.connection).get_columns(table)}
            if missing := expected.keys() - found:
                raise self.mismatch(f"{table} has no column {_names(missing)}")
        yield from ()

    def changes(self) -> Iterator[_Change]:
        yield from self.enum()
        yield from self.columns()
        yield from self.constraints()
        yield from self.indexes()

    def enum(self) -> Iterator[_Change]:
        labels = [row[0] for row in self.read(_READ_LABELS)]
        if labels == [state for state in _STATES if state != "suspended"]:
            add = f"ALTER TYPE {self.dot}oban_job_state ADD VALUE 'suspended' AFTER 'scheduled'"
            yield _Change("The state suspended is added.", [add])
        elif set(labels) != set(_STATES):
            raise self.mismatch(f"the states of oban_job_state are {', '.join(labels) or 'unknown'}")

    def columns(self) -> Iterator[_Change]:
        rows = self.read(_READ_COLUMNS)
        for table, expected in _COLUMNS.items():
            found = {row[1]: row for row in rows if row[0] == table}
            self._check_columns(table, expected, found)
            alter = f"ALTER TABLE {self.dot}{table}"
            statements = []
            for name, (_, default) in expected.items():
                _, _, _, identity, _, _, present, _ = found[name]
                if identity == "a":
                    by_default = f"{alter} ALTER COLUMN {name} SET GENERATED BY DEFAULT"
                    yield _Change(f"{table}.{name} may be given by whoever inserts a row.", [by_default])
                if self.plain(present) != default:
                    how = "DROP DEFAULT" if default is None else f"SET DEFAULT {self.placed(default)}"
                    statements.append(f"{alter} ALTER COLUMN {name} {how}")
            if statements:
                yield _Change(f"Defaults of {table} are made those of Oban.", statements)
            persistence, comment = next((row[4], row[7]) for row in found.values())
            if persistence == "u":
                yield _Change(f"{table} is logged now: it survives a crash.", [f"{alter} SET LOGGED"])
            if comment and comment.isdigit():
                gone = f"COMMENT ON TABLE {self.dot}{table} IS NULL"
                yield _Change(f"The version {comment} in the comment on {table} is removed.", [gone])

    def _check_columns(
        self, table: str, expected: dict[str, tuple[str, str | None]], found: dict[str, Any]
    ) -> None:
        if table == "oban_jobs" and "errors" in found and found["errors"][5] == "jsonb[]":
            raise self.mismatch(
                "they are those of Oban for Elixir, which keeps errors as jsonb[], and could not work on them"
                " any more if that was changed; let Oban use a schema of its own, with a prefix"
            )
        if missing := expected.keys() - found.keys():
            raise self.mismatch(f"{table} has no column {_names(missing)}")
        for name, (type_, _) in expected.items():
            has = found[name][5] + ("" if found[name][2] else "?")
            if has != type_:
                raise self.mismatch(f"{table}.{name} is {_spoken(has)}, not {_spoken(type_)}")
        if table == "oban_jobs" and not found["id"][3]:
            raise self.mismatch("oban_jobs.id is not GENERATED AS IDENTITY")
        for name in sorted(found.keys() - expected.keys()):
            _, _, required, identity, _, _, default, _ = found[name]
            if required and default is None and not identity:
                raise self.mismatch(
                    f"{table}.{name} is NOT NULL without a default, and Oban does not know it"
                )

    def constraints(self) -> Iterator[_Change]:
        rows = self.read(_READ_CONSTRAINTS)
        for table, column in _KEYS.items():
            keys = {row[4]: row[1] for row in rows if row[0] == table and row[2] == "p"}
            name = keys.get(f"PRIMARY KEY ({column})")
            if name is None:
                raise self.mismatch(f"{column} is not the primary key of {table}")
            if name != f"{table}_pkey":
                rename = f'ALTER TABLE {self.dot}{table} RENAME CONSTRAINT "{name}" TO {table}_pkey'
                yield _Change(f"The primary key of {table} is renamed.", [rename])
        checks = {row[1]: row for row in rows if row[0] == "oban_jobs" and row[2] == "c"}
        parts = [
            f"DROP CONSTRAINT {name}"
            for name, definition in _INCLUDED.items()
            if name in checks and checks[name][4] == definition
        ]
        changed = []
        for name, condition in _CHECKS.items():
            if name not in checks or (*checks[name][3:5],) != (True, f"CHECK ({condition})"):
                self._check_rows(name, condition)
                parts += [f"DROP CONSTRAINT {name}"] if name in checks else []
                parts.append(f"ADD CONSTRAINT {name} CHECK ({condition})")
                changed.append(name)
        if parts:
            # All in one statement, which reads the table once.
            alter = f"ALTER TABLE {self.dot}oban_jobs {', '.join(parts)}"
            yield _Change(f"Constraints of oban_jobs are made those of Oban: {', '.join(changed)}.", [alter])

    def _check_rows(self, name: str, condition: str) -> None:
        broken = f"FROM {self.dot}oban_jobs WHERE NOT ({condition})"
        count, first = self.connection.execute(text(f"SELECT count(*), min(id) {broken}")).one()
        if count:
            rows = f"{count:,} rows of {self.dot}oban_jobs" if count > 1 else f"a row of {self.dot}oban_jobs"
            raise SchemaMismatch(
                f"{rows} would break the constraint {name}, {condition}, first the one with the id {first};"
                " change or delete them first; nothing was changed"
            )

    def indexes(self) -> Iterator[_Change]:
        found = {row[0]: row[1:] for row in self.read(_READ_INDEXES)}
        for name, (columns, condition) in _INDEXES.items():
            statements = []
            if name in found:
                valid, where, present = found[name]
                if valid and self.plain(where) == condition and list(present) == columns:
                    continue
                statements.append(f"DROP INDEX {self.dot}{name}")
            where = f" WHERE {self.placed(condition)}" if condition else ""
            on = f"{self.dot}oban_jobs ({', '.join(columns)}){where}"
            statements.append(f"CREATE INDEX {name} ON {on}")
            yield _Change(f"The index {name} is {'made anew' if name in found else 'made'}.", statements)

    def trigger(self, beside: Sequence[str]) -> Iterator[_Change]:
        statements = [statement.format(schema=self.dot) for statement in beside]
        drop = f"DROP TRIGGER IF EXISTS oban_notify_insert ON {self.dot}oban_jobs"
        there = self.read(_READ_TRIGGER)[0][0]
        sentence = "" if there else "A trigger tells the nodes about every job that is inserted."
        yield _Change(sentence, [drop, *statements])


def _spoken(type_: str) -> str:
    return f"{type_.rstrip('?')} {'NULL' if type_.endswith('?') else 'NOT NULL'}"


def _names(names: Any) -> str:
    return ", ".join(sorted(names))
