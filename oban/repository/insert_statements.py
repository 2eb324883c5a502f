"""The statements that insert jobs: one job that is due at once, and a list of records."""

import functools
from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Executable,
    Float,
    FromClause,
    Text,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal_column,
    null,
    select,
    type_coerce,
)

from oban.dialects.base import Dialect
from oban.dialects.expressions import ColumnType, sql_literal
from oban.models import DEFAULT_MAX_ATTEMPTS, Job
from oban.types import JSONDocument, KeyText, StateType, TextList, UTCDateTime

#: The columns that are sent for a job if its value differs from `_default_values`.
COLUMNS: Mapping[str, ColumnType] = {
    "queue": Text,
    "worker": Text,
    "max_attempts": BigInteger,
    "priority": BigInteger,
    "args": JSONDocument,
    "meta": JSONDocument,
    "tags": TextList,
}
DOCUMENTS = ("args", "meta")
#: What is sent for a unique job besides.
UNIQUE_COLUMNS: Mapping[str, ColumnType] = {"unique_key": KeyText, "unique_rule": JSONDocument}

_jobs = Job.__table__
#: The columns that an insert returns, in plain types: `show_inserted` converts a value that many rows share
#: once.
RETURNED = (
    _jobs.c.id,
    type_coerce(_jobs.c.inserted_at, DateTime).label("inserted_at"),
    type_coerce(_jobs.c.scheduled_at, DateTime).label("scheduled_at"),
    cast(_jobs.c.state, Text).label("state"),
)


def _default_values(dialect: Dialect) -> dict[str, ColumnElement[Any]]:
    """The values of most jobs, which are not sent for each of them."""
    return {
        "queue": bindparam("first_queue", type_=Text),
        "worker": bindparam("first_worker", type_=Text),
        "max_attempts": literal_column(str(DEFAULT_MAX_ATTEMPTS)),
        "priority": literal_column("0"),
        "meta": literal_column("'{}'"),
        "tags": dialect.string_list(),
    }


@functools.cache
def single_statement(dialect: Dialect, columns: tuple[str, ...]) -> Executable:
    """Insert one job that is due at once, with its own values in some columns.

    The database needs less time for it than for a batch of one: it decodes no list, and compares no times.
    """
    now = dialect.now()
    values = {
        "state": dialect.state("available"),
        "inserted_at": now,
        "scheduled_at": now,
        # With a default of Python's, the statement could not be run again without SQLAlchemy's execution.
        "unique_key": null(),
        "unique_rule": null(),
        **_default_values(dialect),
    }
    for column in columns:
        is_document = column in DOCUMENTS
        value: Any = bindparam(f"own_{column}", type_=Text if is_document else COLUMNS[column])
        values[column] = dialect.json_document(value) if is_document else value
    return insert(_jobs).values(values).returning(*RETURNED)


def record_source(dialect: Dialect, **more: ColumnType) -> FromClause:
    """The records of `oban.repository.insert_batch` as a table, with further columns."""
    timing: dict[str, ColumnType] = {"state": Text, "scheduled_at": UTCDateTime, "delay": Float}
    return dialect.recordset("jobs", {"n": BigInteger, **timing, **COLUMNS, **more})


def stored_values(dialect: Dialect, record: Any) -> dict[str, ColumnElement[Any]]:
    """What a record stores in each column; `record` has the columns of `record_source`."""
    now = dialect.now()
    scheduled_at = case(
        (record.delay.is_not(None), dialect.now_plus(record.delay)),
        else_=func.coalesce(record.scheduled_at, now, type_=UTCDateTime),
    )
    # As in `oban.initial_state.state_at`, but by the database's clock.
    state = case(
        (record.state == sql_literal("suspended"), sql_literal("suspended")),
        (scheduled_at > now, sql_literal("scheduled")),
        else_=sql_literal("available"),
    )
    defaults = _default_values(dialect)
    return {
        "state": cast(state, StateType),
        "inserted_at": now,
        "scheduled_at": scheduled_at,
        **{
            column: func.coalesce(record[column], defaults[column]) if column in defaults else record[column]
            for column in COLUMNS
        },
    }


@functools.cache
def batch_statement(dialect: Dialect, returns_lists: bool, is_unique: bool = False) -> Executable:
    """Insert a list of records, and return their rows or, with `returns_lists`, one row of lists.

    With `is_unique`, records can have a `unique_key` and a `unique_rule`.
    """
    more = UNIQUE_COLUMNS if is_unique else {}
    record = record_source(dialect, **more).c
    values = {**stored_values(dialect, record), **{column: record[column] for column in more}}
    rows = select(*values.values()).order_by(record.n)
    statement = insert(_jobs).from_select([*values], rows, include_defaults=False).returning(*RETURNED)
    if not returns_lists:
        return statement
    inserted = statement.cte("inserted").c
    return select(*as_lists(inserted))


def as_lists(inserted: Any) -> list[ColumnElement[Any]]:
    """The columns of inserted rows as one row: the time of the insert, and JSON lists in the same order.

    The lists have the ids, when the jobs are due if that is later, and the states.
    """
    # Three lists are decoded in a fifth of the time of a thousand rows. They are JSON, because asyncpg would
    # ask the server about the types of arrays of numbers and times, on each new connection.
    due_later = func.nullif(inserted.scheduled_at, inserted.inserted_at)
    return [
        func.min(inserted.inserted_at).label("inserted_at"),
        *(cast(func.json_agg(column), Text) for column in (inserted.id, due_later, inserted.state)),
    ]
