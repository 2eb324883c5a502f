"""Column and parameter types whose form differs by database."""

import enum
import functools
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, ColumnElement, DateTime, Dialect, Integer, Interval, Text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from oban import encoding


class _Default(FunctionElement[Any]):
    """A server default: a constant of the DDL that each database writes in its own way."""

    by_dialect: ClassVar[dict[str, str]]


class utc_now(_Default):  # noqa: N801 - reads as a SQL function
    """Default of a timestamp: the server's clock, whatever the session's time zone."""

    inherit_cache = True
    by_dialect: ClassVar[dict[str, str]] = {
        "postgresql": "timezone('UTC', now())",
        "sqlite": "(strftime('%Y-%m-%d %H:%M:%f000', 'now'))",
    }


class no_texts(_Default):  # noqa: N801
    """Default of a list of texts: the empty one."""

    inherit_cache = True
    by_dialect: ClassVar[dict[str, str]] = {"postgresql": "'{}'", "sqlite": "'[]'"}


@compiles(utc_now)
@compiles(no_texts)
def _render_default(element: _Default, compiler: SQLCompiler, **_: Any) -> str:
    return element.by_dialect[compiler.dialect.name]


class JobState(enum.StrEnum):
    """Where a job is in its life. The order is that of the PostgreSQL enum."""

    AVAILABLE = "available"
    SCHEDULED = "scheduled"
    SUSPENDED = "suspended"
    EXECUTING = "executing"
    RETRYABLE = "retryable"
    COMPLETED = "completed"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"


STATES = [state.value for state in JobState]

#: 64-bit key; SQLite's own row id is called INTEGER.
BigKey = BigInteger().with_variant(Integer, "sqlite")


@functools.cache
def _uncast(native: Any) -> Callable[..., TypeEngine[Any]]:
    """A driver's type of enums whose parameters are not cast: the server infers their type.

    A cast would have to name the schema of the type, which is only known when the statement runs.
    """
    return type(native.__name__, (native,), {"render_bind_cast": False})


class StateType(TypeDecorator[JobState]):
    """`oban_job_state` on PostgreSQL, text elsewhere; a `JobState` in Python."""

    impl = Text
    cache_ok = True

    def __init__(self, schema: str | None = None) -> None:
        super().__init__()
        self.schema = schema

    def copy(self, **options: Any) -> "StateType":
        # A copy of the table in another schema is one of the type, too.
        return StateType(options.get("schema", self.schema))

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            driver: Any = type(dialect.type_descriptor(postgresql.ENUM(*STATES, name="oban_job_state")))
            return _uncast(driver)(*STATES, name="oban_job_state", schema=self.schema, create_type=False)
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else JobState(value).value

    def process_literal_param(self, value: Any, dialect: Dialect) -> str:
        return JobState(value).value

    # Rather than process_result_value, which is called through two frames and after what the native
    # enum does with the text.
    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        return STATE_BY_VALUE.get


STATE_BY_VALUE = {state.value: state for state in JobState}


#: What Python's datetime can hold; a `timestamp` reaches from 4713 BC to the year 294276, and to infinity.
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class _Within(FunctionElement[datetime]):
    """A time as it is selected: the nearest one that a driver can decode."""

    inherit_cache = True


@compiles(_Within)
def _render_plain(element: _Within, compiler: SQLCompiler, **options: Any) -> str:
    time: str = compiler.process(element.clauses, **options)
    return time


@compiles(_Within, "postgresql")
def _render_within(element: _Within, compiler: SQLCompiler, **options: Any) -> str:
    time: str = compiler.process(element.clauses, **options)
    # What a SELECT DISTINCT is ordered by, it has to select as it is.
    if compiler.stack and getattr(compiler.stack[-1]["selectable"], "_distinct", False):
        return time
    first, last = (f"'{bound.replace(tzinfo=None)}'" for bound in (FIRST, LAST))
    return f"CASE WHEN {time} < {first} THEN {first} WHEN {time} > {last} THEN {last} ELSE {time} END"


class UTCDateTime(TypeDecorator[datetime]):
    """Stored as UTC without a zone, whatever the session's zone; aware UTC in Python.

    A stored time that Python cannot hold is read as the nearest one that it can, and what is no time
    at all as the first one: a row that somebody spoilt is read like any other.
    """

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError(f"a time zone is needed: {value!r} has none")
        return value.astimezone(UTC).replace(tzinfo=None)

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        # A time and a span of time, as in `Job.scheduled_at - timedelta(hours=1)`.
        return Interval() if isinstance(value, timedelta) else self

    # Drivers decode a row before anything here sees it, and all rows of an answer or none.
    def column_expression(self, column: ColumnElement[datetime]) -> ColumnElement[datetime]:
        within = _Within(column)
        within.type = self
        return within

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        given = self.impl_instance.dialect_impl(dialect).result_processor(dialect, coltype)
        return aware if given is None else lambda value: _read(given, value)


def _read(given: Callable[[Any], datetime | None], value: Any) -> datetime | None:
    try:
        return aware(given(value))
    # SQLite keeps anything in any column.
    except (ValueError, TypeError):
        return FIRST


def aware(value: datetime | None) -> datetime | None:
    """A time without a zone as UTC."""
    # combine() takes a seventh of the time of replace().
    return None if value is None else datetime.combine(value, value.time(), UTC)


def _decoded(value: Any) -> Any:
    # SQLite stores a number as one, whatever the type of the column.
    return encoding.decode_column(value) if isinstance(value, (str, bytes)) else value


class _JSONText(TypeDecorator[Any]):
    impl = Text
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        return _decoded


class _as_text(FunctionElement[Any]):  # noqa: N801
    # So that no driver decodes a document, and fails, before anybody can do something about it.
    inherit_cache = True
    type = _JSONText()


@compiles(_as_text)
def _render_as_text(element: _as_text, compiler: SQLCompiler, **options: Any) -> str:
    rendered: str = compiler.process(element.clauses, **options)
    return f"CAST({rendered} AS TEXT)" if compiler.dialect.name == "postgresql" else rendered


class JSONDocument(TypeDecorator[Any]):
    """`jsonb` on PostgreSQL, JSON text elsewhere. What cannot be decoded is an `encoding.Undecodable`."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.JSONB())
        return dialect.type_descriptor(JSON())

    def column_expression(self, column: Any) -> Any:
        return _as_text(column)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        return _decoded


class TextList(TypeDecorator[list[str]]):
    """`text[]` on PostgreSQL, a JSON list elsewhere."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.ARRAY(Text()))
        return dialect.type_descriptor(JSON())

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        # Drivers of PostgreSQL give lists as they are; the generic type would copy each.
        return None if dialect.name == "postgresql" else _decoded


class IdList(TypeDecorator[Sequence[int]]):
    """Any number of ids as one parameter: `bigint[]` on PostgreSQL, JSON text elsewhere."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.ARRAY(BigInteger()))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: Sequence[int] | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return json.dumps(value)
