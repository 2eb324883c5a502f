"""SQL expressions that column types put around columns that are selected, and around parameters."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Text, cast
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from oban import compat

#: The range of Python's datetime. A `timestamp` reaches from 4713 BC to the year 294276, and to infinity.
FIRST_TIME, LAST_TIME = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Wrapped(FunctionElement[Any]):
    """A column that is selected, or a parameter, with something around it on PostgreSQL."""

    inherit_cache = True

    def __init__(self, column: ColumnElement[Any], type_: TypeEngine[Any]) -> None:
        super().__init__(column)
        self.type = type_


class clamped(Wrapped):  # noqa: N801
    """The nearest time that a driver can decode."""

    inherit_cache = True


class as_text(Wrapped):  # noqa: N801
    """A document as text: a driver would fail for the whole result if it cannot decode one of them."""

    inherit_cache = True


@compiles(Wrapped)
def _render_argument(element: Wrapped, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


def _is_distinct(element: Wrapped) -> bool:
    (column,) = element.clauses
    return compat.is_distinct_column(column)


@compiles(as_text, "postgresql")
def _render_as_text(element: as_text, compiler: SQLCompiler, **options: Any) -> str:
    document = _render_argument(element, compiler, **options)
    return document if _is_distinct(element) else f"CAST({document} AS TEXT)"


@compiles(clamped, "postgresql")
def _render_clamped(element: clamped, compiler: SQLCompiler, **options: Any) -> str:
    time = _render_argument(element, compiler, **options)
    # SELECT DISTINCT can only be ordered by what it selects, and the ORDER BY has the column itself.
    if compat.compiles_distinct(compiler):
        return time
    first, last = (f"'{bound.replace(tzinfo=None)}'" for bound in (FIRST_TIME, LAST_TIME))
    return f"CASE WHEN {time} < {first} THEN {first} WHEN {time} > {last} THEN {last} ELSE {time} END"


class state_as_text(Wrapped):  # noqa: N801
    """A state as text: in each new connection, asyncpg would ask the server about the enum, for 30 ms."""

    inherit_cache = True


class state_parameter(Wrapped):  # noqa: N801
    """A state as a constant in the SQL text, for the same reason.

    The constant also lets the planner use partial indexes on the state. Where one SQL text serves for many
    rows, the state is a parameter that is sent as text.
    """

    inherit_cache = True


@compiles(state_as_text, "postgresql")
def _render_state_as_text(element: state_as_text, compiler: SQLCompiler, **options: Any) -> str:
    state = _render_argument(element, compiler, **options)
    # The order of states is that of the enum, so what is compared has to be one.
    is_compared = _is_distinct(element) or not compat.can_select_converted(compiler, type(element.type))
    return state if is_compared else f"CAST({state} AS TEXT)"


@compiles(state_parameter, "postgresql")
def _render_state_parameter(element: state_parameter, compiler: SQLCompiler, **options: Any) -> str:
    # PostgreSQL compares the condition of ON CONFLICT with those of indexes before it evaluates a cast.
    infers_index = compat.infers_index(options)
    is_for_many = compat.executes_many(compiler) if infers_index else compat.compiles_for_many(compiler)
    if options.get("literal_binds") or not is_for_many:
        compat.check_literals(compiler, type(element.type))
        return _render_argument(element, compiler, **{**options, "literal_execute": True})
    if infers_index:
        return _render_argument(element, compiler, **options)
    (parameter,) = element.clauses
    return compiler.process(cast(cast(parameter, Text), element.type), **options)
