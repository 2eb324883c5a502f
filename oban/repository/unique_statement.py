"""The statement that finds, claims and inserts unique jobs in one round trip, where a CTE can write.

It is exact because the condition of the claim compares what the statement's snapshot shows of a key with the
newest version of the row. If they differ, another transaction has claimed the key since the snapshot was
taken, and its job may not be visible: then the statement inserts nothing.
"""

import functools
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Executable,
    Float,
    Text,
    bindparam,
    cast,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from oban.dialects.base import Dialect
from oban.guard import KEYS, Lookup, claim_from, conflicting_id
from oban.models import Job
from oban.repository.insert_batch import Record, encode_document
from oban.repository.insert_statements import (
    COLUMNS,
    DOCUMENTS,
    RETURNED,
    UNIQUE_COLUMNS,
    as_lists,
    record_source,
    stored_values,
)
from oban.types import UTCDateTime

_jobs: Any = Job.__table__
_PARAMETERS: dict[str, Any] = {
    "state": Text,
    "scheduled_at": UTCDateTime,
    "delay": Float,
    **COLUMNS,
    **UNIQUE_COLUMNS,
    "period": Float,
}


@functools.cache
def unique_statement(dialect: Dialect, lookup: Lookup) -> Executable:
    """Insert records whose keys differ and whose rules look for the same, unless a job is in the way.

    Returns a row for each record that is not inserted, with its `n` and the columns of the job in its way,
    and one row with `n` NULL and the lists of the inserted jobs: all of the other records, or none if a key
    was claimed meanwhile.
    """
    states, timestamp = lookup
    source = record_source(dialect, **UNIQUE_COLUMNS, period=Float).c
    record = select(*source).cte("record").prefix_with("MATERIALIZED").c
    conflict = conflicting_id(dialect, record.unique_key, record.period, states, timestamp)
    judged = _judge(record.n, record.unique_key, conflict, record.unique_key.is_not(None))
    free = select(judged.unique_key).where(judged.id.is_(None)).order_by(judged.unique_key)
    claimed = _claim(dialect, free)
    free_count = select(func.count()).select_from(judged.n.table).where(judged.id.is_(None)).scalar_subquery()
    claimed_count = select(func.count()).select_from(claimed.key.table).scalar_subquery()
    rows = (
        select(*_values(dialect, record).values())
        .join_from(record.n.table, claimed.key.table, claimed.key == record.unique_key, isouter=True)
        .where(or_(record.unique_key.is_(None), claimed.key.is_not(None)), free_count == claimed_count)
        .order_by(record.n)
    )
    return _answer(judged, _insert(dialect, rows))


@functools.cache
def single_unique_statement(dialect: Dialect, lookup: Lookup) -> Executable:
    """Do the same for one unique job, whose record is sent as parameters; see `single_parameters`.

    The database needs less time for it, as it decodes, sorts and joins nothing.
    """
    states, timestamp = lookup
    record = _Parameters(dialect)
    conflict = conflicting_id(dialect, record.unique_key, record.period, states, timestamp)
    judged = _judge(literal_column("0"), record.unique_key, conflict, true())
    claimed = _claim(dialect, select(judged.unique_key).where(judged.id.is_(None)))
    rows = select(*_values(dialect, record).values()).select_from(claimed.key.table)
    return _answer(judged, _insert(dialect, rows))


def single_parameters(record: Record) -> dict[str, Any]:
    """The parameters of `single_unique_statement`, but for the first queue and the first worker."""
    values = {name: record.get(name) for name in _PARAMETERS}
    if values["scheduled_at"] is not None:
        values["scheduled_at"] = datetime.fromisoformat(values["scheduled_at"]).replace(tzinfo=UTC)
    for name in (*DOCUMENTS, "unique_rule"):
        if values[name] is not None:
            values[name] = encode_document(name, values[name])
    return {f"own_{name}": value for name, value in values.items()}


class _WithSchema(FunctionElement[Any]):
    """A subquery whose tables keep their schema in the condition of ON CONFLICT.

    SQLAlchemy renders that condition without schemas: a subquery would read a table of the search_path.
    """

    inherit_cache = True


@compiles(_WithSchema)
def _render_with_schema(element: _WithSchema, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **{**options, "use_schema": True})


class _Parameters:
    """The parameters of a statement for one record, by the names that `record_source` has for columns."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def __getitem__(self, name: str) -> Any:
        if name in DOCUMENTS or name == "unique_rule":
            return self._dialect.json_document(bindparam(f"own_{name}", type_=Text))
        parameter = bindparam(f"own_{name}", type_=_PARAMETERS[name])
        # Drivers send numbers without a type, which the server cannot infer from each use.
        return cast(parameter, Float) if _PARAMETERS[name] is Float else parameter

    def __getattr__(self, name: str) -> Any:
        return self[name]


def _judge(n: Any, key: Any, conflict: Any, is_unique: Any) -> Any:
    """Look for the job in the way of each record."""
    columns = (n.label("n"), key.label("unique_key"), conflict.label("id"))
    return select(*columns).where(is_unique).cte("judged").prefix_with("MATERIALIZED").c


def _claim(dialect: Dialect, free: Any) -> Any:
    """Claim keys in their order, as `oban.guard.claim` does, but none that is newer than the snapshot."""
    seen = KEYS.alias("seen").c
    turn = select(seen.turn).where(seen.key == literal_column("excluded.key")).scalar_subquery()
    return claim_from(dialect, free, KEYS.c.turn == _WithSchema(turn)).returning(KEYS.c.key).cte("claimed").c


def _values(dialect: Dialect, record: Any) -> dict[str, Any]:
    return {**stored_values(dialect, record), **{column: record[column] for column in UNIQUE_COLUMNS}}


def _insert(dialect: Dialect, rows: Any) -> Any:
    columns = ["state", "inserted_at", "scheduled_at", *COLUMNS, *UNIQUE_COLUMNS]
    return dialect.insert(_jobs).from_select(columns, rows).returning(*RETURNED).cte("new").c


def _answer(judged: Any, new: Any) -> Executable:
    # LATERAL with a limit, so that rows are looked up by id, whatever the planner expects of `judged`.
    stored = select(*_jobs.c).where(_jobs.c.id == judged.id).limit(literal_column("1")).lateral("stored")
    in_the_way = select(
        judged.n, *stored.c, *(null().label(name) for name in ("now", "ids", "times", "states"))
    ).join_from(judged.n.table, stored, true())
    lists = select(null(), *(null() for _ in _jobs.c), *as_lists(new))
    return union_all(in_the_way, lists)
