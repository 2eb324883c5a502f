"""`JobState`, and column types that each database stores in its own way.

SQLAlchemy asks a type what it is on a database, so this module has to know which database is in use.
"""

import enum
import functools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    BindParameter,
    ColumnElement,
    DateTime,
    Dialect,
    Integer,
    Interval,
    Text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import ARRAY, TypeDecorator, TypeEngine

from oban import display, encoding, error_texts, fields, suggestions
from oban.errors import EncodingError, InvalidJob
from oban.type_expressions import FIRST_TIME, as_text, clamped, state_as_text, state_parameter


class JobState(enum.StrEnum):
    """The state of a job, in the order of the PostgreSQL enum."""

    AVAILABLE = "available"  #: waits for a free slot of its queue
    SCHEDULED = "scheduled"  #: becomes available at `scheduled_at`
    SUSPENDED = "suspended"  #: waits until somebody retries it
    EXECUTING = "executing"  #: runs on a node
    RETRYABLE = "retryable"  #: failed, and becomes available again at `scheduled_at`
    COMPLETED = "completed"  #: finished successfully
    DISCARDED = "discarded"  #: failed, and has no attempts left
    CANCELLED = "cancelled"  #: was cancelled


STATES = [state.value for state in JobState]
#: The states in which a job waits to run.
PENDING_STATES = (JobState.AVAILABLE, JobState.SCHEDULED, JobState.SUSPENDED, JobState.RETRYABLE)
#: The states that a new job can have.
NEW_STATES = (JobState.AVAILABLE, JobState.SCHEDULED, JobState.SUSPENDED)
#: The states of a job that has ended, which only a retry makes run again.
ENDED_STATES = (JobState.COMPLETED, JobState.CANCELLED, JobState.DISCARDED)
STATE_BY_VALUE = {state.value: state for state in JobState}


def parse_state(value: object) -> JobState:
    """The state that a `JobState` or a string names. Raises `InvalidJob`."""
    if not isinstance(value, str):
        raise InvalidJob("state", f"must be a JobState or its value, not {type(value).__name__}")
    # Another enum of strings has the hash of its member's name.
    name = str.__str__(value)
    if (state := STATE_BY_VALUE.get(name)) is None:
        hint = suggestions.suggestion(name.lower(), STATES)
        raise InvalidJob("state", f"{error_texts.log_safe(repr(name))} is not a state{hint}")
    return state


#: A 64-bit primary key. SQLite only generates values for one that is declared INTEGER.
BigKey = BigInteger().with_variant(Integer, "sqlite")


class _Default(FunctionElement[Any]):
    """SQL by the name of the database, such as a server default."""

    inherit_cache = False

    def __init__(self, **sql: str) -> None:
        super().__init__()
        self.sql = sql


@compiles(_Default)
def _render_default(element: _Default, compiler: SQLCompiler, **_: Any) -> str:
    return element.sql[compiler.dialect.name]


#: The server's clock in UTC, whatever the session's time zone is.
UTC_NOW = _Default(postgresql="timezone('UTC', now())", sqlite="(strftime('%Y-%m-%d %H:%M:%f000', 'now'))")
#: The id of the current transaction, on a database whose transactions can write at the same time.
TRANSACTION_ID = _Default(postgresql="CAST(CAST(pg_current_xact_id() AS text) AS bigint)", sqlite="0")
#: The id of the oldest transaction that was under way when the statement began. Later ones have larger ids.
OLDEST_TRANSACTION = _Default(
    postgresql="CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)", sqlite="0"
)
#: A text that is compared byte by byte on each database.
KeyText = Text().with_variant(Text(collation="C"), "postgresql")
#: An empty `TextList`.
EMPTY_LIST = _Default(postgresql="'{}'", sqlite="'[]'")


@functools.cache
def _uncast(driver_type: Any) -> Callable[..., TypeEngine[Any]]:
    """A driver's type of enums, but without a cast around its parameters: the server infers their type.

    A cast would need the schema of the enum, which is known only when the statement runs.
    """
    return type(driver_type.__name__, (driver_type,), {"render_bind_cast": False})


class StateType(TypeDecorator[JobState]):
    """`oban_job_state` on PostgreSQL, text elsewhere; a `JobState` in Python."""

    impl = Text
    cache_ok = True

    def __init__(self, schema: str | None = None) -> None:
        super().__init__()
        self.schema = schema

    def copy(self, **options: Any) -> "StateType":
        # If the table is copied to another schema, so is the enum.
        return StateType(options.get("schema", self.schema))

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            driver: Any = type(dialect.type_descriptor(postgresql.ENUM(*STATES, name="oban_job_state")))
            return _uncast(driver)(*STATES, name="oban_job_state", schema=self.schema, create_type=False)
        return dialect.type_descriptor(Text())

    def column_expression(self, column: ColumnElement[JobState]) -> ColumnElement[JobState]:
        return state_as_text(column, self)

    def bind_expression(self, bindparam: BindParameter[JobState]) -> ColumnElement[JobState]:
        return state_parameter(bindparam, self)

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else parse_state(value).value

    def process_literal_param(self, value: Any, dialect: Dialect) -> str:
        return parse_state(value).value

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        # Faster than process_result_value(), which comes after the processing of the driver's enum.
        return STATE_BY_VALUE.get


def _decode(value: Any) -> Any:
    # SQLite can have a number in a column of any type.
    return encoding.decode_column(value) if isinstance(value, (str, bytes)) else value


class UTCDateTime(TypeDecorator[datetime]):
    """A time that is stored in UTC without a zone, whatever the session's zone is; aware UTC in Python.

    A stored time outside the years 1 to 9999 is read as the nearest time within them, and one that is not a
    time, which SQLite can store, as the first of them. A single bad row must not make others unreadable.
    """

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else fields.utc(value, "a time").replace(tzinfo=None)

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        # `Job.scheduled_at - timedelta(hours=1)`
        return Interval() if isinstance(value, timedelta) else self

    def column_expression(self, column: ColumnElement[datetime]) -> ColumnElement[datetime]:
        return clamped(column, self)

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        decode = self.impl_instance.dialect_impl(dialect).result_processor(dialect, coltype)
        if decode is None:
            return aware

        def read(value: Any) -> datetime | None:
            try:
                return aware(decode(value))
            except (ValueError, TypeError):
                return FIRST_TIME

        return read


class _or_now(FunctionElement[Any]):  # noqa: N801
    """A time that an INSERT replaces with the server's if it is NULL."""

    inherit_cache = True

    def __init__(self, time: ColumnElement[Any], type_: TypeEngine[Any]) -> None:
        super().__init__(time)
        self.type = type_


@compiles(_or_now)
def _render_or_now(element: _or_now, compiler: SQLCompiler, **options: Any) -> str:
    time = compiler.process(element.clauses, **options)
    # Statements can also be printed without a database.
    if compiler.isinsert and compiler.dialect.name in UTC_NOW.sql:
        return f"coalesce({time}, {compiler.process(UTC_NOW)})"
    return time


class DueTime(UTCDateTime):
    """When a job is due; NULL in an INSERT stands for the server's time."""

    cache_ok = True

    def bind_expression(self, bindvalue: ColumnElement[datetime]) -> ColumnElement[datetime]:
        return _or_now(bindvalue, self)


def aware(value: datetime | None) -> datetime | None:
    """A time without a zone as a time in UTC."""
    # combine() takes a seventh of the time of replace().
    return None if value is None else datetime.combine(value, value.time(), UTC)


class _Unprintable(EncodingError, DontWrapMixin):
    """SQLAlchemy's `StatementError` prints all parameters, so its message would raise another error."""


def _printable(error: EncodingError, value: object) -> EncodingError:
    return error if display.can_be_printed(value) else _Unprintable(error.field, error.problem)


def _wrapped(check_and_wrap: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Put psycopg's wrapper around the text of a document: the driver encodes three times more slowly."""
    wrapper = type(check_and_wrap({}))

    def wrap(value: Any) -> Any:
        text = encoding.encode_document(value)
        return check_and_wrap(value) if text is None else wrapper(text, str)

    return wrap


class JSONDocument(TypeDecorator[Any]):
    """`jsonb` on PostgreSQL, JSON text elsewhere. A document that cannot be decoded is an `Undecodable`.

    `name` stands for the document in errors about a value that cannot be stored.
    """

    impl = JSON().with_variant(postgresql.JSONB(), "postgresql")
    cache_ok = True

    def __init__(self, name: str = "the document") -> None:
        super().__init__()
        self.name = name

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        # Bulk inserts and statements send values that no `Job` has checked. JSON.NULL is no value.
        if value is JSON.NULL:
            return value
        if encoding.encode_document(value) is not None:
            return value
        try:
            return encoding.json_value(value, self.name)
        except EncodingError as error:
            raise _printable(error, value) from None

    def bind_processor(self, dialect: Dialect) -> Any:
        check_and_encode: Any = super().bind_processor(dialect)
        if type(self.impl_instance).bind_processor is not JSON.bind_processor:
            # The driver takes documents rather than texts.
            return _wrapped(check_and_encode) if dialect.driver == "psycopg" else check_and_encode

        def encode(value: Any) -> Any:
            text = encoding.encode_document(value)
            return check_and_encode(value) if text is None else text

        return encode

    def column_expression(self, column: Any) -> Any:
        return as_text(column, self)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        return _decode


class OptionalDocument(JSONDocument):
    """A `JSONDocument` that stores None as NULL instead of as the JSON value `null`."""

    impl = JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Any:
        encode: Any = super().bind_processor(dialect)
        return lambda value: None if value is None else encode(value)


class TextList(TypeDecorator[list[str]]):
    """`text[]` on PostgreSQL, a JSON list elsewhere."""

    impl = JSON().with_variant(postgresql.ARRAY(Text()), "postgresql")
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if isinstance(value, (list, tuple)):
            for item in value:
                if not isinstance(item, str):
                    problem = f"must have strings only; {display.shown(item)} is not one"
                    raise _printable(EncodingError("the list", problem), value)
        return value

    def bind_processor(self, dialect: Dialect) -> Any:
        process: Any = super().bind_processor(dialect)
        if not isinstance(self.impl_instance, ARRAY):
            return process

        def check(value: Any) -> Any:
            # Drivers of PostgreSQL take a list, which ARRAY would copy.
            return self.process_bind_param(value, dialect) if type(value) is list else process(value)

        return check

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        # Drivers of PostgreSQL return a list, which ARRAY would copy.
        return None if isinstance(self.impl_instance, ARRAY) else _decode
